"""Unbiased values of I(X;T) and I(T;Y) for activations with Gaussian noise, and their standard errors.

They estimate the information of the mixture that `kde` bounds: x uniform over the given rows, noise at this layer only.
The leave-one-out values bound, in expectation, the information of the population from which the rows were drawn.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from mi_jax import checks
from mi_jax.errors import InputError
from mi_jax.information import _products, _rounding
from mi_jax.information._input import as_activations, as_labels, as_variances, check_finite, compact
from mi_jax.information._mixture import mixture_sums
from mi_jax.information.estimator import Estimate, limit_of, register
from mi_jax.parallel import mesh_of, with_automatic_axes
from mi_jax.statistics.jackknife import image_blocks
from mi_jax.typing import Key

_TOLERANCE = 1e-4
"""Rounding error in nats above which the sums are repeated in more precise arithmetic: far below any standard error.

That of `kde` where it is larger, for "bfloat16x3".
"""
_FAR = 4.0
"""Ratio of the largest distance to the first row and that within a class up to which wide rows are rotated."""
_TOLERATED_GAP = 0.01
"""Distance in nats between plug-in and leave-one-out values that is never reported as a sample too small."""
Value = float | np.ndarray


@dataclasses.dataclass(frozen=True)
class MonteCarlo:
    """Values in nats; every `Value` has a leading axis when `noise_variance` was an array.

    The fields about labels are None when no labels were given. For rows drawn independently from a population, in
    expectation i_tx <= I(X;T) <= i_tx_leave_one_out, as entropy is concave, and i_ty_leave_one_out <= I(T;Y) <= i_ty,
    the latter for given numbers of rows per class, as information is convex in the distributions of the classes.
    """

    i_tx: Value
    i_tx_stderr: Value
    """Standard error of i_tx as the information of the mixture on the given rows: of the noise draws only.

    Too small within some thousandths of a bit of the maximum, ln n (H(Y) for i_ty), where the difference is due to
    noise vectors so rare that hardly any are drawn.
    """
    i_tx_sampling_error: Value
    """Standard error with respect to the population, of rows and noise draws: delete-block jackknife.

    It has `blocks` - 1 degrees of freedom: use the quantile of Student's t for intervals. Infinite for two rows.
    """
    i_tx_leave_one_out: Value
    """mean_i log p(t_i | x_i) / mean_{j != i} p(t_i | x_j); infinite when a row is too far from all others."""
    i_ty: Value | None
    i_ty_stderr: Value | None
    i_ty_sampling_error: Value | None
    i_ty_leave_one_out: Value | None
    """H(Y) + mean_i log q(y_i | t_i), q from all rows but i; minus infinity when no other row of i's class is near."""
    saturation: Value
    """i_tx / log n."""
    saturated: bool | np.ndarray
    """Whether saturation exceeds 0.95."""
    i_tx_undersampled: bool | np.ndarray
    """Whether i_tx_leave_one_out - i_tx exceeds i_tx_sampling_error and 0.01 nats: an interval around i_tx is biased.

    The two values bracket the population, about half-way between them when rows are few.
    """
    i_ty_undersampled: bool | np.ndarray | None
    """The same of i_ty - i_ty_leave_one_out and i_ty_sampling_error."""
    error: Value
    """Bound on the rounding error of i_tx and i_ty, nats; with labels twice that of i_tx, as i_ty is a difference."""
    leave_one_out_error: Value
    """The same of the leave-one-out values that are finite."""
    noise_variance: Value
    without_block: dict[str, np.ndarray]
    """i_tx, and with labels i_ty, without each block of rows in turn, [..., blocks]; see `image_blocks`."""
    n: int
    draws: int
    blocks: int
    precision: str
    """Arithmetic that gave the values, which is more precise than requested after a fall-back."""


def monte_carlo(
    t: Any,
    y: Any = None,
    *,
    noise_variance: Any,
    key: Key | int,
    num_classes: int | None = None,
    draws: int | None = None,
    blocks: int = 20,
    precision: _products.Precision | None = None,
    mesh: Mesh | None = None,
    layer: str = "t",
) -> MonteCarlo:
    """Estimate I(X;T) and I(T;Y) of T = t + N(0, noise_variance I) by sampling the noise, in nats.

    Every row gets `draws` noise vectors in antithetic pairs; the same draws serve all noise levels and both quantities,
    and a row's draws do not depend on its label, but for wide layers of distant classes. y may be the class or any
    other factor of the input.

    Args:
        t: activations [n, ...] of any float dtype and framework.
        y: int labels [n] in 0..num_classes-1, or None.
        noise_variance: one number, or an array of s numbers.
        key: JAX random key of the noise, or a seed.
        num_classes: number of classes; by default the largest label plus one.
        draws: noise vectors per row, an even number; with four or more the standard error excludes the variation among
            rows. By default as in `default_draws`.
        blocks: number of blocks of the jackknife, at most n; rows are assigned to them at random.
        precision: precision of the arithmetic, as in `kde`.
        mesh: devices that share the pairs; by default those over which t is spread.
        layer: name for messages.

    Raises:
        InputError: for what `kde` refuses, an odd number of draws, and fewer than two blocks.

    References:
        Goldfeld et al. 2019 (entropy of a noisy network by sampling its mixture); Quenouille 1956 (jackknife without
        a group); Barber & Agakov 2003 and Poole et al. 2019 (leave-one-out bounds).

    Examples:
        >>> import jax, numpy as np
        >>> result = monte_carlo(np.array([[1e3], [-1e3]]), [0, 1], noise_variance=1.0, key=jax.random.key(0))
        >>> round(result.i_tx, 6), round(result.i_ty, 6)
        (0.693147, 0.693147)
    """
    x = as_activations(t, layer)
    check_finite(x, layer)
    variances, scalar = as_variances(noise_variance)
    n, key = len(x), checks.key(key)
    draws = default_draws(n) if draws is None else draws
    checks.count("draws", draws, 2)
    if draws % 2:
        raise InputError(f"draws is {draws}; noise comes in antithetic pairs, so it must be even and positive.")
    checks.count("blocks", blocks, 2)
    blocks = min(blocks, n)
    block = image_blocks(n, blocks)
    labels, classes = (np.zeros(n, np.int32), 1) if y is None else as_labels(y, n, num_classes)
    labels, classes = compact(labels, classes)
    options = {"num_classes": classes, "mesh": with_automatic_axes(mesh) or mesh_of(x)}
    precision = wanted = precision or ("float64" if x.dtype == np.float64 else "float32")
    for precision in _products.fall_backs(wanted):
        sums, errors = _sums(x, labels, block, variances, key, draws // 2, precision, options)
        error = errors.arithmetic[0]
        if (error <= max(_TOLERANCE, _products.tolerance(wanted))).all():
            break
        if _products.is_float64(precision) and not np.isfinite(error).all():
            raise InputError(f"{layer} is too large for its squared distances to be finite; rescale it first.")
    fields, without_block = _estimates(sums, labels, block, labelled=y is not None)
    of_term, of_left_out = (sum(parts) for parts in zip(*errors, strict=True))
    error = of_term if y is None else 2 * of_term
    fields |= {"error": error, "leave_one_out_error": 2 * of_left_out, "noise_variance": variances}
    if scalar:
        fields: dict[str, Any] = {name: None if v is None else v[0].item() for name, v in fields.items()}
        without_block = {name: v[0] for name, v in without_block.items()}
    return MonteCarlo(**fields, without_block=without_block, n=n, draws=draws, blocks=blocks, precision=precision)


def default_draws(n: int) -> int:
    """Return the smallest even number of noise vectors per row, at least four, that gives 1,024 or more for n rows.

    With fewer, standard errors are so uncertain that intervals of 1.96 standard errors have too low a coverage.
    """
    return max(4, 2 * math.ceil(512 / n))


class _Errors(NamedTuple):
    """Bounds [s] on the errors of mean logarithms of the sums, with and without a row's own kernel."""

    arithmetic: list[np.ndarray]
    rows: list[np.ndarray]
    """From rows rounded to "tf32" or "bfloat16"."""


def _sums(
    x: Any,
    labels: np.ndarray,
    block: np.ndarray,
    variances: np.ndarray,
    key: jax.Array,
    pairs: int,
    precision: _products.Precision,
    options: dict[str, Any],
) -> tuple[np.ndarray, _Errors]:
    """Return sums over other rows [pair, s, sign, total | own, n, blocks] in float64, and bounds on their errors.

    The exponents also have terms g.(x_i - x_j) / s: their arithmetic has an error of eps |m_k - m_l| / s, and in rows
    rounded to a unit u they are off by u |a| / s for each row, independently of the others. Rounded noise is another
    draw.
    """
    float64 = _products.is_float64(precision)
    with jax.enable_x64(float64):
        rotated = _rotate(x, labels, pairs, precision)
        taken = [
            mixture_sums(rotated, labels, block, np.sqrt(variances), k, precision=precision, **options)
            for k in jax.random.split(key, pairs)
        ]
        sums = np.stack([np.asarray(pair, np.float64) for pair, *_ in taken])
        norm, cross, apart = (float(part) for part in taken[0][1:])
    rows = np.moveaxis(sums.sum(axis=-1), 1, 0)  # [s, pair, sign, total | own, n]
    total, own = (rows[:, :, :, part].reshape(len(variances), -1) for part in (0, 1))
    deviation, unit = np.sqrt(variances), _products.row_roundoff(precision)
    largest = norm, cross + 2 * deviation * apart
    computed = _rounding.KernelSums(total, own, 2 * variances, largest, precision)
    bounds = _rounding.rounding_error, _rounding.leave_one_out_error
    errors = [bound(computed) for bound in bounds]
    if not unit:
        return sums, _Errors(errors, [np.zeros(len(variances))] * 2)
    n, d = rotated.shape
    of_rows = computed._replace(largest=(norm + 2 * deviation * math.sqrt(norm * d / n), 0.0), eps=unit / math.sqrt(d))
    return sums, _Errors(errors, [bound(of_rows) for bound in bounds])


def _rotate(x: Any, labels: np.ndarray, products: int, precision: _products.Precision) -> Any:
    """Rotate a layer wider than n to n coordinates when the QR factorisation costs less than it saves.

    Costs in units of 2 n^2: QR about 2 d, distances d / 2 and each draw d; after the rotation n instead of d.

    It rounds at the scale of the distances to the first row, so that rows whose classes lie far apart stay as they are,
    as do rows that are rounded, since few coordinates of the first ones are not 0.
    """
    n, d = x.shape
    dear = d <= n or 2 * d + n * (0.5 + products) >= d * (0.5 + products)
    if dear or precision == "direct" or _products.row_roundoff(precision):
        return x
    wide = jax.numpy.asarray(x, jax.numpy.float64 if precision == "float64" else jax.numpy.float32)
    _, first, of_row = np.unique(labels, return_index=True, return_inverse=True)
    moved = wide - wide[:1]
    if _longest(moved) > _FAR * _longest(wide - wide[first[of_row]]):
        return x
    rotated = jax.numpy.linalg.qr(moved.T, mode="r").T
    return rotated if jax.numpy.isfinite(rotated).all() else x  # LAPACK can fail on large rows of low rank


def _longest(rows: jax.Array) -> float:
    return float(jax.numpy.linalg.norm(rows, axis=1).max())


def _estimates(
    sums: np.ndarray, labels: np.ndarray, block: np.ndarray, *, labelled: bool
) -> tuple[dict[str, Any], dict]:
    """Turn sums [pair, s, sign, total | own, n, blocks] into fields [s], and values without each block [s, blocks]."""
    n, blocks = sums.shape[-2:]
    counts = np.bincount(labels)
    others = sums.sum(axis=-1)
    whole = 1 + others  # the kernel of a row with itself is 1
    within = np.log(whole / np.stack([np.full(n, n), counts[labels]])).mean(axis=2)  # [pair, s, total | own, n]
    deleted = np.empty((blocks, *within.shape[1:3]))
    for b in range(blocks):
        keep = block != b
        size = np.stack([np.full(n, keep.sum()), np.bincount(labels[keep], minlength=len(counts))[labels]])
        rest = (whole - sums[..., b])[..., keep]
        deleted[b] = np.log(rest / size[:, keep]).mean(axis=(0, 2, 4))
    fields: dict[str, Any] = {}
    without_block: dict[str, np.ndarray] = {}
    for name, sample, left_out in (
        ("i_tx", -within[:, :, 0], -deleted[:, :, 0]),
        ("i_ty", within[:, :, 1] - within[:, :, 0], deleted[:, :, 1] - deleted[:, :, 0]),
    ):
        known = name == "i_tx" or labelled
        jackknife = np.sqrt((blocks - 1) / blocks * ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0))
        fields[name] = sample.mean(axis=(0, 2)) if known else None
        without_block |= {name: left_out.T} if known else {}
        fields[f"{name}_stderr"] = _stderr(sample) if known else None
        fields[f"{name}_sampling_error"] = (jackknife if n > 2 else np.full_like(jackknife, np.inf)) if known else None
    p = counts[counts > 0] / n
    with np.errstate(divide="ignore"):
        far = np.log(others).mean(axis=(0, 2, 4))  # [s, total | own]; minus infinity without a neighbour
    fields["i_tx_leave_one_out"] = math.log(n - 1) - far[:, 0]
    own = np.where(np.isneginf(far[:, 1]), -np.inf, far[:, 1] - np.where(np.isneginf(far[:, 0]), 0, far[:, 0]))
    fields["i_ty_leave_one_out"] = own - np.sum(p * np.log(p)) if labelled else None
    fields["saturation"] = fields["i_tx"] / math.log(n)
    fields["saturated"] = fields["saturation"] > 0.95
    for name in ("i_tx", "i_ty"):
        value, sampling, bound = (fields[name + part] for part in ("", "_sampling_error", "_leave_one_out"))
        if value is not None:
            value = (np.abs(bound - value) > np.maximum(sampling, _TOLERATED_GAP)) | np.isinf(sampling)
        fields[f"{name}_undersampled"] = value
    return fields, without_block


def _stderr(sample: np.ndarray) -> np.ndarray:
    """Standard error [s] of the mean of sample [pair, s, n]: within rows; over all rows when there is one pair."""
    pairs, _, n = sample.shape
    if pairs == 1:
        return sample[0].std(axis=-1, ddof=1) / math.sqrt(n)
    return np.sqrt(sample.var(axis=0, ddof=1).mean(axis=-1) / (n * pairs))


@register("monte_carlo", targets=("input", "label"), adds_noise=("input", "label"), label="Monte Carlo")
def _value(t: Any, other: Any = None, *, key: jax.Array, noise_variance: Any = None, **options: Any) -> Estimate:
    """The registered form of the value."""
    result = monte_carlo(t, other, noise_variance=noise_variance, key=key, **options)
    quantity = "i_tx" if other is None else "i_ty"
    parts = ("", "_stderr", "_sampling_error", "_leave_one_out")
    value, stderr, sampling, left_out = (float(getattr(result, quantity + part)) for part in parts)
    details = {"saturation": float(result.saturation), "error": float(result.error), "sampling_error": sampling}
    details |= {"leave_one_out": left_out, "degrees_of_freedom": float(result.blocks - 1)}
    settings = options | {"noise_variance": noise_variance, "draws": result.draws}
    limit = limit_of(bool(result.saturated), bool(getattr(result, f"{quantity}_undersampled")))
    return Estimate("monte_carlo", value, stderr, "value", result.n, settings, details, limit)
