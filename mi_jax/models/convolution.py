"""How a convolution and a pooling are computed on each backend: the one place that decides.

Knows arrays only; parameters live in `layers`, architectures in `architectures`.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import lax

Method = Literal["auto", "lax", "patches"]
METHODS: tuple[str, ...] = get_args(Method)
"""`auto` decides by the backend at trace time, `lax` is XLA's convolution, `patches` one matrix product."""


def backend() -> str:
    """The platform that code traced now will run on: that of `jax.default_device` if set, else JAX's default."""
    device = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    if device is None:
        return jax.default_backend()
    return device if isinstance(device, str) else device.platform


def conv2d(x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: int = 0, method: Method = "auto") -> jax.Array:
    """Cross-correlates images with a kernel, with `padding` zeros on every side as PyTorch counts them.

    Args:
        x: `[b h w c]`.
        kernel: `[kh kw c o]`, of the dtype of `x`.
        stride: step between outputs, the same along both axes.
        padding: zeros added on each of the four sides.
        method: see `METHODS`; XLA's CPU convolution is several times slower than a matrix product over patches
            (more so inside a loop), on an accelerator it is the fast one.

    Returns:
        `[b h' w' o]` with `h' = (h + 2 padding - kh) // stride + 1`, of the dtype of `x`.
    """
    if method == "auto":
        method = "patches" if backend() == "cpu" else "lax"
    if method == "patches":
        return _conv_by_patches(x, kernel, stride, padding)
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), ((padding, padding),) * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _conv_by_patches(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    kh, kw, c, o = kernel.shape
    if padding:
        x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    b, h, w, _ = x.shape
    last_row, last_column = (h - kh) // stride * stride, (w - kw) // stride * stride
    shifted = [
        lax.slice(x, (0, i, j, 0), (b, i + last_row + 1, j + last_column + 1, c), (1, stride, stride, 1))
        for i in range(kh)
        for j in range(kw)
    ]
    patches = shifted[0] if len(shifted) == 1 else jnp.concatenate(shifted, axis=-1)
    return patches @ kernel.reshape(kh * kw * c, o)


def max_pool(x: jax.Array) -> jax.Array:
    """Maximum over disjoint 2 x 2 squares, `[b h w c] -> [b h' w' c]` with the sides that `pooled_shape` gives.

    A remainder at the right and bottom is left out; a side of 1 stays. Reshape and maximum: on CPU much faster than
    `reduce_window`.
    """
    b, h, w, c = x.shape
    rows, columns = pooled_shape(h, w)
    tall, wide = min(h, 2), min(w, 2)
    x = x[:, : rows * tall, : columns * wide]
    return x.reshape(b, rows, tall, columns, wide, c).max(axis=(2, 4))


def pooled_shape(height: int, width: int) -> tuple[int, int]:
    """The sides of a map after `max_pool`: halved, rounded down, at least 1."""
    return max(height // 2, 1), max(width // 2, 1)


def mean_pool(x: jax.Array) -> jax.Array:
    """Mean over all positions in float32: `[b h w c] -> [b c]`."""
    return x.mean(axis=(1, 2), dtype=jnp.float32)
