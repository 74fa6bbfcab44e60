"""Nearest-neighbour information after reduction to few dimensions, and its average over random one-dimensional slices.

Consistent in low dimension only; both need n well above exp of the information.
"""

from typing import Any

import jax
import numpy as np
from scipy.spatial import KDTree
from scipy.special import digamma

from mi_jax.errors import InputError
from mi_jax.information._input import as_activations, as_labels, check_finite
from mi_jax.information.estimator import Estimate, host_generator, register, target_of

_TIE = 1e-12
"""Distances below this share of the largest coordinate are ties: projections round equal rows apart."""


def _inside(x: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Count rows at most radius away in the maximum norm, the row itself included."""
    return KDTree(x).query_ball_point(x, radius, p=np.inf, return_length=True)


def _neighbours(x: np.ndarray, k: int, tie: float) -> tuple[np.ndarray, np.ndarray]:
    """Return for each row the radius within which to count, and what stands for k there.

    That is just short of the k-th neighbour, and k; where the k-th neighbour is no more than `tie` away, `tie` and the
    number of rows that near, the row itself included (Gao et al. 2017, algorithm 1).
    """
    distance = KDTree(x).query(x, k=k + 1, p=np.inf)[0][:, -1]
    tied = distance <= tie
    radius, near = np.where(tied, tie, np.nextafter(distance, 0)), np.full(len(x), k)
    if tied.any():
        near[tied] = _inside(x, radius)[tied]
    return radius, near


def _kraskov(x: np.ndarray, y: np.ndarray, k: int) -> float:
    """Kraskov, Stoegbauer & Grassberger 2004, eq. 8."""
    joint = np.concatenate([x, y], axis=1)
    radius, near = _neighbours(joint, k, _TIE * float(np.abs(joint).max()))
    left, right = (_inside(v, radius) for v in (x, y))
    return float(np.mean(digamma(near) - digamma(left) + digamma(len(x)) - digamma(right)))


def _ross(x: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Ross 2014, eq. 2: neighbours within the class; classes of one row are left out."""
    sizes = np.bincount(labels)[labels]
    x, labels, sizes = x[sizes > 1], labels[sizes > 1], sizes[sizes > 1]
    if not len(x):
        raise InputError("no class has two rows: neighbours within a class need at least one such class.")
    radius, near, tie = np.empty(len(x)), np.empty(len(x)), _TIE * float(np.abs(x).max())
    for c in np.unique(labels):
        rows = labels == c
        radius[rows], near[rows] = _neighbours(x[rows], min(k, int(rows.sum()) - 1), tie)
    return float(np.mean(digamma(near) - digamma(sizes) + digamma(len(x)) - digamma(_inside(x, radius))))


def _reduce(x: Any, components: int, name: str) -> np.ndarray:
    """Return at most `components` coordinates of the rows, [n, r]; a constant array gives zeros."""
    x = as_activations(x, name)
    check_finite(x, name)
    x = np.asarray(x, np.float64)
    x = x - x[:1]
    if x.shape[1] <= components or not x.any():
        return x
    from sklearn.decomposition import PCA  # slow to import, and the bounds do without

    return PCA(min(components, len(x)), svd_solver="randomized", random_state=0).fit_transform(x)


def _standard(x: np.ndarray) -> np.ndarray:
    """Rows in units in which a coordinate's variance is 1 on average; constant rows stay."""
    variance = x.var(axis=0).mean()
    return x / np.sqrt(variance) if variance > 0 else x


def _information(x: np.ndarray, other: np.ndarray, k: int) -> float:
    """Of rows from `_reduce` with other such rows or labels; a constant tells nothing, whatever ties the other has."""
    if not x.any() or not (other.ndim == 1 or other.any()):
        return 0.0
    return _ross(x, other, k) if other.ndim == 1 else _kraskov(x, other, k)


def _check(k: int, n: int) -> None:
    if not 1 <= k < n:
        raise InputError(f"k is {k}: the number of neighbours must lie in 1..{n - 1} for {n} samples.")


@register("ksg", targets=("label", "continuous"))
def ksg(
    t: Any,
    other: Any,
    *,
    key: jax.Array | None = None,
    k: int = 3,
    components: int = 10,
    standardise: bool = False,
    num_classes: int | None = None,
) -> Estimate:
    """Return the nearest-neighbour estimate of I(T; other) in nats, after PCA to at most `components` dimensions.

    t: [n, ...]; other: float [n, ...] (KSG-1, maximum norm) or int labels [n] (Ross 2014); rows that k others or more
    equal are counted as Gao et al. 2017 do. Information does not depend on units, but the maximum norm over T and
    `other` together does: `standardise` brings each to a mean variance of 1 first, which the estimate needs where
    their scales are far apart (it tends to 0 there) and which labels do without. Raises InputError for what `kde`
    refuses, for k outside 1..n-1, and where no class has two rows.
    """
    x = _reduce(t, components, "t")
    _check(k, len(x))
    if target_of(other) == "label":
        z, _ = as_labels(other, len(x), num_classes)
    else:
        z = _reduce(other, components, "other")
    if standardise:
        x, z = _standard(x), z if z.ndim == 1 else _standard(z)
    settings = {"k": k, "components": components, "standardise": standardise}
    return Estimate("ksg", _information(x, z, k), None, "value", len(x), settings)


@register("sliced", targets=("label", "continuous"))
def sliced(
    t: Any,
    other: Any,
    *,
    key: jax.Array,
    slices: int = 64,
    k: int = 3,
    num_classes: int | None = None,
) -> Estimate:
    """Return the mean over random directions of the information of a projection of T (and of other), in nats.

    Another functional than I(T; other), and never above it on the population. stderr is over slices alone.
    Raises InputError as `ksg` does.
    Source: Goldfeld & Greenewald 2021, definition 1.
    """
    x = _reduce(t, 2**31, "t")
    _check(k, len(x))
    rng = host_generator(key)
    labelled = target_of(other) == "label"
    z = as_labels(other, len(x), num_classes)[0] if labelled else _reduce(other, 2**31, "other")
    values = []
    for _ in range(slices):
        u = rng.standard_normal((x.shape[1], 1))
        v = z if labelled else _standard(z @ rng.standard_normal((z.shape[1], 1)))
        values.append(_information(_standard(x @ u), v, k))
    stderr = float(np.std(values, ddof=1) / np.sqrt(slices)) if slices > 1 else None
    return Estimate("sliced", float(np.mean(values)), stderr, "heuristic", len(x), {"slices": slices, "k": k})
