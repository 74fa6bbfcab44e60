"""Kolchinsky-Tracey bounds on I(X;T) and I(T;Y) for activations with Gaussian noise, from one pass over the pairs.

Values in nats of the empirical mixture of the given rows; nothing here samples (see `monte_carlo`) or picks the noise.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from mi_jax.errors import InputError
from mi_jax.information import _pairwise, _tiles
from mi_jax.information._input import Activations, as_activations, as_labels, as_variances, check_finite
from mi_jax.information._kernel_scales import ladder

_LABEL_FIELDS = (
    "i_ty_upper",
    "i_ty_lower",
    "i_ty_certified_upper",
    "i_ty_certified_lower",
    "i_tx_given_y_upper",
    "i_tx_given_y_lower",
)
Value = float | np.ndarray
"""A number; with an array of noise variances, an array [s]."""


@dataclasses.dataclass(frozen=True)
class KDE:
    """Bounds in nats; every `Value` gains a leading axis when `noise_variance` was an array.

    The fields about labels are None when no labels were given.
    """

    i_tx_upper: Value
    """KL bound on I(X;T): J(2 s2)."""
    i_tx_lower: Value
    """Bhattacharyya bound on I(X;T): J(8 s2)."""
    i_ty_upper: Value | None
    """J(2 s2) - sum_k p_k J_k(2 s2): the number the literature calls upper; not a bound."""
    i_ty_lower: Value | None
    """The same difference at 8 s2: the number the literature calls lower; not a bound."""
    i_ty_certified_upper: Value | None
    """min(H(Y), J(2 s2) - sum_k p_k J_k(8 s2)): at least I(T;Y) of the mixture."""
    i_ty_certified_lower: Value | None
    """max(0, J(8 s2) - sum_k p_k J_k(2 s2)): at most I(T;Y) of the mixture."""
    i_tx_given_y_upper: np.ndarray | None
    """J_k(2 s2) for every class, [..., classes]; 0 for classes with at most one row."""
    i_tx_given_y_lower: np.ndarray | None
    """J_k(8 s2) for every class, [..., classes]."""
    saturation: Value
    """i_tx_upper / log n: 1 when the estimate only counts samples."""
    saturated: bool | np.ndarray
    """Whether saturation exceeds 0.95."""
    error: Value
    """Indicator of the rounding error of the values, nats."""
    noise_variance: Value
    n: int
    precision: str
    """Arithmetic of the pass that gave the values; "float64" also when the fall-back was taken."""


def kde(
    t: Any,
    y: Any = None,
    *,
    noise_variance: Any,
    num_classes: int | None = None,
    precision: _tiles.Precision | None = None,
    tolerance: float = 5e-6,
    mesh: Mesh | None = None,
    layer: str = "t",
) -> KDE:
    """Bound I(X;T) and I(T;Y) of T = t + N(0, noise_variance I), in nats.

    Args:
      t: activations [n, ...] of any float dtype and framework; x is uniform over the rows.
      y: int labels [n] in 0..num_classes-1, or None.
      noise_variance: one number, or an array of s numbers that share one pass over the pairs.
      num_classes: number of classes; by default the largest label plus one.
      precision: of the matrix product; default float64 for float64 input, else float32. "tf32" and "bfloat16" round the
        centred rows.
      tolerance: largest error of the arithmetic, in nats, before the pass is repeated in float64.
      mesh: devices that share the pairs; by default those over which t is spread.
      layer: name for messages.

    Raises InputError for non-finite, integer or empty activations, fewer than two rows, labels that do not fit, fewer
    than two classes, and variances that are not positive.

    Source: Kolchinsky & Tracey 2017, eqs. 10 and 11 (pairwise distance estimators of mixture entropy).

    Examples:
      >>> import numpy as np
      >>> bounds = kde(np.array([[1.0], [-1.0]]), noise_variance=1.0)
      >>> f"{bounds.i_tx_lower:.10f} {bounds.i_tx_upper:.10f}"
      '0.2190701964 0.5662191695'
    """
    x = as_activations(t, layer)
    variances, scalar = as_variances(noise_variance)
    labels, classes = (np.zeros(len(x), np.int32), 1) if y is None else as_labels(y, len(x), num_classes)
    precision = precision or ("float64" if x.dtype == np.float64 else "float32")
    mesh = mesh or _tiles.mesh_of(x)
    sums = _sums(x, labels, variances, classes, precision, mesh)
    if not np.isfinite(sums.error).all():
        check_finite(x, layer)  # finite input that overflows float32 goes on to the fall-back
    if precision != "float64" and not (sums.error <= tolerance).all():
        precision = "float64"
        sums = _sums(x, labels, variances, classes, precision, mesh)
    if not np.isfinite(sums.error).all():
        check_finite(x, layer)
        raise InputError(f"{layer} is too large for its squared distances to be finite: rescale it first.")
    bounds = _bounds(sums.total, sums.own, labels if y is not None else None, classes)
    bounds |= {"error": sums.error + sums.rounding, "noise_variance": variances}
    if scalar:
        bounds = {name: _scalar(value) for name, value in bounds.items()}
    return KDE(**bounds, n=len(x), precision=precision)


def _scalar(value: np.ndarray | None) -> Any:
    """Drop the leading axis of one noise level; arrays of one number become Python numbers."""
    if value is None:
        return None
    return value[0].item() if value.ndim == 1 else value[0]


class _Sums(NamedTuple):
    total: np.ndarray
    own: np.ndarray
    """Kernel sums [upper | lower, s, n] in float64."""
    error: np.ndarray
    """Indicator [s] of the error of the arithmetic."""
    rounding: np.ndarray
    """The part of it that comes from rows rounded on purpose; more precise sums of the same rows would not help."""


def _sums(
    x: Activations,
    labels: np.ndarray,
    variances: np.ndarray,
    classes: int,
    precision: _tiles.Precision,
    mesh: Mesh | None,
) -> _Sums:
    """Take the pass over the pairs and judge it.

    A rounding error e in a distance moves J by at most e/c times the weight of the pairs it concerns: all but the
    diagonal for the norms, pairs of different classes for the products with class centres. Rounding the rows moves
    each coordinate independently, which averages out over features.
    """
    scales = np.concatenate([2 * variances, 8 * variances])
    steps = ladder(scales)
    with jax.enable_x64(precision == "float64"):
        sums = _pairwise.pair_sums(
            x, labels, 1 / steps.bases, num_classes=classes, powers=steps.powers, precision=precision, mesh=mesh
        )
        total, own = (np.asarray(s, np.float64)[steps.index] for s in (sums.total, sums.own))
    eps = float(np.finfo(np.float64 if precision == "float64" else np.float32).eps)
    share, other = np.mean(1 - 1 / total, axis=1), np.mean(1 - own / total, axis=1)
    coarse = {"tf32": 2.0**-11, "bfloat16": 2.0**-8}.get(precision, 0.0) / math.sqrt(x.shape[1])
    with np.errstate(invalid="ignore"):  # overflow is what the indicator is asked about
        error = eps * (float(sums.max_norm) * share + float(sums.max_cross) * other) / scales
        rounding = coarse * float(sums.max_norm) * share / scales
    shape = (2, len(variances), -1)
    error, rounding = (e.reshape(shape).max(axis=(0, 2)) for e in (error, rounding))
    return _Sums(total.reshape(shape), own.reshape(shape), error, rounding)


def _bounds(total: np.ndarray, own: np.ndarray, labels: np.ndarray | None, classes: int) -> dict[str, Any]:
    """Turn kernel sums [upper | lower, s, n] into the fields of the result, each with a leading axis s.

    The logarithm is taken of n / sum rather than of each, so that a constant layer gives exactly 0.
    """
    n = total.shape[-1]
    upper, lower = np.clip(np.log(n / total).mean(axis=-1), 0, math.log(n))
    saturation = upper / math.log(n)
    fields: dict[str, Any] = {
        "i_tx_upper": upper,
        "i_tx_lower": lower,
        "saturation": saturation,
        "saturated": saturation > 0.95,
    }
    if labels is None:
        return fields | dict.fromkeys(_LABEL_FIELDS)
    counts = np.bincount(labels, minlength=classes)
    given = np.zeros((2, total.shape[1], classes))
    for k in np.flatnonzero(counts):
        given[..., k] = np.log(counts[k] / own[..., labels == k]).mean(axis=-1)
    given = np.clip(given, 0, np.log(np.maximum(counts, 1)))
    p = counts / n
    within_upper, within_lower = given @ p
    entropy = -np.sum(p[p > 0] * np.log(p[p > 0]))
    values = (
        upper - within_upper,
        lower - within_lower,
        np.minimum(entropy, upper - within_lower),
        np.maximum(0, lower - within_upper),
        *given,
    )
    return fields | dict(zip(_LABEL_FIELDS, values, strict=True))
