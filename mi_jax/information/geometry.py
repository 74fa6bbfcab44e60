"""The geometry of a layer behind an information estimate: distances, rank, distinguishable samples, effect of scale."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from mi_jax.errors import InputError
from mi_jax.information._input import Activations, as_activations, as_labels, as_variance, check_finite
from mi_jax.information.kde import kde
from mi_jax.seeding import sample_rows

_SAMPLE = 1024
"""Rows, drawn at random, whose spectrum is computed and whose nearest neighbours are searched among all rows."""
_BLOCK_ENTRIES = 2**23
"""Distances in float64 held at a time."""


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Geometry of a layer; distances are squared, in the layer's own units."""

    variance: float
    """Mean over features of the variance over rows."""
    within: float | None
    """Mean squared distance between two rows of one class, classes weighted by their pairs."""
    between: float | None
    """Mean squared distance between two rows of different classes."""
    nearest: float
    """Median of the squared distance to the nearest other row, over at most 1,024 rows, drawn at random."""
    nearest_over_noise: float
    """nearest / noise_variance: far above 2 ln n, all samples are distinguished and I(X;T) is just ln n."""
    effective_rank: float
    """exp of the entropy of the normalised covariance spectrum (Roy & Vetterli 2007)."""
    distinguishable_upper: float
    """exp(J) at 2 s2: effective number of samples that remain distinguishable under the noise."""
    distinguishable_lower: float
    """exp(J) at 8 s2."""
    noise_variance: float
    n: int


@dataclasses.dataclass(frozen=True)
class ScaleSplit:
    """A change of the upper bound on I(X;T) from one layer to another, in nats: total = scale + shape."""

    total: float
    scale: float
    """Change of the estimate when the first layer is rescaled to the variance of the second."""
    shape: float
    """The remaining change, at equal variance."""
    factor: float
    """Ratio of the standard deviations, second over first."""


def geometry(
    t: Any, y: Any = None, *, noise_variance: float, num_classes: int | None = None, layer: str = "t"
) -> Geometry:
    """Describe the geometry of activations under a noise variance.

    Args:
        t: activations [n, ...], float.
        y: int labels [n] or None.
        noise_variance: one number.
        num_classes: number of classes; by default the largest label plus one.
        layer: name for messages.

    Raises:
        InputError: for what `kde` refuses.

    References:
        Roy & Vetterli 2007 (effective rank).

    Examples:
        >>> import numpy as np
        >>> corners = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        >>> found = geometry(corners, noise_variance=0.1)
        >>> round(found.effective_rank, 6), found.nearest, found.variance
        (2.0, 1.0, 0.25)
    """
    x = as_activations(t, layer)
    variance = as_variance(noise_variance)
    check_finite(x, layer)
    bounds = kde(x, noise_variance=variance, layer=layer)
    within = between = None
    if y is not None:
        labels, classes = as_labels(y, len(x), num_classes)
        within, between = _class_distances(x, labels, classes)
    rows = sample_rows(len(x), _SAMPLE)
    nearest = float(np.median(_nearest(x, rows)))
    return Geometry(
        variance=_variance(x),
        within=within,
        between=between,
        nearest=nearest,
        nearest_over_noise=nearest / variance,
        effective_rank=_effective_rank(np.asarray(x[rows], np.float64)),
        distinguishable_upper=math.exp(float(bounds.i_tx_upper)),
        distinguishable_lower=math.exp(float(bounds.i_tx_lower)),
        noise_variance=variance,
        n=len(x),
    )


def scale_split(first: Any, second: Any, *, noise_variance: float, layer: str = "t") -> ScaleSplit:
    """Split the change of I(X;T) from `first` to `second` into scale and shape, in nats.

    J(aT, a2 s2) = J(T, s2) exactly, so rescaling T by a is the same as dividing the noise variance by a2.

    Args:
        first: activations [n, ...].
        second: activations [n, ...] of the same inputs, from another epoch or model.
        noise_variance: one number.
        layer: name for messages.

    Raises:
        InputError: for what `kde` refuses, unequal numbers of rows, and a constant layer.

    Examples:
        >>> import numpy as np
        >>> t = np.random.default_rng(0).standard_normal((20, 2))
        >>> split = scale_split(t, 3 * t, noise_variance=1.0)
        >>> abs(split.shape) < 1e-9, round(split.factor, 6)
        (True, 3.0)
    """
    x, z = as_activations(first, layer), as_activations(second, layer)
    check_finite(x, layer)
    check_finite(z, layer)
    if len(x) != len(z):
        raise InputError(f"{layer} has {len(x)} rows and then {len(z)}; give activations of the same inputs.")
    variance, own, other = as_variance(noise_variance), _variance(x), _variance(z)
    if not (own > 0 and other > 0):
        raise InputError(f"{layer} is constant in one of the two; its scale cannot be compared.")
    before = kde(x, noise_variance=[variance, variance * own / other], layer=layer).i_tx_upper
    after = float(kde(z, noise_variance=variance, layer=layer).i_tx_upper)
    start, rescaled = (float(v) for v in np.asarray(before))
    return ScaleSplit(after - start, rescaled - start, after - rescaled, math.sqrt(other / own))


def _columns(x: Activations) -> Iterator[np.ndarray]:
    """Yield blocks of features in float64, less their mean: sums of squares add over features."""
    host = np.asarray(x)
    for begin in range(0, host.shape[1], 1024):
        a = host[:, begin : begin + 1024].astype(np.float64)
        a -= a[:1].copy()  # a constant gives exact zeros
        yield a - a.mean(axis=0)


def _variance(x: Activations) -> float:
    return sum(float(np.sum(a * a)) for a in _columns(x)) / x.size


def _class_distances(x: Activations, labels: np.ndarray, classes: int) -> tuple[float | None, float | None]:
    """Mean squared distances from class sums only: sum_ij |x_i - x_j|^2 = 2 n sum |x_i - m|^2 for every group."""
    counts = np.bincount(labels, minlength=classes)
    inner = everything = 0.0
    for a in _columns(x):
        everything += 2 * len(a) * float(np.sum(a * a))
        for k in np.flatnonzero(counts):
            rows = a[labels == k]
            inner += 2 * counts[k] * float(np.sum((rows - rows.mean(axis=0)) ** 2))
    same, pairs = float(np.sum(counts * (counts - 1.0))), float(len(x) * (len(x) - 1.0))
    within = inner / same if same > 0 else None
    return within, (everything - inner) / (pairs - same)


def _nearest(x: Activations, rows: np.ndarray) -> np.ndarray:
    """Return the squared distances of some rows to the nearest other row of all, [rows].

    Products in float64 find the neighbour; its distance is then summed from differences.
    """
    host, found = np.asarray(x), np.empty(len(rows))
    norms = sum((np.einsum("nd,nd->n", a, a) for a in _columns(x)), np.zeros(len(host)))
    size = max(1, _BLOCK_ENTRIES // len(host))
    for begin in range(0, len(rows), size):
        block = rows[begin : begin + size]
        d = norms[block, None] + norms
        for a in _columns(x):
            d -= 2 * (a[block] @ a.T)
        d[np.arange(len(block)), block] = np.inf
        for k, (i, j) in enumerate(zip(block, d.argmin(axis=1), strict=True), begin):
            found[k] = np.sum((host[i].astype(np.float64) - host[j]) ** 2)
    return found


def _effective_rank(x: np.ndarray) -> float:
    """Return the effective rank of the covariance of float64 rows; 0 for a constant."""
    a = x - x[:1]
    a -= a.mean(axis=0)
    largest = np.abs(a).max()
    if largest == 0:
        return 0.0
    a /= largest
    w = np.maximum(np.linalg.eigvalsh(a @ a.T), 0)
    p = w[w > 0] / w.sum()
    return float(np.exp(-np.sum(p * np.log(p))))
