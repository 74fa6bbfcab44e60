"""Rules for the variance of the noise that makes the information of a deterministic layer finite, and grids of it.

A rule is a noise rule: freeze the value it gave across epochs and across the models that are compared.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.distance import pdist

from mi_jax.errors import InputError
from mi_jax.information import _tiles
from mi_jax.information._input import Activations, as_activations, check_finite

RULES = ("fixed", "layer", "trace", "median")


def noise_variance(t: Any, *, rule: str = "fixed", value: float = 0.1, layer: str = "t") -> float:
    """Return a noise variance for activations t [n, ...] by a rule.

    With v the mean over features of the variance over rows and D features: `fixed` is `value` whatever t; `layer` is v;
    `trace` is D v / ln n, which stays informative at any width; `median` is the median squared distance between rows
    over 2 ln n, the pairwise form of `trace`.

    Raises InputError for an unknown rule, a non-positive value, a constant layer under a data-dependent rule, and
    activations that `kde` would refuse.
    """
    if rule not in RULES:
        raise InputError(f"rule is {rule!r}: choose fixed, layer, trace or median.")
    if rule == "fixed":
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"value is {value}: a noise variance must be positive and finite.")
        return float(value)
    x = as_activations(t, layer)
    check_finite(x, layer)
    n, width = x.shape
    if rule == "median":
        scale = _median_distance(x) / (2 * math.log(n))
    else:
        v = _mean_variance(x)
        scale = v if rule == "layer" else width * v / math.log(n)
    if not scale > 0:
        raise InputError(f"{layer} is constant, or mostly so: rule {rule!r} gives no positive variance; use 'fixed'.")
    return scale


def noise_grid(centre: float, *, levels: int = 16) -> np.ndarray:
    """Return `levels` variances in factors of two around `centre`, [levels], rising.

    Factors of two share exponentials: sixteen levels cost little more than one. Raises InputError when `centre` is not
    positive or `levels` is below one.
    """
    if not (math.isfinite(centre) and centre > 0 and levels >= 1):
        raise InputError(f"a grid of {levels} levels around {centre} was asked for: both must be positive.")
    return centre * 2.0 ** (np.arange(levels) - levels // 2)


def _mean_variance(x: Activations) -> float:
    """Mean over features of the variance over rows, in chunks of features so that a wide layer stays where it is."""
    n, width = x.shape
    chunks = _tiles.chunks(x, _tiles.chunk_width(), jnp.float32)
    return sum(float(_squares(chunk)) for chunk in chunks) / (n * width)


@jax.jit
def _squares(x: jax.Array) -> jax.Array:
    """Sum of squares about the mean row; rows are taken from the first one, so a constant gives 0."""
    a = x - x[:1]
    return jnp.sum((a - a.mean(axis=0)) ** 2)


def _median_distance(x: Activations) -> float:
    """Median squared distance between distinct rows of a sample of at most 2,048 rows, evenly spaced."""
    rows = np.unique(np.linspace(0, len(x) - 1, min(len(x), 2048)).astype(int))
    return float(np.median(pdist(np.asarray(x[rows], np.float64), "sqeuclidean")))
