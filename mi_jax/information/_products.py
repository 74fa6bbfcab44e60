"""Products of rows in every precision: how each is computed, how far it rounds, and what is tried after it.

Precisions such as "tf32x3" are for matrix units: each factor is split into parts of fewer bits, and the products of the
large parts are summed in float32.
"""

import functools
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mi_jax import checks

Precision = Literal["direct", "float64", "float32", "bfloat16x6", "tf32x3", "bfloat16x3", "tf32", "bfloat16"]
_DOT = {
    "direct": lax.Precision.HIGHEST,
    "float64": lax.Precision.HIGHEST,
    "float32": lax.Precision.HIGHEST,
    "tf32": lax.Precision.HIGH,
    "bfloat16": lax.Precision.DEFAULT,
}


_ROW_ROUNDOFF: dict[Precision, float] = {"tf32": 2.0**-11, "bfloat16": 2.0**-8}


class Split(NamedTuple):
    """A float32 product as a sum of products of parts, on matrix units."""

    parts: int
    """Number of parts of a factor; products of the k-th and the l-th with k + l >= parts are left out."""
    dropped: int
    """Last bits of float32 that a part does not have."""
    roundoff: float
    """Relative error of a squared norm: twice its left-out products where parts are truncated, as XLA does for GPUs."""
    cuda: lax.DotAlgorithmPreset
    tpu: lax.DotAlgorithmPreset


_PRESET = lax.DotAlgorithmPreset
_SPLIT = {
    "bfloat16x6": Split(3, 16, 2.0**-21, _PRESET.BF16_BF16_F32_X6, _PRESET.BF16_BF16_F32_X6),
    "tf32x3": Split(2, 13, 2.0**-19, _PRESET.TF32_TF32_F32_X3, _PRESET.BF16_BF16_F32_X6),  # no TF32 on a TPU
    "bfloat16x3": Split(2, 16, 2.0**-13, _PRESET.BF16_BF16_F32_X3, _PRESET.BF16_BF16_F32_X3),
}


def is_float64(precision: Precision) -> bool:
    """Return whether the arithmetic is float64, which needs `jax.enable_x64`."""
    return precision in ("float64", "direct")


def product_roundoff(precision: Precision) -> float:
    """Return the relative error of the squared norm of a row as a product."""
    return _SPLIT[precision].roundoff if precision in _SPLIT else float(np.finfo(dtype_of(precision)).eps)


def row_roundoff(precision: Precision) -> float:
    """Return the relative error of rows that `rounded` gives; 0 where they stay as they are."""
    return _ROW_ROUNDOFF.get(precision, 0.0)


def tolerance(precision: Precision) -> float:
    """Return the default for the largest rounding error in nats: 5e-6, and in proportion for split products."""
    return 5e-6 * max(1.0, product_roundoff(precision) / float(np.finfo(np.float32).eps))


def dtype_of(precision: Precision) -> Any:
    return np.float64 if is_float64(precision) else np.float32


def fall_backs(precision: Precision) -> tuple[Precision, ...]:
    """Return a precision and those to try after it when its error is too large.

    Raises:
        InputError: for an unknown precision.
    """
    checks.one_of("precision", precision, get_args(Precision))
    first: tuple[Precision, ...] = () if is_float64(precision) else (precision,)
    return (*first, "direct") if precision == "direct" else (*first, "float64", "direct")


def dot(a: jax.Array, b: jax.Array, precision: Precision) -> jax.Array:
    """Return a b^T for rows [m, d] and [n, d], accumulated in float32 or wider.

    Split products are the compiler's on GPUs and TPUs, and explicit sums elsewhere, where a CPU would ignore the split.
    """
    if precision not in _SPLIT:
        return _product(a, b, precision=_DOT[precision])
    split = _SPLIT[precision]
    ways = {platform: functools.partial(_product, precision=getattr(split, platform)) for platform in ("cuda", "tpu")}
    return lax.platform_dependent(a, b, **ways, default=functools.partial(_split_product, split=split))


def _product(a: jax.Array, b: jax.Array, *, precision: Any) -> jax.Array:
    wide = jnp.float64 if a.dtype == jnp.float64 else jnp.float32
    dims = (((1,), (1,)), ((), ()))
    return lax.dot_general(a, b, dims, precision=precision, preferred_element_type=wide)


def _split_product(a: jax.Array, b: jax.Array, *, split: Split) -> jax.Array:
    """Return a b^T from products of parts, the smallest first."""
    left, right = _parts(a, split), _parts(b, split)
    pairs = [(k, order - k) for order in reversed(range(split.parts)) for k in range(order + 1)]
    products = [_product(left[k], right[m], precision=lax.Precision.HIGHEST) for k, m in pairs]
    return functools.reduce(jnp.add, products)


def _parts(a: jax.Array, split: Split) -> list[jax.Array]:
    """Split float32 values into parts of leading bits, truncated; gradients pass unchanged."""
    parts, mask = [], jnp.uint32(0xFFFFFFFF << split.dropped & 0xFFFFFFFF)
    for _ in range(split.parts):
        leading = lax.bitcast_convert_type(lax.bitcast_convert_type(a, jnp.uint32) & mask, jnp.float32)
        parts.append(a + lax.stop_gradient(leading - a))
        a = a - parts[-1]
    return parts


def rounded(a: jax.Array, precision: Precision) -> jax.Array:
    """Round rows as the matrix unit does, so that norms and products use the same numbers."""
    if precision == "tf32":
        return lax.reduce_precision(a, exponent_bits=8, mantissa_bits=10)
    return a.astype(jnp.bfloat16) if precision == "bfloat16" else a
