"""Matrix-based Renyi information: eigenvalues of normalised kernel matrices. Not Shannon's: give it an axis of its own.

Dense: memory n^2, and n^3 time unless alpha is 2.
"""

from typing import Any, Literal

import jax
import numpy as np
from scipy.linalg import eigvalsh
from scipy.spatial.distance import pdist, squareform

from mi_jax.errors import InputError
from mi_jax.information._input import as_activations, as_labels, check_finite
from mi_jax.information.estimator import Estimate, register, target_of

WidthRule = Literal["median", "scott", "silverman"]


def kernel_width(x: np.ndarray, rule: WidthRule) -> float:
    """Return the width s of exp(-d / 2 s^2): the median distance, or Scott's or Silverman's rule.

    Scott's is n^(-1 / (4 + d)) times the root of the total variance; Silverman's is (4 / (d + 2))^(1 / (d + 4)) of it.
    """
    n, d = x.shape
    if rule == "median":
        return float(np.sqrt(np.median(pdist(x, "sqeuclidean"))))
    factor = n ** (-1 / (4 + d)) * (1 if rule == "scott" else (4 / (d + 2)) ** (1 / (d + 4)))
    return float(factor * np.sqrt(d * x.var(axis=0).mean()))


def _kernel(x: np.ndarray, width: float | WidthRule) -> tuple[np.ndarray, float]:
    """Return the kernel matrix [n, n] and its width; ones for a constant, whatever the rule says."""
    s = kernel_width(x, width) if isinstance(width, str) else float(width)
    if isinstance(width, str) and (x == x[:1]).all():
        return np.ones((len(x), len(x))), s
    if not s > 0:
        raise InputError(f"the kernel width is {s}: most rows of the layer are equal, or the width is not positive.")
    return np.exp(squareform(pdist(x, "sqeuclidean")) / (-2 * s * s)), s


def _entropy(blocks: list[np.ndarray], alpha: float) -> float:
    """S_alpha of a positive block-diagonal matrix divided by its trace, nats."""
    if alpha == 2:
        return float(2 * np.log(sum(np.trace(b) for b in blocks)) - np.log(sum(np.sum(b * b) for b in blocks)))
    w = np.clip(np.concatenate([eigvalsh(b) for b in blocks]), 0, None)
    w = w[w > 0] / w.sum()
    return float(np.log(np.sum(w**alpha)) / (1 - alpha))


@register("renyi", targets=("label", "continuous"))
def renyi(
    t: Any,
    other: Any,
    *,
    key: jax.Array | None = None,
    alpha: float | int = 1.01,
    width: float | WidthRule = "median",
    other_width: float | WidthRule = "median",
    num_classes: int | None = None,
) -> Estimate:
    """Return S(T) + S(other) - S(T, other) of the matrix-based Renyi entropy, in nats.

    t: [n, ...]; other: int labels [n] (kernel 1 within a class, 0 across) or float [n, ...]. `width` is the kernel
    width or a rule for it. A constant has exactly 0. Raises InputError for what `kde` refuses, alpha <= 0 or = 1, and
    widths that are not positive.
    Source: Giraldo, Rao & Principe 2015, eqs. 7 to 9; Yu et al. 2019 for convolutional layers.
    """
    if not alpha > 0 or alpha == 1:
        raise InputError(f"alpha is {alpha}: it must be positive and not 1; 1.01 is the usual stand-in for Shannon.")
    x = as_activations(t)
    check_finite(x)
    left, s = _kernel(np.asarray(x, np.float64), width)
    if target_of(other) == "label":
        labels, _ = as_labels(other, len(x), num_classes)
        counts = np.bincount(labels)
        right = [np.array([[float(c)]]) for c in counts]  # the one eigenvalue of each block of ones
        joint = [left[np.ix_(labels == k, labels == k)] for k in np.flatnonzero(counts)]
    else:
        z = as_activations(other, "other")
        check_finite(z, "other")
        right = [_kernel(np.asarray(z, np.float64), other_width)[0]]
        joint = [left * right[0]]
    entropy = _entropy([left], alpha)
    value = entropy + _entropy(right, alpha) - _entropy(joint, alpha)
    if left.min() == 1 or right[0].min() == 1 == len(right):  # a kernel of ones tells nothing; the rest is rounding
        value = 0.0
    details = {"entropy": entropy, "width": s}
    return Estimate("renyi", value, None, "heuristic", len(x), {"alpha": alpha, "width": width}, details)
