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

from mi_jax import checks
from mi_jax.errors import InputError
from mi_jax.information import _pairwise, _products, _rounding
from mi_jax.information._input import (
    Activations,
    as_labels,
    as_rows,
    as_variances,
    check_finite,
    compact,
    is_traced,
)
from mi_jax.information.estimator import Estimate, limit_of, register
from mi_jax.information.lazy import LazyActivations
from mi_jax.parallel import mesh_of, with_automatic_axes
from mi_jax.statistics.jackknife import image_blocks

_LABEL_FIELDS = (
    "i_ty_leave_one_out",
    "i_ty_upper",
    "i_ty_lower",
    "i_ty_certified_upper",
    "i_ty_certified_lower",
    "i_tx_given_y_upper",
    "i_tx_given_y_lower",
)
_LOG_OVER_ROOT = 0.80475
"""At least log(1 + r) / sqrt(r) for every r > 0."""
_TOLERATED_GAP = 0.05
"""Share of i_tx_upper that leave-one-out may add before the sample size is reported as too small."""
Value = float | np.ndarray | jax.Array
"""A number; with an array of noise variances, an array [s]."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        *("i_tx_upper", "i_tx_lower", "i_tx_leave_one_out", *_LABEL_FIELDS),
        *("saturation", "saturated", "undersampled", "error", "leave_one_out_error", "noise_variance"),
        "without_block",
    ],
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
    i_tx_leave_one_out: Value
    """J(2 s2) with each row's own kernel left out: in expectation at least I(X;T) of the population the rows are from.

    Infinite where a row is too far from all others.
    """
    i_ty_leave_one_out: Value | None
    """H(Y) + mean_i log(sum of exp(-d_ij / 2 s2) over j != i of i's class) - ln n + J(8 s2).

    In expectation at most I(T;Y) of the population; minus infinity where a row is too far from the others of its class.
    """
    i_ty_upper: Value | None
    """J(2 s2) - sum_k p_k J_k(2 s2): called the upper estimate in the literature, but not a bound."""
    i_ty_lower: Value | None
    """The same difference at 8 s2: called the lower estimate in the literature, but not a bound."""
    i_ty_certified_upper: Value | None
    """Least of H(Y), J(2 s2) - sum_k p_k J_k(8 s2) + error and the mixed-pair bound: at least I(T;Y) of the mixture.

    The rounding error is thus part of it, as of `i_ty_certified_lower`.

    The mixed-pair bound has pairs of different classes only: -mean_i log((n_{y_i} + m_i(2 s2)) / n) with
    m_i(c) = sum of exp(-d_ij / c) over j of other classes.
    """
    i_ty_certified_lower: Value | None
    """The largest of 0, J(8 s2) - sum_k p_k J_k(2 s2) - error and H(Y) - 0.805 mean_i m_i(8 s2): at most I(T;Y)."""
    i_tx_given_y_upper: np.ndarray | jax.Array | None
    """J_k(2 s2) for every class, [..., classes]; 0 for classes with at most one row."""
    i_tx_given_y_lower: np.ndarray | jax.Array | None
    """J_k(8 s2) for every class, [..., classes]."""
    saturation: Value
    """i_tx_upper / ln n; 1 where all samples are distinguished and the estimate is just ln n."""
    saturated: bool | np.ndarray | jax.Array
    """Whether saturation exceeds 0.95."""
    undersampled: bool | np.ndarray | jax.Array
    """Whether i_tx_leave_one_out exceeds i_tx_upper by more than 5 %: more rows would change the bounds."""
    error: Value
    """Bound in nats on the rounding error of all values except the leave-one-out ones; for a class of n_k rows multiply
    it by n / n_k. With labels it is that of a difference of two terms, twice that of one."""
    leave_one_out_error: Value
    """Bound on the rounding error of the leave-one-out values that are finite, nats."""
    noise_variance: Value
    without_block: dict[str, np.ndarray | jax.Array] | None
    """i_tx_upper, i_tx_lower, i_ty_upper and i_ty_lower (with labels) without each block of rows in turn,
    [..., blocks]; None unless `blocks` were asked for."""
    n: int
    precision: str
    """Arithmetic of the pass that gave the values, which is more precise than requested after a fall-back."""


def kde(
    t: Any,
    y: Any = None,
    *,
    noise_variance: Any,
    num_classes: int | None = None,
    precision: _products.Precision | None = None,
    tolerance: float | None = None,
    blocks: int = 0,
    mesh: Mesh | None = None,
    layer: str = "t",
) -> KDE:
    """Bound I(X;T) and I(T;Y) of T = t + N(0, noise_variance I), in nats.

    Under `jax.jit`, `vmap` and `grad` it is a function of t only: labels are concrete, nothing is checked, no pass is
    repeated, and every field is an array.

    Args:
        t: activations [n, ...] of any float dtype and framework, or `LazyActivations`; x is uniform over the rows.
        y: int labels [n] in 0..num_classes-1, or None.
        noise_variance: one number, or an array of s numbers that share one pass over the pairs.
        num_classes: number of classes; by default the largest label plus one.
        precision: of the distances; by default float64 for float64 input, else float32. "tf32" and "bfloat16" round the
            centred rows; "bfloat16x6", "tf32x3" and "bfloat16x3" sum products of parts of them, as many as the name
            says, for matrix units; "direct" sums squared differences in float64.
        tolerance: largest error of a term, in nats, before the pass is repeated in float64, then "direct"; by default
            5e-6 ("bfloat16x6" 2e-5, "tf32x3" 8e-5, "bfloat16x3" 5e-3).
        blocks: number of blocks of the delete-block jackknife, see `image_blocks`; 0 for none.
        mesh: devices that share the pairs; by default those over which t is spread.
        layer: name for messages.

    Returns:
        KDE; `error` and `leave_one_out_error` bound the effect of rounding on the values.

    Raises:
        InputError: for non-finite, integer or empty activations, fewer than two rows, labels that do not fit, fewer
            than two classes, variances that are not positive, a negative tolerance, blocks that are no number of them,
            an unknown precision, and distances that overflow.

    References:
        Kolchinsky & Tracey 2017, eqs. 10 and 11 (pairwise distance estimators of mixture entropy); Ding & Ashok 2021
        (bounds of I(T;Y) from mixed pairs); Poole et al. 2019 (leave-one-out bounds); Quenouille 1956
        (jackknife without a group).

    Examples:
        >>> import numpy as np
        >>> bounds = kde(np.array([[1.0], [-1.0]]), noise_variance=1.0)
        >>> f"{bounds.i_tx_lower:.10f} {bounds.i_tx_upper:.10f}"
        '0.2190701964 0.5662191695'
    """
    x = as_rows(t, layer)
    variances, scalar = as_variances(noise_variance)
    labels, classes = (np.zeros(len(x), np.int32), 1) if y is None else as_labels(y, len(x), num_classes)
    mesh = with_automatic_axes(mesh) or mesh_of(x)
    precision = wanted = precision or ("float64" if x.dtype == np.float64 else "float32")
    if isinstance(blocks, bool) or not isinstance(blocks, int | np.integer) or blocks < 0 or blocks == 1:
        raise InputError(f"Invalid blocks {blocks!r}: expected a whole number of at least 2, or 0 for no jackknife.")
    block = image_blocks(len(x), blocks) if blocks else None
    tried = _products.fall_backs(wanted)
    if tolerance is None:
        tolerance = _products.tolerance(wanted)
    elif tolerance != math.inf:
        checks.at_least("tolerance", tolerance, 0, usual="1e-5")
    if not is_traced(x) and (
        wanted == "direct" or tolerance == math.inf
    ):  # no error bound shows them, or none is asked
        check_finite(x, layer)
    for precision in tried[:1] if is_traced(x) else tried:
        sums = _sums(x, *compact(labels, classes), variances, precision, mesh, block)
        if is_traced(x) or (sums.error <= tolerance).all():
            break
        if not np.isfinite(sums.error).all():
            check_finite(x, layer)
            if _products.is_float64(precision):
                raise InputError(f"{layer} is too large for its squared distances to be finite; rescale it first.")
    of_term = sums.error + sums.rounding
    error, left_out_error = of_term if y is None else 2 * of_term, sums.left_out_error + of_term
    bounds = _bounds(sums, error, left_out_error, labels if y is not None else None, classes)
    bounds |= {"error": error, "leave_one_out_error": left_out_error, "noise_variance": variances}
    left_out = None if block is None else _without_block(sums, block, labels if y is not None else None)
    if scalar:
        bounds = {name: _scalar(value) for name, value in bounds.items()}
        left_out = left_out and {name: value[0] for name, value in left_out.items()}
    return KDE(**bounds, without_block=left_out, n=len(x), precision=precision)


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
    """Bound [s] on the error of the arithmetic in one term."""
    rounding: Any
    """Bound [s] on the error from rows rounded to "tf32" or "bfloat16"."""
    left_out_error: Any
    """Bound [s] on both errors of the mean logarithms of the sums."""
    by_block: Any
    """The sums by block, total | own of [upper | lower, s, n, blocks]; None without blocks."""
    mixed: Any
    """Lower and upper bounds [lower | upper, upper | lower, s, n] on the exact kernel sums over other classes."""


def _sums(
    x: Activations | LazyActivations,
    labels: np.ndarray,
    classes: int,
    variances: np.ndarray,
    precision: _products.Precision,
    mesh: Mesh | None,
    block: np.ndarray | None,
) -> _Sums:
    """Run the pass over the pairs and bound its error.

    Low precision rounds each coordinate of the rows independently, which averages out over features.
    """
    scales, shape = np.concatenate([2 * variances, 8 * variances]), (2, len(variances), -1)
    plan, float64 = _pairwise.kernel_scales(scales), _products.is_float64(precision)
    bases = np.maximum(plan.bases, np.finfo(_products.dtype_of(precision)).tiny)  # inverses of smaller ones overflow
    with jax.enable_x64(float64), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Some donated buffers")  # which `jax.grad` keeps for its backward pass
        sums = _pairwise.pair_sums(
            x, labels, 1 / bases, num_classes=classes, powers=plan.powers, block=block, precision=precision,
            mesh=mesh,
        )  # fmt: skip
        total, own, *largest = (s if is_traced(x) else np.asarray(s, np.float64) for s in sums)
        total, own = total[plan.index], own[plan.index]
        by_block = None if block is None else [part.reshape(*shape, part.shape[-1]) for part in (total, own)]
        if block is not None:
            total, own = total.sum(axis=-1), own.sum(axis=-1)
        constants = [lax.stop_gradient(s) for s in (total, own)] if is_traced(x) else [total, own]
    bounds = _rounding.rounding_error, _rounding.leave_one_out_error
    computed = _rounding.KernelSums(constants[0], constants[1], scales, (largest[0], largest[1]), precision)
    errors, eps, rounding = [bound(computed) for bound in bounds], 0.0, [np.zeros(len(scales))] * 2
    if unit := _products.row_roundoff(precision):
        eps = unit / math.sqrt(x.shape[1])
        rounding = [bound(computed._replace(largest=(largest[0], 0.0), eps=eps)) for bound in bounds]
    error, left_out, rounding, rounding_left_out = (e.reshape(shape).max(axis=(0, 2)) for e in (*errors, *rounding))
    mixed = [m.reshape(shape) for m in _rounding.mixed_sums(computed._replace(total=total, own=own, eps=eps))]
    total, own, left_out = total.reshape(shape), own.reshape(shape), left_out + rounding_left_out
    return _Sums(total, own, error, rounding, left_out, by_block, mixed)


def _without_block(sums: _Sums, block: np.ndarray, labels: np.ndarray | None) -> dict[str, Any]:
    """Return the bounds without each block of rows in turn, [s, blocks]."""
    xp = np if isinstance(sums.total, np.ndarray) else jnp
    kept = np.arange(int(block.max()) + 1) != block[:, None]  # [n, blocks]
    groups = [(sums.total, sums.by_block[0], np.zeros(len(block), int))]
    groups += [] if labels is None else [(sums.own, sums.by_block[1], labels)]
    logs = []
    for whole, part, group in groups:
        size = np.stack([np.bincount(group, weights=rows) for rows in kept.T], axis=-1)[group]
        log = xp.log(np.maximum(size, 1) / (1 + whole[..., None] - part))
        logs.append((log * kept).sum(axis=-2) / kept.sum(axis=0))
    fields = {"i_tx": logs[0], "i_ty": None if labels is None else logs[0] - logs[1]}
    return {
        f"{name}_{side}": value[k]
        for name, value in fields.items()
        if value is not None
        for k, side in enumerate(("upper", "lower"))
    }


def _bounds(sums: _Sums, error: Any, left_out_error: Any, labels: np.ndarray | None, classes: int) -> dict[str, Any]:
    """Turn kernel sums [upper | lower, s, n] into the fields of the result, each with a leading axis s.

    log(n / sum), rather than a difference of logarithms, gives exactly 0 for a constant layer.
    """
    total, own = sums.total, sums.own
    xp, n = (np if isinstance(total, np.ndarray) else jnp), total.shape[-1]
    upper, lower = xp.clip(xp.log(n / (1 + total)).mean(axis=-1), 0, math.log(n))
    with np.errstate(divide="ignore"):
        left_out, left_out_own = (-xp.log(part[0]).mean(axis=-1) for part in (total, own))
    saturation = upper / math.log(n)
    beyond = math.log(n - 1) + left_out
    fields: dict[str, Any] = {
        "i_tx_upper": upper,
        "i_tx_lower": lower,
        "i_tx_leave_one_out": beyond,
        "saturation": saturation,
        "saturated": saturation > 0.95,
        "undersampled": (beyond == math.inf) | (beyond > (1 + _TOLERATED_GAP) * upper + left_out_error),
    }
    if labels is None:
        return fields | dict.fromkeys(_LABEL_FIELDS)
    counts = np.bincount(labels, minlength=classes)
    rows = [np.flatnonzero(labels == k) if count else None for k, count in enumerate(counts)]
    absent = xp.zeros(total.shape[:2])
    given = [absent if r is None else xp.log(len(r) / (1 + own[..., r])).mean(axis=-1) for r in rows]
    given = xp.clip(xp.stack(given, axis=-1), 0, np.log(np.maximum(counts, 1))[None, None])
    p = counts / n
    within_upper, within_lower = (given * p[None, None]).sum(axis=-1)  # a product would be in TF32 on an accelerator
    entropy = -np.sum(p[p > 0] * np.log(p[p > 0]))
    least, most = sums.mixed
    mixed_upper = -xp.log((counts[labels].astype(least[0].dtype)[None] + least[0]) / n).mean(axis=-1)
    mixed_lower = entropy - _LOG_OVER_ROOT * most[1].mean(axis=-1)
    certified_upper = xp.minimum(xp.minimum(entropy, mixed_upper), upper - within_lower + error)
    certified_lower = xp.maximum(xp.maximum(0, mixed_lower), lower - within_upper - error)
    values = (
        entropy - left_out_own - math.log(n) + lower,
        upper - within_upper,
        lower - within_lower,
        certified_upper,
        xp.minimum(certified_lower, certified_upper),  # where both are the entropy, their rounding differs
        *given,
    )
    return fields | dict(zip(_LABEL_FIELDS, values, strict=True))


def _bound(
    side: str, t: Any, other: Any = None, *, key: jax.Array, noise_variance: Any = None, **options: Any
) -> Estimate:
    """The registered form of one side of the bounds."""
    result = kde(t, other, noise_variance=noise_variance, **options)
    value = getattr(result, f"i_tx_{side}" if other is None else f"i_ty_certified_{side}")
    details = {"saturation": float(result.saturation), "error": float(result.error)}
    kind, settings = ("upper" if side == "upper" else "lower"), {"noise_variance": noise_variance} | options
    limit = limit_of(bool(result.saturated), bool(result.undersampled))
    return Estimate(f"kde_{side}", value, None, kind, result.n, settings, details, limit)


for _side in ("upper", "lower"):
    register(f"kde_{_side}", targets=("input", "label"), adds_noise=("input", "label"), label=f"KDE, {_side}")(
        functools.partial(_bound, _side)
    )
