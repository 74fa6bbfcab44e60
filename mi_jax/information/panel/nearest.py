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


def _inside(x: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Count rows strictly nearer than radius in the maximum norm, the row itself included."""
    tree = KDTree(x)
    return tree.query_ball_point(x, np.nextafter(radius, 0), p=np.inf, return_length=True)


def _kraskov(x: np.ndarray, y: np.ndarray, k: int) -> float:
    """Kraskov, Stoegbauer & Grassberger 2004, eq. 8."""
    joint = np.concatenate([x, y], axis=1)
    radius = KDTree(joint).query(joint, k=k + 1, p=np.inf)[0][:, -1]
    counts = [np.maximum(_inside(v, radius), 1) for v in (x, y)]
    return float(digamma(k) + digamma(len(x)) - sum(digamma(c).mean() for c in counts))


def _ross(x: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Ross 2014, eq. 2: neighbours within the class; classes of one row are left out."""
    sizes = np.bincount(labels)[labels]
    x, labels, sizes = x[sizes > 1], labels[sizes > 1], sizes[sizes > 1]
    radius, near = np.empty(len(x)), np.minimum(k, sizes - 1)
    for c in np.unique(labels):
        rows = labels == c
        neighbour = int(near[rows][0])
        radius[rows] = KDTree(x[rows]).query(x[rows], k=neighbour + 1, p=np.inf)[0][:, -1]
    inside = np.maximum(_inside(x, radius), 1)
    return float(digamma(len(x)) + digamma(near).mean() - digamma(sizes).mean() - digamma(inside).mean())


def _reduce(x: Any, components: int, name: str) -> np.ndarray:
    x = as_activations(x, name)
    check_finite(x, name)
    x = np.asarray(x, np.float64)
    if x.shape[1] <= components:
        return x
    from sklearn.decomposition import PCA  # slow to import, and the bounds do without

    return PCA(min(components, len(x)), svd_solver="randomized", random_state=0).fit_transform(x)


def _information(x: np.ndarray, other: np.ndarray, k: int) -> float:
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
    num_classes: int | None = None,
) -> Estimate:
    """Return the nearest-neighbour estimate of I(T; other) in nats, after PCA to at most `components` dimensions.

    t: [n, ...]; other: float [n, ...] (KSG-1, maximum norm) or int labels [n] (Ross 2014). Raises InputError for what
    `kde` refuses and for k outside 1..n-1.
    """
    x = _reduce(t, components, "t")
    _check(k, len(x))
    if target_of(other) == "label":
        z, _ = as_labels(other, len(x), num_classes)
    else:
        z = _reduce(other, components, "other")
    return Estimate("ksg", _information(x, z, k), None, "value", len(x), {"k": k, "components": components})


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
        v = z if labelled else z @ rng.standard_normal((z.shape[1], 1))
        values.append(_information(x @ u / np.linalg.norm(u), v, k))
    stderr = float(np.std(values, ddof=1) / np.sqrt(slices)) if slices > 1 else None
    return Estimate("sliced", float(np.mean(values)), stderr, "heuristic", len(x), {"slices": slices, "k": k})
