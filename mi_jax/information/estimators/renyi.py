"""Matrix-based Renyi information, from eigenvalues of normalised kernel matrices.

Its values are not comparable to Shannon information. Dense: memory n^2, and time n^3 unless alpha is 2.
"""

import math
from typing import Any, Literal, get_args

import jax
import numpy as np

from mi_jax import checks
from mi_jax.errors import InputError
from mi_jax.information._input import as_pair
from mi_jax.information.estimator import Estimate, register

_CONTRAST = 0.05
"""Standard deviation of the kernel between rows below which rows are alike: at the median width, above 80 normals."""
_NEAR_SHANNON = 1e-6
"""Distance of the order from 1 below which values are mostly rounding: a logarithm near 0 is divided by it."""
WidthRule = Literal["median", "scott", "silverman"]


def kernel_width(x: np.ndarray, rule: WidthRule) -> float:
    """Return the width s of exp(-d / 2 s^2): the median distance, or Scott's or Silverman's rule.

    Scott's is n^(-1 / (4 + d)) times the root of the total variance; Silverman's is (4 / (d + 2))^(1 / (d + 4)) of it.
    """
    from scipy.spatial.distance import pdist  # here, as scipy is slow to import and most callers do without

    n, d = x.shape
    if rule == "median":
        return float(np.sqrt(np.median(pdist(x, "sqeuclidean"))))
    factor = n ** (-1 / (4 + d)) * (1 if rule == "scott" else (4 / (d + 2)) ** (1 / (d + 4)))
    return float(factor * np.sqrt(d * x.var(axis=0).mean()))


def _kernel(x: np.ndarray, width: float | WidthRule, name: str) -> tuple[np.ndarray, float]:
    """Return the kernel matrix [n, n] and its width; ones for a constant, whatever the rule says."""
    from scipy.spatial.distance import pdist, squareform

    distances = pdist(x, "sqeuclidean")
    if not np.isfinite(distances).all():
        raise InputError(f"{name} is too large for its squared distances to be finite; rescale it first.")
    if not isinstance(width, str):
        s = float(width)
    else:
        s = kernel_width(x, width)
        if (x == x[:1]).all():
            return np.ones((len(x), len(x))), s
        if not s > 0:
            raise InputError(f"The kernel width is {s}; give a positive number, as most rows may be equal.")
    return np.exp(squareform(distances) / (-2 * s * s)), s


def _check_width(name: str, width: Any) -> None:
    if isinstance(width, str):
        checks.one_of(name, width, get_args(WidthRule))
    else:
        checks.positive(name, width, usual="1.0, or the rule 'median'")


def _entropy(blocks: list[np.ndarray], alpha: float | int) -> float:
    """S_alpha of a positive block-diagonal matrix divided by its trace, nats.

    Eigenvalues as small as rounding makes them count as 0: with alpha below 1 they would dominate the sum.
    """
    from scipy.linalg import eigvalsh

    if alpha == 2:
        return float(2 * np.log(sum(np.trace(b) for b in blocks)) - np.log(sum(np.sum(b * b) for b in blocks)))
    w = np.concatenate([eigvalsh(b) for b in blocks])
    w = w[w > len(w) * np.finfo(float).eps * w.max()]
    log_w = np.log(w / w.sum())
    if alpha == math.inf:
        return float(-log_w.max())
    return float(np.log(np.sum(np.exp(alpha * (log_w - log_w.max())))) + alpha * log_w.max()) / (1 - alpha)


@register(
    "renyi",
    targets=("label", "continuous"),
    label="matrix Rényi",
    title="Matrix-based Rényi",
    description="matrix-based entropy of order 1.01, not Shannon's",
    slow=True,
    max_samples=1024,
)
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

    Args:
        t: activations [n, ...], float.
        other: int labels [n] (kernel 1 within a class, 0 across) or float [n, ...].
        key: not used.
        alpha: order, positive and not within 1e-6 of 1; infinity gives the min-entropy.
        width: kernel width of t in its units, or a rule for it.
        other_width: kernel width of a continuous `other`.
        num_classes: number of classes; by default the largest label plus one.

    Returns:
        Estimate; exactly 0 for a constant. details: `entropy` S(T) in nats, `width`, and `contrast`, the least standard
        deviation of a kernel's values between rows. "saturated" where S(T) exceeds 0.95 ln n, so that rows are only
        counted; unreliable for its "dimension" where the contrast is below 0.05, as all distances are similar.

    Raises:
        InputError: for what `kde` refuses, unequal lengths, alpha <= 0 or within 1e-6 of 1, widths that are neither
            positive nor a rule, and distances that overflow.

    References:
        Giraldo, Rao & Principe 2015, eqs. 7 to 9; Yu et al. 2019 for convolutional layers.

    Examples:
        >>> import numpy as np
        >>> atoms = 1e3 * np.eye(2)[[0, 0, 1, 1]]
        >>> round(renyi(atoms, np.array([0, 0, 1, 1]), alpha=2, width=1.0).value, 6)
        0.693147
    """
    if alpha != math.inf:
        checks.positive("alpha", alpha, usual="1.01")
    if abs(alpha - 1) < _NEAR_SHANNON:
        raise InputError(
            f"alpha is {alpha}; it must be positive and not 1, to within 1e-6: 1.01 is the usual choice near Shannon."
        )
    _check_width("width", width)
    _check_width("other_width", other_width)
    x, z, classes = as_pair(t, other, num_classes)
    left, s = _kernel(np.asarray(x, np.float64), width, "t")
    if classes:
        present, counts = np.unique(z, return_counts=True)
        right = [np.array([[float(c)]]) for c in counts]  # the one eigenvalue of each block of ones
        joint = [left[np.ix_(z == k, z == k)] for k in present]
    else:
        right = [_kernel(np.asarray(z, np.float64), other_width, "other")[0]]
        joint = [left * right[0]]
    entropy = _entropy([left], alpha)
    value = entropy + _entropy(right, alpha) - _entropy(joint, alpha)
    if left.min() == 1 or right[0].min() == 1 == len(right):  # a constant: the rest is rounding
        value = 0.0
    contrast = min(_contrast(kernel) for kernel in ([left] if classes else [left, *right]))
    details = {"entropy": entropy, "width": s, "contrast": contrast}
    limit = "saturated" if entropy > 0.95 * math.log(len(x)) else "dimension" if 0 < contrast < _CONTRAST else None
    settings = {"alpha": alpha, "width": width}
    return Estimate("renyi", value, None, "heuristic", len(x), settings, details, limit)


def _contrast(kernel: np.ndarray) -> float:
    """Standard deviation of a kernel's values between different rows; 0 where all rows are equal."""
    return float(kernel[np.triu_indices(len(kernel), 1)].std())
