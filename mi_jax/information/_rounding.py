"""Bounds on how rounded distances change kernel sums and the means of their logarithms.

Distances have errors of up to a few e = eps |a|^2 (see `_tiles`), so a kernel exp(-d / c) has a factor of up to
exp(e / c), and so has a sum of kernels.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax.information._products import Precision, dtype_of, product_roundoff


class KernelSums(NamedTuple):
    """Computed sums, and what their rounding depends on.

    Attributes:
        total: kernel sums [levels, n] over all other rows.
        own: the part [levels, n] from rows of the same class.
        scales: [levels], the c of each level.
        largest: what `_tiles.largest` returns.
        precision: of the arithmetic.
        eps: relative error of rows that were rounded, to take the place of that of the arithmetic; 0 for none.
    """

    total: Any
    own: Any
    scales: np.ndarray
    largest: tuple[Any, Any]
    precision: Precision
    eps: float = 0.0


def rounding_error(sums: KernelSums) -> Any:
    """Bound the error [levels] in nats of mean_i log(1 + total_i), and of the same of `own`.

    With e / c small the error is e / c times the share of other rows in the whole sum. With e / c large the computed
    sums do not bound that share: each kernel, including those that underflowed, may be exp(8 e / c) times larger, until
    the error reaches its maximum log(1 + n).

    Returns:
        The bound; infinite where the distances overflowed.
    """
    xp, total, own, largest = _module(sums), sums.total, sums.own, sums.largest
    with np.errstate(over="ignore", invalid="ignore"):
        share, other = xp.mean(total / (1 + total), axis=1), xp.mean((total - own) / (1 + total), axis=1)
        within, between, exponent = _relative_errors(sums)
        lost = xp.exp(xp.minimum(exponent, 99.0))
        error = xp.log1p(share * within + other * between + lost)
        error = xp.fmin(error, math.log1p(total.shape[1]))  # NaN, of sums that overflowed, is at the maximum too
    # Direct distances have relative errors, and are at most some hundred scales.
    return xp.where(xp.isfinite(largest[0]) & xp.isfinite(largest[1]), error + _floor(sums, 64.0), xp.inf)


def leave_one_out_error(sums: KernelSums) -> Any:
    """Bound the error [levels] in nats of mean_i log(total_i), and of the same of `own`.

    Without a row's own kernel, which is exactly 1, a sum has the relative errors of its kernels in full, and the mean
    has no maximum. Rows whose sum is 0 are left out: the mean is infinite.

    Returns:
        The bound; infinite where kernels that underflowed may outweigh the others, or distances overflowed.
    """
    xp, errors = _module(sums), []
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        within, between, exponent = (part[:, None] for part in _relative_errors(sums))
        for computed, mixed in ((sums.total, xp.maximum(sums.total - sums.own, 0)), (sums.own, 0 * sums.own)):
            near = computed > 0
            each = xp.log1p(within + (mixed * between + xp.exp(exponent)) / computed)
            counts = xp.maximum(xp.where(near, 1.0, 0.0).sum(axis=1), 1.0)
            error = xp.where(near, each, 0.0).sum(axis=1) / counts
            errors.append(xp.where(xp.isfinite(error), error + _floor(sums, 1e4), xp.inf))
    return xp.maximum(*errors)


def mixed_sums(sums: KernelSums) -> tuple[Any, Any]:
    """Bound the exact kernel sums [levels, n] over rows of other classes from below and above."""
    xp, total, info = _module(sums), sums.total, np.finfo(dtype_of(sums.precision))
    unit, tiny = float(info.eps), float(info.tiny)
    relative = max(product_roundoff(sums.precision), sums.eps), max(unit, sums.eps)
    parts = (8 * (r * value + tiny) / sums.scales for r, value in zip(relative, sums.largest, strict=True))
    with np.errstate(over="ignore", invalid="ignore"):
        factor = xp.exp(xp.fmin(64 * unit + sum(parts), 50.0))[:, None]  # NaN, of an overflow, is at the maximum too
    mixed, rounding = xp.maximum(total - sums.own, 0), 4 * unit * total
    return xp.maximum(mixed - rounding, 0) / factor, (mixed + rounding + total.shape[-1] * tiny) * factor


def _module(sums: KernelSums) -> Any:
    return jnp if isinstance(sums.total, jax.Array) else np


def _relative_errors(sums: KernelSums) -> tuple[Any, Any, Any]:
    """Relative errors [levels] of kernels within and between classes, and the log of what underflowed of a sum."""
    xp, info = _module(sums), np.finfo(dtype_of(sums.precision))
    tiny, unit = float(info.tiny), sums.eps or float(info.eps)
    relative = sums.eps or product_roundoff(sums.precision), unit
    norm, cross = (
        (r * value + xp.where(value > 0, tiny, 0.0)) / sums.scales
        for r, value in zip(relative, sums.largest, strict=True)
    )
    within = norm * xp.exp(8 * norm) + xp.where(norm > 0, 4 * unit, 0.0)
    lost = xp.where(norm > 0, 8 * (norm + cross) + math.log(sums.total.shape[1] * tiny), -xp.inf)
    return within, cross * xp.exp(8 * cross), lost


def _floor(sums: KernelSums, units: float) -> float:
    """The error of directly summed squared differences, which have none from large norms."""
    return units * float(np.finfo(np.float64).eps) if sums.precision == "direct" else 0.0
