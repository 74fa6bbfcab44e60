"""Coverage of the 95 % intervals of Monte Carlo information, over rows, widths, noise variances and classes.

Standard errors are tested for the mixture of the given rows, and jackknife errors for new rows from the population.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Set
from typing import Any

import jax
import numpy as np
from scipy.special import stdtrit

from mi_jax.information import monte_carlo
from mi_jax.information.monte_carlo import MonteCarlo, default_draws

Table = Any
_CALL = 64
"""Noise vectors per row in one call for the reference value, which bounds its memory."""
QUANTITIES = ("i_tx", "i_ty")
KEYS = ("n", "dimension", "classes", "mix")
"""The columns that identify a cell of the grid."""


@dataclasses.dataclass(frozen=True)
class CoveragePlan:
    """The grid of the coverage benchmark.

    Attributes:
        sizes: numbers of rows.
        dimensions: numbers of features.
        classes: numbers of equally likely classes, unit normals around means of variance 1 per feature (mix "equal").
            Every size and dimension has a further cell (mix "unequal") of two classes with 10 % and 90 % of the rows,
            normals of standard deviation 2 and 1/2 around means of variance 4 per feature.
        noise: noise variances in units of the trace rule at a layer variance of 2; all use the same draws.
        repeats: number of intervals in each cell.
        draws: noise vectors per row; None for the default of `monte_carlo`.
        reference_draws: least number of noise vectors per row for the reference value of fixed rows.
    """

    sizes: tuple[int, ...] = (32, 128, 512)
    dimensions: tuple[int, ...] = (1, 8, 64)
    classes: tuple[int, ...] = (2, 10)
    noise: tuple[float, ...] = (0.25, 1.0, 4.0, 16.0)
    repeats: int = 200
    draws: int | None = None
    reference_draws: int = 2048


Cell = tuple[int, int, int, str]


def measure_coverage(
    plan: CoveragePlan,
    *,
    done: Set[tuple[Any, ...]] = frozenset(),
    report_progress: Callable[[float, str], None] = lambda *_: None,
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of one cell after another.

    A row holds `claim` ("noise" or "rows"), `quantity`, how many of the `repeats` intervals are `covered`, and the mean
    value and half-width in bits. "noise": value +- 1.96 standard errors against the mixture of the same rows, from many
    more draws. "rows": value +- t jackknife errors, with the degrees of freedom of its blocks, against the mean over
    new rows.

    Args:
        plan: the grid.
        done: cells to leave out, as tuples of `KEYS`.
        report_progress: called with the completed fraction and a description.
    """
    kinds = [(classes, "equal") for classes in plan.classes] + [(2, "unequal")]
    grid = ((n, d, *kind) for n, d, kind in itertools.product(plan.sizes, plan.dimensions, kinds))
    cells = [cell for cell in grid if cell not in done]
    for number, cell in enumerate(cells):
        n, d = cell[:2]
        report_progress(number / len(cells), f"coverage of intervals, {n} rows")
        variances = np.array(plan.noise) * 2 * d / math.log(n)
        yield [
            dict(zip(KEYS, cell, strict=True))
            | {"noise": noise, "claim": claim, "quantity": quantity}
            | {name: float(column[s]) for name, column in found.items()}
            | {"repeats": plan.repeats, "draws": plan.draws or default_draws(n)}
            for claim, measure in (("noise", _noise_alone), ("rows", _fresh_rows))
            for quantity, found in measure(cell, variances, plan).items()
            for s, noise in enumerate(plan.noise)
        ]


def _layer(cell: Cell, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw independent rows around one fixed mean per class, [n, d], and their labels [n].

    The first two rows have different classes, as labels of a single class are invalid input.
    """
    n, d, classes, mix = cell
    means = np.random.default_rng([n, d, classes]).standard_normal((classes, d))
    r = np.random.default_rng([n, d, classes, seed])
    if mix == "equal":
        y, deviation = r.integers(0, classes, n), np.ones(classes)
    else:
        y, deviation = (r.random(n) >= 0.1).astype(int), np.array([2.0, 0.5])
        means = 2 * means
    y[:2] = 0, 1
    return (means[y] + deviation[y, None] * r.standard_normal((n, d))).astype(np.float32), y


def _noise_alone(cell: Cell, variances: np.ndarray, plan: CoveragePlan) -> dict[str, Any]:
    t, y = _layer(cell, 0)
    key, far = jax.random.split(jax.random.key(0))
    options: dict[str, Any] = {"noise_variance": variances, "num_classes": cell[2]}
    calls = jax.random.split(far, -(-plan.reference_draws // _CALL))
    many = [monte_carlo(t, y, key=k, draws=_CALL, blocks=2, **options) for k in calls]
    repeats = [monte_carlo(t, y, key=k, draws=plan.draws, **options) for k in jax.random.split(key, plan.repeats)]
    return {
        q: _covered(
            _stack(repeats, q),
            _stack(repeats, f"{q}_stderr"),
            _stack(many, q).mean(axis=0),
            np.sqrt((_stack(many, f"{q}_stderr") ** 2).sum(axis=0)) / len(many),
        )
        for q in QUANTITIES
    }


def _fresh_rows(cell: Cell, variances: np.ndarray, plan: CoveragePlan) -> dict[str, Any]:
    repeats = []
    for seed, key in enumerate(jax.random.split(jax.random.key(1), plan.repeats)):
        t, y = _layer(cell, seed)
        repeats.append(monte_carlo(t, y, noise_variance=variances, num_classes=cell[2], key=key, draws=plan.draws))
    found = {}
    for q in QUANTITIES:
        values, errors = _stack(repeats, q), _stack(repeats, f"{q}_sampling_error")
        others = (values.sum(axis=0) - values) / (len(values) - 1)
        known_error = values.std(axis=0, ddof=1) / math.sqrt(len(values) - 1)
        found[q] = _covered(values, errors, others, known_error, degrees=repeats[0].blocks - 1)
    return found


def _stack(results: list[MonteCarlo], field: str) -> np.ndarray:
    """Stack one field of all results, [results, s]."""
    return np.stack([getattr(result, field) for result in results])


def _covered(
    values: np.ndarray, errors: np.ndarray, known: Any, known_error: Any, *, degrees: float | int = math.inf
) -> dict[str, np.ndarray]:
    """Count the intervals [repeats, s] that contain the reference, whose own error is added in quadrature.

    The width of an interval follows from Student's t with `degrees` of freedom.
    """
    quantile = float(stdtrit(degrees, 0.975))
    half = quantile * np.hypot(errors, known_error) + 1e-7
    bit = math.log(2)
    return {
        "covered": (np.abs(values - known) <= half).sum(axis=0),
        "value": values.mean(axis=0) / bit,
        "spread": values.std(axis=0, ddof=1) / bit,
        "half_width": quantile * errors.mean(axis=0) / bit,
    }
