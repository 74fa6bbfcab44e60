"""How often the 95 % intervals of Monte-Carlo information hold what they claim, over rows, widths, noise and classes.

Two claims are judged: standard errors for the mixture of the given rows, and jackknife errors for fresh rows, among
them rows of classes that differ in probability and spread.
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
"""Noise vectors a row in one call for the reference: its memory grows with them."""
QUANTITIES = ("i_tx", "i_ty")
KEYS = ("n", "dimension", "classes", "mix")
"""What names a cell."""


@dataclasses.dataclass(frozen=True)
class CoveragePlan:
    """The grid.

    Attributes:
        sizes: rows.
        dimensions: features of a row.
        classes: equally likely classes, unit normals around means of variance 1 a feature; mix "equal". Beside them
            every size and dimension has a cell of mix "unequal": two classes of 10 % and 90 % of the rows, normals of
            deviation 2 and 1/2 around means of variance 4 a feature.
        noise: noise variances in units of the trace rule at a layer variance of 2, all from the same draws.
        repeats: intervals that are judged in each cell.
        draws: noise vectors a row; None for the default of `monte_carlo`.
        reference_draws: noise vectors a row behind the reference value of fixed rows, at least.
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
    """Yield the rows of one cell after another, those in `done` (tuples of `KEYS`) left out.

    A row holds `claim` ("noise" or "rows"), `quantity`, `covered` of `repeats` intervals, the mean value and half-width
    in bits. "noise": value +- 1.96 standard errors against the mixture of the same rows, known from many more draws.
    "rows": value +- t jackknife errors, of the degrees of freedom of its blocks, against the mean over fresh rows.
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
            for claim, judge in (("noise", _noise_alone), ("rows", _fresh_rows))
            for quantity, found in judge(cell, variances, plan).items()
            for s, noise in enumerate(plan.noise)
        ]


def _layer(cell: Cell, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Independent rows around one fixed mean a class, but for the first two, which are of different classes.

    Information about one class alone is refused.
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
        q: _judge(
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
        found[q] = _judge(values, errors, others, known_error, degrees=repeats[0].blocks - 1)
    return found


def _stack(results: list[MonteCarlo], field: str) -> np.ndarray:
    """One field of all results, [results, s]."""
    return np.stack([getattr(result, field) for result in results])


def _judge(
    values: np.ndarray, errors: np.ndarray, known: Any, known_error: Any, *, degrees: float | int = math.inf
) -> dict[str, np.ndarray]:
    """Count the intervals [repeats, s] that hold the reference; its own error is added to theirs in quadrature.

    `degrees` of freedom of the errors say how many of them an interval takes, by Student's t.
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
