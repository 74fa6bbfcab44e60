"""How often the 95 % intervals of Monte-Carlo information hold what they claim, over rows, widths, noise and classes.

Two claims are judged: standard errors for the mixture of the given rows, and jackknife errors for fresh rows.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Set
from typing import Any

import jax
import numpy as np

from mi_jax.information import monte_carlo

Table = Any
_REFERENCE = 64
"""Times as many draws as one estimate has stand behind the reference value of fixed rows."""
QUANTITIES = ("i_tx", "i_ty")
KEYS = ("n", "dimension", "classes")
"""What names a cell."""


@dataclasses.dataclass(frozen=True)
class CoveragePlan:
    """The grid.

    Attributes:
        sizes: rows.
        dimensions: features of a row.
        classes: equally likely classes, unit normals around means of variance 1 a feature.
        noise: noise variances in units of the trace rule, all from the same draws.
        repeats: intervals that are judged in each cell.
        draws: noise vectors a row.
    """

    sizes: tuple[int, ...] = (32, 128, 512)
    dimensions: tuple[int, ...] = (1, 8, 64)
    classes: tuple[int, ...] = (2, 10)
    noise: tuple[float, ...] = (0.25, 1.0, 4.0, 16.0)
    repeats: int = 200
    draws: int = 4


def measure_coverage(
    plan: CoveragePlan,
    *,
    done: Set[tuple[Any, ...]] = frozenset(),
    tell: Callable[[float, str], None] = lambda *_: None,
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of one cell after another, those in `done` (tuples of `KEYS`) left out.

    A row holds `claim` ("noise" or "rows"), `quantity`, `covered` of `repeats` intervals, the mean value and half-width
    in bits. "noise": value +- 1.96 standard errors against the mixture of the same rows, known from many more draws.
    "rows": value +- 1.96 jackknife errors against the mean over fresh rows.
    """
    cells = [c for c in itertools.product(plan.sizes, plan.dimensions, plan.classes) if c not in done]
    for number, (n, d, classes) in enumerate(cells):
        tell(number / len(cells), f"coverage of intervals, {n} rows")
        variances = np.array(plan.noise) * 2 * d / math.log(n)
        yield [
            {"n": n, "dimension": d, "classes": classes, "noise": noise, "claim": claim, "quantity": quantity}
            | {name: float(column[s]) for name, column in found.items()}
            | {"repeats": plan.repeats, "draws": plan.draws}
            for claim, judge in (("noise", _noise_alone), ("rows", _fresh_rows))
            for quantity, found in judge(n, d, classes, variances, plan).items()
            for s, noise in enumerate(plan.noise)
        ]


def _layer(n: int, d: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows around one fixed mean a class."""
    means = np.random.default_rng([n, d, classes]).standard_normal((classes, d))
    r = np.random.default_rng([n, d, classes, seed])
    y = r.integers(0, classes, n)
    y[:classes] = np.arange(classes)
    return (means[y] + r.standard_normal((n, d))).astype(np.float32), y


def _noise_alone(n: int, d: int, classes: int, variances: np.ndarray, plan: CoveragePlan) -> dict[str, Any]:
    t, y = _layer(n, d, classes, 0)
    key, far = jax.random.split(jax.random.key(0))
    options: dict[str, Any] = {"noise_variance": variances, "num_classes": classes}
    many = monte_carlo(t, y, key=far, draws=_REFERENCE * plan.draws, **options)
    repeats = [monte_carlo(t, y, key=k, draws=plan.draws, **options) for k in jax.random.split(key, plan.repeats)]
    return {
        q: _judge(
            np.stack([getattr(r, q) for r in repeats]),
            np.stack([getattr(r, f"{q}_stderr") for r in repeats]),
            getattr(many, q),
            getattr(many, f"{q}_stderr"),
        )
        for q in QUANTITIES
    }


def _fresh_rows(n: int, d: int, classes: int, variances: np.ndarray, plan: CoveragePlan) -> dict[str, Any]:
    repeats = []
    for seed, key in enumerate(jax.random.split(jax.random.key(1), plan.repeats)):
        t, y = _layer(n, d, classes, seed)
        repeats.append(monte_carlo(t, y, noise_variance=variances, num_classes=classes, key=key, draws=plan.draws))
    found = {}
    for q in QUANTITIES:
        values, errors = (np.stack([getattr(r, q + end) for r in repeats]) for end in ("", "_sampling_error"))
        others = (values.sum(axis=0) - values) / (len(values) - 1)
        found[q] = _judge(values, errors, others, values.std(axis=0, ddof=1) / math.sqrt(len(values) - 1))
    return found


def _judge(values: np.ndarray, errors: np.ndarray, known: Any, known_error: Any) -> dict[str, np.ndarray]:
    """Count the intervals [repeats, s] that hold the reference; its own error is added to theirs in quadrature."""
    half = 1.96 * np.hypot(errors, known_error) + 1e-7
    bit = math.log(2)
    return {
        "covered": (np.abs(values - known) <= half).sum(axis=0),
        "value": values.mean(axis=0) / bit,
        "spread": values.std(axis=0, ddof=1) / bit,
        "half_width": 1.96 * errors.mean(axis=0) / bit,
    }
