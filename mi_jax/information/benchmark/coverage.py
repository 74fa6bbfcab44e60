"""Coverage of the 95 % intervals of Monte Carlo information, over rows, widths, noise variances and classes.

Standard errors are tested for the mixture of the given rows; jackknife errors for new rows, and for the information of
the population, which the mixture of few rows does not have: see the flags `undersampled`.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Set
from typing import Any

import jax
import numpy as np
from scipy.special import logsumexp, stdtrit

from mi_jax.information import monte_carlo
from mi_jax.information.monte_carlo import MonteCarlo, default_draws

Table = Any
_CALL = 64
"""Noise vectors per row in one call for the reference value, which bounds its memory."""
QUANTITIES = ("i_tx", "i_ty")
CLAIMS = ("noise", "rows", "population", "bracket")
"""What an interval claims to contain, see `measure_coverage`."""
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

    A row holds `claim`, `quantity`, how many of the `repeats` intervals are `covered`, how many are `flagged` as from
    too few rows and how many of those cover, the mean value and half-width in bits, and `known`, the mean of what is to
    be covered. The claims:

    - "noise": value +- 1.96 standard errors against the mixture of the same rows, from many more draws;
    - "rows": value +- t jackknife errors, with the degrees of freedom of its blocks, against the mean over new rows;
    - "population": the same intervals against the information of the population;
    - "bracket": from the lower to the higher of value and leave-one-out value, and t jackknife errors beyond, against
      the information of the population.

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
        counted = {"noise": _noise_alone(cell, variances, plan), **_new_rows(cell, variances, plan)}
        yield [
            dict(zip(KEYS, cell, strict=True))
            | {"noise": noise, "claim": claim, "quantity": quantity}
            | {name: float(column[s]) for name, column in found.items()}
            | {"repeats": plan.repeats, "draws": plan.draws or default_draws(n)}
            for claim, by_quantity in counted.items()
            for quantity, found in by_quantity.items()
            for s, noise in enumerate(plan.noise)
        ]


def _classes(cell: Cell) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the probability, the mean [d] and the standard deviation of every class."""
    n, d, classes, mix = cell
    means = np.random.default_rng([n, d, classes]).standard_normal((classes, d))
    if mix == "equal":
        return np.full(classes, 1 / classes), means, np.ones(classes)
    return np.array([0.1, 0.9]), 2 * means, np.array([2.0, 0.5])


def _layer(cell: Cell, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw independent rows, [n, d], and their labels [n], again where all are of one class, which is invalid input."""
    n, d, classes, _ = cell
    p, means, deviation = _classes(cell)
    r = np.random.default_rng([n, d, classes, seed])
    y = r.choice(classes, n, p=p)
    while np.ptp(y) == 0:
        y = r.choice(classes, n, p=p)
    return (means[y] + deviation[y, None] * r.standard_normal((n, d))).astype(np.float32), y


def population_information(
    cell: Cell, variances: np.ndarray, *, draws: int = 8192
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return I(X;T) and I(T;Y) of the population of a cell and their standard errors, nats [s].

    I(X;T) is I(T;Y) and the mean of the Gaussian channels of the classes; I(T;Y) is a mean over draws of T.

    Args:
        cell: (n, dimension, classes, mix).
        variances: noise variances, [s].
        draws: number of draws of T.
    """
    p, means, deviation = _classes(cell)
    d = cell[1]
    r = np.random.default_rng([cell[1], cell[2], 1])
    y = r.choice(len(p), draws, p=p)
    g = r.standard_normal((draws, d))
    along, squares = g @ means.T, (g**2).sum(axis=1)
    apart = ((means[:, None] - means[None]) ** 2).sum(axis=2)[y]
    i_ty = []
    for v in variances:
        spread = deviation**2 + v
        root = np.sqrt(spread[y])
        distance = (
            apart + spread[y, None] * squares[:, None] + 2 * root[:, None] * (along[np.arange(draws), y, None] - along)
        )
        log_joint = np.log(p) - 0.5 * distance / spread - 0.5 * d * np.log(spread)
        own = log_joint[np.arange(draws), y] - np.log(p[y])
        i_ty.append(own - logsumexp(log_joint, axis=1))
    mean = np.array([v.mean() for v in i_ty])
    error = np.array([v.std(ddof=1) for v in i_ty]) / math.sqrt(draws)
    channel = np.array([p @ (0.5 * d * np.log1p(deviation**2 / v)) for v in variances])
    return {"i_tx": (mean + channel, error), "i_ty": (mean, error)}


def _noise_alone(cell: Cell, variances: np.ndarray, plan: CoveragePlan) -> dict[str, Any]:
    t, y = _layer(cell, 0)
    key, far = jax.random.split(jax.random.key(0))
    options: dict[str, Any] = {"noise_variance": variances, "num_classes": cell[2]}
    calls = jax.random.split(far, -(-plan.reference_draws // _CALL))
    many = [monte_carlo(t, y, key=k, draws=_CALL, blocks=2, **options) for k in calls]
    repeats = [monte_carlo(t, y, key=k, draws=plan.draws, **options) for k in jax.random.split(key, plan.repeats)]
    return {
        q: _covered(
            *_interval(repeats, q, "_stderr"),
            _stack(many, q).mean(axis=0),
            np.sqrt((_stack(many, f"{q}_stderr") ** 2).sum(axis=0)) / len(many),
            _stack(repeats, f"{q}_undersampled"),
        )
        for q in QUANTITIES
    }


def _new_rows(cell: Cell, variances: np.ndarray, plan: CoveragePlan) -> dict[str, dict[str, Any]]:
    """Return the counts by claim and quantity, of intervals from new rows in every repeat."""
    repeats = []
    for seed, key in enumerate(jax.random.split(jax.random.key(1), plan.repeats)):
        t, y = _layer(cell, seed)
        repeats.append(monte_carlo(t, y, noise_variance=variances, num_classes=cell[2], key=key, draws=plan.draws))
    population = population_information(cell, variances)
    found: dict[str, dict[str, Any]] = {claim: {} for claim in CLAIMS[1:]}
    for q in QUANTITIES:
        values, errors = _interval(repeats, q, "_sampling_error")
        others = (values.sum(axis=0) - values) / (len(values) - 1)
        known_error = values.std(axis=0, ddof=1) / math.sqrt(len(values) - 1)
        flags, degrees = _stack(repeats, f"{q}_undersampled"), repeats[0].blocks - 1
        left_out = _stack(repeats, f"{q}_leave_one_out")
        found["rows"][q] = _covered(values, errors, others, known_error, flags, degrees=degrees)
        found["population"][q] = _covered(values, errors, *population[q], flags, degrees=degrees)
        found["bracket"][q] = _covered(values, errors, *population[q], flags, degrees=degrees, other_end=left_out)
    return found


def _interval(results: list[MonteCarlo], quantity: str, error: str) -> tuple[np.ndarray, np.ndarray]:
    return _stack(results, quantity), _stack(results, quantity + error)


def _stack(results: list[MonteCarlo], field: str) -> np.ndarray:
    """Stack one field of all results, [results, s]."""
    return np.stack([getattr(result, field) for result in results])


def _covered(
    values: np.ndarray,
    errors: np.ndarray,
    known: Any,
    known_error: Any,
    flagged: np.ndarray,
    *,
    degrees: float | int = math.inf,
    other_end: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Count the intervals [repeats, s] that contain the reference, whose own error is added in quadrature.

    The width of an interval follows from Student's t with `degrees` of freedom. With `other_end` it extends to there.
    """
    quantile = float(stdtrit(degrees, 0.975))
    half = quantile * np.hypot(errors, known_error) + 1e-7
    ends = values if other_end is None else other_end
    held = (np.minimum(values, ends) - half <= known) & (known <= np.maximum(values, ends) + half)
    bit = math.log(2)
    return {
        "covered": held.sum(axis=0),
        "flagged": flagged.sum(axis=0),
        "covered_flagged": (held & flagged).sum(axis=0),
        "value": values.mean(axis=0) / bit,
        "known": np.broadcast_to(known, values.shape).mean(axis=0) / bit,
        "spread": values.std(axis=0, ddof=1) / bit,
        "half_width": quantile * errors.mean(axis=0) / bit,
    }
