"""Nearest-neighbour information after reduction to few dimensions, and its mean over random one-dimensional slices.

Consistent in low dimension only; both need n well above exp of the information.
"""

import math
from typing import Any

import jax
import numpy as np

from mi_jax import checks
from mi_jax.errors import InputError
from mi_jax.information._input import as_pair
from mi_jax.information.estimator import Estimate, Limit, host_generator, register
from mi_jax.typing import Key

_TIE = 1e-12
"""Distances below this share of the largest coordinate are ties: projections round equal rows apart."""
_COMPARABLE = 2.0
"""Ratio of scales of T and a continuous variable up to which the maximum norm over both is taken in their own units."""
_LOCAL = 0.9
"""Largest median radius of a neighbourhood, in standard deviations of a coordinate, at which density is near constant.

On pairs of normals the error is 20 % and more above it.
"""
_KEPT = 0.95
"""Least share of the variance that the principal components must hold."""
_CEILING = 0.7
"""Share of the largest possible estimate, psi(n) - psi(k), above which neighbours are too far apart to resolve more."""


def _inside(x: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Count rows at most radius away in the maximum norm, the row itself included."""
    from scipy.spatial import KDTree  # here, as scipy is slow to import and most callers do without

    return KDTree(x).query_ball_point(x, radius, p=np.inf, return_length=True)


def _neighbours(x: np.ndarray, k: int, tie: float) -> tuple[np.ndarray, np.ndarray]:
    """Return for each row the radius within which to count, and the number of neighbours to take for k.

    They are just short of the distance of the k-th neighbour, and k; where that neighbour is at most `tie` away, `tie`
    and the number of rows that near, the row itself included (Gao et al. 2017, algorithm 1).
    """
    from scipy.spatial import KDTree

    distance = KDTree(x).query(x, k=k + 1, p=np.inf)[0][:, -1]
    tied = distance <= tie
    radius, near = np.where(tied, tie, np.nextafter(distance, 0)), np.full(len(x), k)
    if tied.any():
        near[tied] = _inside(x, radius)[tied]
    return radius, near


def _kraskov(x: np.ndarray, y: np.ndarray, k: int) -> tuple[float, float]:
    """Return Kraskov, Stoegbauer & Grassberger 2004, eq. 8, and the median radius."""
    from scipy.special import digamma

    joint = np.concatenate([x, y], axis=1)
    radius, near = _neighbours(joint, k, _TIE * float(np.abs(joint).max()))
    left, right = (_inside(v, radius) for v in (x, y))
    value = float(np.mean(digamma(near) - digamma(left) + digamma(len(x)) - digamma(right)))
    return value, float(np.median(radius))


def _ross(x: np.ndarray, labels: np.ndarray, k: int) -> tuple[float, float]:
    """Return Ross 2014, eq. 2, and the median radius: neighbours within the class; classes of one row are left out."""
    from scipy.special import digamma

    sizes = np.bincount(labels)[labels]
    x, labels, sizes = x[sizes > 1], labels[sizes > 1], sizes[sizes > 1]
    if not len(x):
        raise InputError("Every class of other has only one row; neighbours within a class need two: give more rows.")
    radius, near, tie = np.empty(len(x)), np.empty(len(x)), _TIE * float(np.abs(x).max())
    for c in np.unique(labels):
        rows = labels == c
        radius[rows], near[rows] = _neighbours(x[rows], min(k, int(rows.sum()) - 1), tie)
    value = np.mean(digamma(near) - digamma(sizes) + digamma(len(x)) - digamma(_inside(x, radius)))
    return float(value), float(np.median(radius))


def _unit(x: np.ndarray) -> float:
    """A power of two near the largest magnitude: divided by it, x keeps its digits, and its squares are finite."""
    return math.ldexp(0.5, math.frexp(np.abs(x).max())[1])


def _reduce(x: Any, components: int, name: str) -> tuple[np.ndarray, float]:
    """Return at most `components` coordinates of the rows, [n, r], and their share of the variance.

    A constant array gives zeros.
    """
    x = np.asarray(x, np.float64)
    with np.errstate(over="ignore"):
        if not np.isfinite(np.ptp(x, axis=0)).all():
            raise InputError(f"{name} is too large for its distances to be finite; rescale it first.")
    x = x - x[:1]
    if x.shape[1] <= components or not x.any():
        return x, 1.0
    from sklearn.decomposition import PCA  # slow to import, and the bounds do without

    pca = PCA(min(components, len(x)), svd_solver="randomized", random_state=0)
    unit = _unit(x)
    return unit * pca.fit_transform(x / unit), float(pca.explained_variance_ratio_.sum())


def _standard(x: np.ndarray) -> np.ndarray:
    """Scale rows to a mean variance of 1 per coordinate; constant rows stay."""
    x = x / (np.abs(x).max() or 1.0)  # squares of large values overflow
    variance = x.var(axis=0).mean()
    return x / np.sqrt(variance) if variance > 0 else x


def _scale(x: np.ndarray) -> float:
    """Root of the mean variance of a coordinate."""
    unit = _unit(x)
    return unit * float(np.sqrt((x / unit).var(axis=0).mean()))


def _comparable(x: np.ndarray, z: np.ndarray) -> bool:
    """Return whether the scales of two arrays are within a factor of `_COMPARABLE`, or one is constant."""
    low, high = sorted(_scale(v) for v in (x, z))
    return low == 0 or high <= _COMPARABLE * low


def _information(x: np.ndarray, other: np.ndarray, k: int) -> tuple[float, float]:
    """Return the estimate and the median radius, for rows from `_reduce` and other such rows or labels.

    Both are 0 for a constant, whatever ties the other has.
    """
    if not x.any() or not (other.ndim == 1 or other.any()):
        return 0.0, 0.0
    return _ross(x, other, k) if other.ndim == 1 else _kraskov(x, other, k)


def _limit(value: float, radius: float, kept: float, arrays: list[np.ndarray], k: int) -> Limit | None:
    """Return the limit that a nearest-neighbour estimate on the arrays is beyond; labels have no ceiling but H(Y)."""
    from scipy.special import digamma

    n = len(arrays[0])
    if len(arrays) > 1 and value > _CEILING * (digamma(n) - digamma(k)):
        return "saturated"
    far = radius > 0 and radius > _LOCAL * min(_scale(a) for a in arrays)
    return "dimension" if far or kept < _KEPT else None


def _check(k: int, n: int) -> None:
    checks.count("k", k)
    if k >= n:
        raise InputError(f"k is {k}; the number of neighbours must be in 1..{n - 1} for {n} samples.")


@register(
    "ksg",
    targets=("label", "continuous"),
    label="KSG",
    title="Nearest neighbours",
    description="nearest neighbours after PCA to 10 components",
)
def ksg(
    t: Any,
    other: Any,
    *,
    key: jax.Array | None = None,
    k: int = 3,
    components: int = 10,
    standardise: bool | None = None,
    num_classes: int | None = None,
) -> Estimate:
    """Return the nearest-neighbour estimate of I(T; other) in nats, after PCA to at most `components` dimensions.

    Information does not depend on units, but the maximum norm over T and a continuous `other` together does: the
    estimate tends to 0 where their scales are far apart. By default both are scaled to a mean variance of 1 when their
    standard deviations differ by more than a factor of 2. Labels need no scaling. Ties are counted as by Gao et al.
    2017.

    Args:
        t: activations [n, ...], float.
        other: float [n, ...] (KSG-1, maximum norm) or int labels [n] (Ross 2014).
        key: not used.
        k: number of neighbours.
        components: principal components kept of each array.
        standardise: whether to scale both to a mean variance of 1; None where their scales differ.
        num_classes: number of classes; by default the largest label plus one.

    Returns:
        Estimate; details: `radius`, the median radius of a neighbourhood, in the units of t or, once standardised, in
        standard deviations, and `kept`, the least share of the variance in the components. Unreliable for its
        "dimension" where that radius exceeds 0.9 standard deviations of a coordinate or the share is below 0.95, and
        "saturated" above 0.7 (psi(n) - psi(k)).

    Raises:
        InputError: for what `kde` refuses, unequal lengths, k outside 1..n-1, no components, distances that overflow,
            and where every class has one row.

    References:
        Kraskov, Stoegbauer & Grassberger 2004, eq. 8; Ross 2014, eq. 2; Gao et al. 2017, algorithm 1.

    Examples:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).standard_normal((500, 2))
        >>> bool(abs(ksg(x[:, :1], x[:, 1:]).value) < 0.1)
        True
    """
    x, z, classes = as_pair(t, other, num_classes)
    _check(k, len(x))
    checks.count("components", components, usual="10")
    if standardise is not None:
        checks.flag("standardise", standardise)
    (x, kept), (z, kept_other) = _reduce(x, components, "t"), (z, 1.0) if classes else _reduce(z, components, "other")
    kept = min(kept, kept_other)
    if standardise is None:
        standardise = not classes and not _comparable(x, z)
    if standardise:
        x, z = _standard(x), z if classes else _standard(z)
    settings = {"k": k, "components": components, "standardise": standardise}
    value, radius = _information(x, z, k)
    limit = _limit(value, radius, kept, [x] if classes else [x, z], k)
    return Estimate("ksg", value, None, "value", len(x), settings, {"radius": radius, "kept": kept}, limit)


@register(
    "sliced",
    targets=("label", "continuous"),
    title="Sliced",
    description="mean over 64 random directions, a smaller functional than I(T;Y)",
    slow=True,
)
def sliced(
    t: Any,
    other: Any,
    *,
    key: Key | int,
    slices: int = 64,
    k: int = 3,
    num_classes: int | None = None,
) -> Estimate:
    """Return the mean over random directions of the information of a projection of T (and of other), in nats.

    A different functional than I(T; other), and on the population never above it. stderr is over slices only. Below
    1 / sqrt(n), the error of a slice without information, it is unreliable for its "dimension".

    Args:
        t: activations [n, ...], float.
        other: float [n, ...] or int labels [n].
        key: JAX random key of the directions, or a seed.
        slices: number of directions.
        k: number of neighbours.
        num_classes: number of classes; by default the largest label plus one.

    Raises:
        InputError: for what `ksg` refuses, and no slices.

    References:
        Goldfeld & Greenewald 2021, definition 1.

    Examples:
        >>> import jax, numpy as np
        >>> y = np.arange(100) % 2
        >>> t = np.random.default_rng(0).standard_normal((100, 1)) + 100 * y[:, None]
        >>> round(sliced(t, y, key=jax.random.key(0), slices=2).value, 1)
        0.7
    """
    x, z, classes = as_pair(t, other, num_classes)
    _check(k, len(x))
    checks.count("slices", slices, usual="64")
    rng, x = host_generator(key), _reduce(x, x.shape[1], "t")[0]
    z = z if classes else _reduce(z, z.shape[1], "other")[0]
    x, z = x / _unit(x), z if classes else z / _unit(z)
    values = []
    for _ in range(slices):
        u = rng.standard_normal((x.shape[1], 1))
        v = z if classes else _standard(z @ rng.standard_normal((z.shape[1], 1)))
        values.append(_information(_standard(x @ u), v, k)[0])
    stderr = float(np.std(values, ddof=1) / np.sqrt(slices)) if slices > 1 else None
    value, settings = float(np.mean(values)), {"slices": slices, "k": k}
    projected = x.shape[1] > 1 or not (classes or z.shape[1] == 1)
    limit = "dimension" if projected and x.any() and value < 1 / math.sqrt(len(x)) else None
    return Estimate("sliced", value, stderr, "heuristic", len(x), settings, unreliable=limit)
