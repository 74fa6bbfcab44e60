"""Rules for the variance of the noise that makes the information of a deterministic layer finite, and grids of it.

Estimates depend on the variance: use the same one across epochs and for all models that are compared.
"""

import math
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax import checks
from mi_jax.errors import InputError
from mi_jax.information import _tiles
from mi_jax.information._input import Activations, as_rows, check_finite
from mi_jax.information.lazy import LazyActivations
from mi_jax.registry import Registry
from mi_jax.seeding import sample_rows

NoiseRule = Callable[[Any], float]
"""Maps finite activations [n, d], an array or `LazyActivations`, to a variance; 0 for a constant layer."""
NOISE_RULES: Registry[NoiseRule] = Registry("noise rule")
"""Data-dependent rules by name; `fixed` is the one rule that needs no activations."""


def noise_variance(t: Any, *, rule: str = "fixed", value: float = 0.1, layer: str = "t") -> float:
    """Return a noise variance for activations by a rule.

    With v the mean over features of the variance over rows, and D features: `fixed` is `value` whatever t; `layer` is
    v; `trace` is D v / ln n, which stays informative at any width; `median` is the median squared distance between rows
    over 2 ln n, the pairwise form of `trace`.

    Args:
        t: activations [n, ...], or `LazyActivations`.
        rule: "fixed" or a name in `NOISE_RULES`.
        value: the variance of the fixed rule.
        layer: name for messages.

    Raises:
        InputError: for an unknown rule, a non-positive value, a constant layer under a data-dependent rule, and
            activations that `kde` would refuse.

    Examples:
        >>> import numpy as np
        >>> noise_variance(np.array([[1.0], [-1.0]]), rule="layer")
        1.0
    """
    if rule == "fixed":
        variance = _number(value)
        checks.positive("value", variance, usual="0.1")
        return float(variance)
    if not isinstance(rule, str) or rule not in NOISE_RULES:
        raise InputError(f"There is no noise rule {rule!r}; choose from fixed, {', '.join(NOISE_RULES)}.")
    x = as_rows(t, layer)
    check_finite(x, layer)
    variance = float(NOISE_RULES[rule](x))
    if variance == math.inf:
        raise InputError(f"{layer} is too large for its variance to be finite; rescale it first.")
    if not variance > 0:
        raise InputError(
            f"{layer} is constant, or mostly so, and rule {rule!r} gives no positive variance; use 'fixed'."
        )
    return variance


@NOISE_RULES.registering("layer")
def _layer(x: Activations | LazyActivations) -> float:
    """Mean over features of the variance over rows, in chunks of features, without a copy of a wide layer.

    In float64 for float64 activations, and where the squares of float32 activations overflow or underflow.
    """
    n, width = x.shape
    for wide in (False, True)[int(x.dtype == np.float64) :]:
        with jax.enable_x64(wide):
            dtype = jnp.float64 if wide else jnp.float32
            if isinstance(x, LazyActivations):
                total = _tiles.sum_of_squares(x, dtype)
            else:
                total = sum(float(_squares(chunk)) for chunk in _tiles.chunks(x, _tiles.chunk_width(), dtype))
        if 1e-30 < total < math.inf:
            break
    return total / (n * width)


@jax.jit
def _squares(x: jax.Array) -> jax.Array:
    """Sum of squares about the mean row; the first row is subtracted first, so a constant gives 0."""
    a = x - x[:1]
    return jnp.sum((a - a.mean(axis=0, keepdims=True)) ** 2)


@NOISE_RULES.registering("trace")
def _trace(x: Activations | LazyActivations) -> float:
    """The total variance of the features over ln n."""
    return x.shape[1] * _layer(x) / math.log(len(x))


@NOISE_RULES.registering("median")
def _median(x: Activations | LazyActivations) -> float:
    """From at most 2,048 rows, drawn at random: evenly spaced ones may be of some classes only."""
    from scipy.spatial.distance import pdist  # here, as scipy is slow to import and most callers do without

    rows = sample_rows(len(x), 2048)
    return float(np.median(pdist(np.asarray(x[rows], np.float64), "sqeuclidean"))) / (2 * math.log(len(x)))


def _number(value: Any) -> Any:
    """A number that may be given as an array without axes."""
    return value.item() if getattr(value, "shape", None) == () else value


def noise_grid(centre: Any, *, levels: int = 16) -> np.ndarray:
    """Return variances in factors of two around `centre`, [levels], in increasing order.

    Factors of two share exponentials in `kde`, so that sixteen levels cost little more than one.

    Args:
        centre: a variance.
        levels: number of variances.

    Raises:
        InputError: when `centre` is not positive and finite, `levels` is no whole number of at least one, or the
            variances leave the range of float64.

    Examples:
        >>> noise_grid(1.0, levels=4).tolist()
        [0.25, 0.5, 1.0, 2.0]
    """
    centre = _number(centre)
    checks.positive("centre", centre, usual="0.1")
    checks.count("levels", levels)
    exponent, below = math.frexp(centre)[1], levels // 2
    if exponent - below < sys.float_info.min_exp or exponent + levels - 1 - below > sys.float_info.max_exp:
        raise InputError(
            f"{levels} levels around {centre:g} leave the range of float64; take fewer, or rescale the activations."
        )
    return centre * 2.0 ** (np.arange(levels) - levels // 2)
