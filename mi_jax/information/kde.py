"""Kolchinsky-Tracey bounds on I(X;T) and I(T;Y) for activations with Gaussian noise, from one pass over the pairs.

They bound the information of the empirical mixture on the given rows, whose value `monte_carlo` estimates.
"""

import dataclasses
import functools
import math
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from mi_jax.errors import InputError
from mi_jax.information import _pairwise, _tiles
from mi_jax.information._input import (
    Activations,
    as_activations,
    as_labels,
    as_variances,
    check_finite,
    compact,
    is_traced,
)
from mi_jax.information.estimator import Estimate, register

_LABEL_FIELDS = (
    "i_ty_upper",
    "i_ty_lower",
    "i_ty_certified_upper",
    "i_ty_certified_lower",
    "i_tx_given_y_upper",
    "i_tx_given_y_lower",
)
_UNIT_ROUNDOFF = {"tf32": 2.0**-11, "bfloat16": 2.0**-8}
"""Relative error of rows rounded to a low precision."""
Value = float | np.ndarray | jax.Array
"""A number; with an array of noise variances, an array [s]."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["i_tx_upper", "i_tx_lower", *_LABEL_FIELDS, "saturation", "saturated", "error", "noise_variance"],
    meta_fields=["n", "precision"],
)
@dataclasses.dataclass(frozen=True)
class KDE:
    """Bounds in nats; every `Value` has a leading axis when `noise_variance` was an array.

    The fields about labels are None when no labels were given.
    """

    i_tx_upper: Value
    """KL bound on I(X;T): J(2 s2)."""
    i_tx_lower: Value
    """Bhattacharyya bound on I(X;T): J(8 s2)."""
    i_ty_upper: Value | None
    """J(2 s2) - sum_k p_k J_k(2 s2): called the upper estimate in the literature, but not a bound."""
    i_ty_lower: Value | None
    """The same difference at 8 s2: called the lower estimate in the literature, but not a bound."""
    i_ty_certified_upper: Value | None
    """min(H(Y), J(2 s2) - sum_k p_k J_k(8 s2) + error): at least I(T;Y) of the mixture."""
    i_ty_certified_lower: Value | None
    """max(0, J(8 s2) - sum_k p_k J_k(2 s2) - error): at most I(T;Y) of the mixture."""
    i_tx_given_y_upper: np.ndarray | jax.Array | None
    """J_k(2 s2) for every class, [..., classes]; 0 for classes with at most one row."""
    i_tx_given_y_lower: np.ndarray | jax.Array | None
    """J_k(8 s2) for every class, [..., classes]."""
    saturation: Value
    """i_tx_upper / ln n; 1 where all samples are distinguished and the estimate is just ln n."""
    saturated: bool | np.ndarray | jax.Array
    """Whether saturation exceeds 0.95."""
    error: Value
    """Bound on the rounding error of the values, nats."""
    noise_variance: Value
    n: int
    precision: str
    """Arithmetic of the pass that gave the values, which is more precise than requested after a fall-back."""


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

    Under `jax.jit`, `vmap` and `grad` it is a function of t alone: labels are concrete, nothing is checked, no pass is
    repeated, and every field is an array.

    Args:
        t: activations [n, ...] of any float dtype and framework; x is uniform over the rows.
        y: int labels [n] in 0..num_classes-1, or None.
        noise_variance: one number, or an array of s numbers that share one pass over the pairs.
        num_classes: number of classes; by default the largest label plus one.
        precision: of the distances; by default float64 for float64 input, else float32. "tf32" and "bfloat16" round the
            centred rows; "direct" sums squared differences in float64.
        tolerance: largest error of the arithmetic, in nats, before the pass is repeated in float64, then "direct".
        mesh: devices that share the pairs; by default those over which t is spread.
        layer: name for messages.

    Returns:
        KDE; `error` bounds the effect of rounding on the values.

    Raises:
        InputError: for non-finite, integer or empty activations, fewer than two rows, labels that do not fit, fewer
            than two classes, variances that are not positive, and distances that overflow.

    References:
        Kolchinsky & Tracey 2017, eqs. 10 and 11 (pairwise distance estimators of mixture entropy).

    Examples:
        >>> import numpy as np
        >>> bounds = kde(np.array([[1.0], [-1.0]]), noise_variance=1.0)
        >>> f"{bounds.i_tx_lower:.10f} {bounds.i_tx_upper:.10f}"
        '0.2190701964 0.5662191695'
    """
    x = as_activations(t, layer)
    variances, scalar = as_variances(noise_variance)
    labels, classes = (np.zeros(len(x), np.int32), 1) if y is None else as_labels(y, len(x), num_classes)
    mesh = mesh or _tiles.mesh_of(x)
    precision = wanted = precision or ("float64" if x.dtype == np.float64 else "float32")
    for precision in (wanted,) if is_traced(x) else _tiles.fall_backs(wanted):
        sums = _sums(x, *compact(labels, classes), variances, precision, mesh)
        if is_traced(x) or (sums.error <= tolerance).all():
            break
        if not np.isfinite(sums.error).all():
            check_finite(x, layer)
            if _tiles.is_wide(precision):
                raise InputError(f"{layer} is too large for its squared distances to be finite; rescale it first.")
    error = sums.error + sums.rounding
    bounds = _bounds(sums.total, sums.own, error, labels if y is not None else None, classes)
    bounds |= {"error": error, "noise_variance": variances}
    if scalar:
        bounds = {name: _scalar(value) for name, value in bounds.items()}
    return KDE(**bounds, n=len(x), precision=precision)


def _scalar(value: Any) -> Any:
    """Drop the leading axis of one noise level; NumPy arrays of one number become Python numbers."""
    if value is None:
        return None
    return value[0].item() if value.ndim == 1 and isinstance(value, np.ndarray) else value[0]


class _Sums(NamedTuple):
    total: Any
    own: Any
    """Kernel sums over other rows [upper | lower, s, n]; float64 on the host, or traced."""
    error: Any
    """Bound [s] on the error of the arithmetic."""
    rounding: Any
    """Bound [s] on the error from rows rounded to "tf32" or "bfloat16"."""


def _sums(
    x: Activations,
    labels: np.ndarray,
    classes: int,
    variances: np.ndarray,
    precision: _tiles.Precision,
    mesh: Mesh | None,
) -> _Sums:
    """Run the pass over the pairs and bound its error.

    Low precision rounds each coordinate of the rows independently, which averages out over features.
    """
    scales, shape = np.concatenate([2 * variances, 8 * variances]), (2, len(variances), -1)
    plan, wide = _pairwise.kernel_scales(scales), _tiles.is_wide(precision)
    with jax.enable_x64(wide), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Some donated buffers")  # which `jax.grad` keeps for its backward pass
        sums = _pairwise.pair_sums(
            x, labels, 1 / plan.bases, num_classes=classes, powers=plan.powers, precision=precision, mesh=mesh
        )
        total, own, *largest = (s if is_traced(x) else np.asarray(s, np.float64) for s in sums)
        total, own = total[plan.index], own[plan.index]
        constants = [lax.stop_gradient(s) for s in (total, own)] if is_traced(x) else [total, own]
    bound = functools.partial(_tiles.rounding_error, *constants, scales)
    error, rounding = bound((largest[0], largest[1]), precision), np.zeros(len(scales))
    if precision in _UNIT_ROUNDOFF:
        rounding = bound((largest[0], 0.0), precision, eps=_UNIT_ROUNDOFF[precision] / math.sqrt(x.shape[1]))
    error, rounding = (e.reshape(shape).max(axis=(0, 2)) for e in (error, rounding))
    return _Sums(total.reshape(shape), own.reshape(shape), error, rounding)


def _bounds(total: Any, own: Any, error: Any, labels: np.ndarray | None, classes: int) -> dict[str, Any]:
    """Turn kernel sums [upper | lower, s, n] into the fields of the result, each with a leading axis s.

    log(n / sum), rather than a difference of logarithms, gives exactly 0 for a constant layer.
    """
    xp, n = (np if isinstance(total, np.ndarray) else jnp), total.shape[-1]
    upper, lower = xp.clip(xp.log(n / (1 + total)).mean(axis=-1), 0, math.log(n))
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
    rows = [np.flatnonzero(labels == k) if count else None for k, count in enumerate(counts)]
    absent = xp.zeros(total.shape[:2])
    given = [absent if r is None else xp.log(len(r) / (1 + own[..., r])).mean(axis=-1) for r in rows]
    given = xp.clip(xp.stack(given, axis=-1), 0, np.log(np.maximum(counts, 1)))
    p = counts / n
    within_upper, within_lower = (given * p).sum(axis=-1)  # a product would be in TF32 on an accelerator
    entropy = -np.sum(p[p > 0] * np.log(p[p > 0]))
    values = (
        upper - within_upper,
        lower - within_lower,
        xp.minimum(entropy, upper - within_lower + error),
        xp.maximum(0, lower - within_upper - error),
        *given,
    )
    return fields | dict(zip(_LABEL_FIELDS, values, strict=True))


def _bound(side: str, t: Any, other: Any = None, *, key: jax.Array, noise_variance: float, **options: Any) -> Estimate:
    """The registered form of one side of the bounds."""
    result = kde(t, other, noise_variance=noise_variance, **options)
    value = getattr(result, f"i_tx_{side}" if other is None else f"i_ty_certified_{side}")
    details = {"saturation": float(result.saturation), "error": float(result.error)}
    kind, settings = ("upper" if side == "upper" else "lower"), {"noise_variance": noise_variance} | options
    return Estimate(f"kde_{side}", value, None, kind, result.n, settings, details)


for _side in ("upper", "lower"):
    register(f"kde_{_side}", targets=("input", "label"), adds_noise=("input", "label"), label=f"KDE, {_side}")(
        functools.partial(_bound, _side)
    )
