"""How a convolution and a pooling are computed on each backend: the one place that decides.

Knows arrays only; parameters live in `layers`, architectures in `architectures`.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax import lax

Method = Literal["auto", "lax", "patches", "products"]
METHODS: tuple[str, ...] = get_args(Method)
"""`lax` is XLA's convolution, `patches` one matrix product over concatenated slices, `products` the matrix products or
the convolutions along one axis that suit the map (`patches` where nothing better is known); `auto` is `products` in a
program that is lowered for a CPU and `lax` in any other."""

_FEW_CHANNELS = 8
_WINOGRAD_ROWS = 2
_DENSE_POSITIONS = 4

_WINOGRAD = {
    2: (
        ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
        ((1, 1, 1, 0), (0, 1, -1, -1)),
    ),
    4: (
        (
            (4, 0, -5, 0, 1, 0),
            (0, -4, -4, 1, 1, 0),
            (0, 4, -4, -1, 1, 0),
            (0, -2, -1, 2, 1, 0),
            (0, 2, -1, -2, 1, 0),
            (0, 4, 0, -5, 0, 1),
        ),
        (
            (1 / 4, 0, 0),
            (-1 / 6, -1 / 6, -1 / 6),
            (-1 / 6, 1 / 6, -1 / 6),
            (1 / 24, 1 / 12, 1 / 6),
            (1 / 24, -1 / 12, 1 / 6),
            (0, 0, 1),
        ),
        ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
    ),
}
"""For `t` neighbouring outputs of a kernel of 3: the sums of inputs, of kernel elements and of products (the matrices
B^T, G and A^T of Lavin and Gray 2016, section 4.1)."""


def conv2d(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    padding: int = 0,
    method: Method = "auto",
    precision: lax.Precision = lax.Precision.HIGHEST,
) -> jax.Array:
    """Cross-correlates images with a kernel, with `padding` zeros on every side as PyTorch counts them.

    XLA's convolution along both axes is slower than matrix products on a CPU, its gradient several times; on an
    accelerator it is the fast one. Reverse-mode differentiable only, but for `lax` and `patches`. `products` agrees
    with `lax` up to rounding, where an output that is 0 for lack of any input may come out as 1e-7 of its neighbours:
    behind a kernel without bias or normalisation, a ReLU may pass a gradient there that is 0 under `lax`.

    Args:
        x: `[b h w c]`.
        kernel: `[kh kw c o]`, of the dtype of `x`.
        stride: step between outputs, the same along both axes.
        padding: zeros added on each of the four sides.
        method: see `METHODS`.
        precision: of the products, where the platform has a choice: float32 or, with `DEFAULT`, TF32 on a GPU and one
            pass of bfloat16 on a TPU.

    Returns:
        `[b h' w' o]` with `h' = (h + 2 padding - kh) // stride + 1`, of the dtype of `x`.
    """
    if method == "auto":
        return _by_platform(x, kernel, stride, padding, precision)
    return _by_method(x, kernel, stride, padding, precision, method)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _by_platform(x: jax.Array, kernel: jax.Array, stride: int, padding: int, precision: lax.Precision) -> jax.Array:
    """The method is chosen at lowering, in the gradients, too: each is the one of the platform's own method."""
    return _on_each_platform(_by_method, x, kernel, stride, padding, precision)


def _on_each_platform(compute: Callable[..., jax.Array], *operands: Any) -> jax.Array:
    arrays, options = operands[:-3], operands[-3:]
    methods: tuple[Method, Method] = ("products", "lax")
    on_cpu, elsewhere = (lambda *given, method=method: compute(*given, *options, method) for method in methods)
    return lax.platform_dependent(*arrays, cpu=on_cpu, default=elsewhere)


def _platform_residuals(x: jax.Array, kernel: jax.Array, *options: Any):
    return _by_platform(x, kernel, *options), (x, kernel)


def _platform_gradients(stride: int, padding: int, precision: lax.Precision, residuals: Any, gradient: jax.Array):
    operands = (*residuals, gradient, stride, padding, precision)
    return _on_each_platform(_gradient_of_images, *operands), _on_each_platform(_gradient_of_kernel, *operands)


_by_platform.defvjp(_platform_residuals, _platform_gradients)


def _gradient_of_images(x: jax.Array, kernel: jax.Array, gradient: jax.Array, *options: Any) -> jax.Array:
    return jax.vjp(lambda x: _by_method(x, kernel, *options), x)[1](gradient)[0]


def _gradient_of_kernel(x: jax.Array, kernel: jax.Array, gradient: jax.Array, *options: Any) -> jax.Array:
    return jax.vjp(lambda kernel: _by_method(x, kernel, *options), kernel)[1](gradient)[0]


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5), inline=True)
def _by_method(
    x: jax.Array, kernel: jax.Array, stride: int, padding: int, precision: lax.Precision, method: Method
) -> jax.Array:
    if method == "lax":
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            ((padding, padding),) * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=precision,
        )
    if method == "products" and stride == 1:
        _, h, w, c = x.shape
        kh, kw = kernel.shape[:2]
        if kh == kw == 2 * padding + 1 and h * w <= _DENSE_POSITIONS:
            return _as_dense_layer(x, kernel, padding, precision)
        rows, columns = (side + 2 * padding - size + 1 for side, size in ((h, kh), (w, kw)))
        if c < _FEW_CHANNELS and kw % 2 == 1 and kw > 1 and columns > 1:
            return _by_pairs_of_columns(x, kernel, padding, precision)
        square = kh == kw == 3 and padding <= 2
        if c >= _FEW_CHANNELS and square and rows >= _WINOGRAD_ROWS and x.dtype != jnp.bfloat16:
            return _by_winograd(x, kernel, padding, precision)
    return _by_patches(x, kernel, stride, padding, precision)


def _by_patches(x: jax.Array, kernel: jax.Array, stride: int, padding: int, precision: lax.Precision) -> jax.Array:
    """All slices that the kernel's elements see, side by side, times the kernel as one matrix."""
    kh, kw, c, o = kernel.shape
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    b, h, w, _ = x.shape
    last_row, last_column = (h - kh) // stride * stride, (w - kw) // stride * stride
    slices = [
        lax.slice(x, (0, i, j, 0), (b, i + last_row + 1, j + last_column + 1, c), (1, stride, stride, 1))
        for i in range(kh)
        for j in range(kw)
    ]
    return jnp.matmul(jnp.concatenate(slices, axis=-1), kernel.reshape(kh * kw * c, o), precision=precision)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _by_winograd(x: jax.Array, kernel: jax.Array, padding: int, precision: lax.Precision) -> jax.Array:
    """Winograd's sums over the rows, XLA's convolution along the columns.

    On a CPU XLA computes a convolution along one axis on all cores at nearly the rate of a matrix product and without
    copied slices, but neither one along two axes nor a gradient. So the gradient of the images is taken as what it is,
    the convolution of the outputs' gradient with the turned kernel.
    """
    return _sums_over_rows(x, kernel, padding, functools.partial(_along_columns, precision=precision))


def _winograd_residuals(x: jax.Array, kernel: jax.Array, *options: Any):
    return _by_winograd(x, kernel, *options), (x, kernel)


def _winograd_gradients(
    padding: int, precision: lax.Precision, residuals: tuple[jax.Array, jax.Array], gradient: jax.Array
):
    x, kernel = residuals
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    along_columns = functools.partial(_along_columns_by_patches, precision=precision)
    _, of_kernel = jax.vjp(lambda k: _sums_over_rows(x, k, padding, along_columns), kernel)
    return _by_winograd(gradient, turned, 2 - padding, precision), of_kernel(gradient)[0]


_by_winograd.defvjp(_winograd_residuals, _winograd_gradients)


def _sums_over_rows(x: jax.Array, kernel: jax.Array, padding: int, along_columns: Callable[..., jax.Array]):
    """F(2, 3) or F(4, 3) along the rows (Winograd 1980; Lavin and Gray 2016), `along_columns` along the columns.

    Two neighbouring rows of outputs come from four convolutions along the columns in place of six, four rows from six
    in place of twelve. Squares of 2 x 2 or 4 x 4 outputs save more products but cost more again in sums and copies.
    """
    _, _, c, o = kernel.shape
    rows, columns = (side + 2 * padding - 2 for side in x.shape[1:3])
    tile = min(_WINOGRAD, key=lambda tile: -(-rows // tile) * (tile + 2))
    tiles = -(-rows // tile)
    x = jnp.pad(x, ((0, 0), (padding, padding + -rows % tile), (0, 0), (0, 0)))
    b, _, w, _ = x.shape
    of_inputs, of_kernel, of_products = _WINOGRAD[tile]
    seen = [x[:, i : i + tile * (tiles - 1) + 1 : tile] for i in range(tile + 2)]
    products = []
    for input_weights, kernel_weights in zip(of_inputs, of_kernel, strict=True):
        combined = _weighted_sum(input_weights, seen).reshape(b * tiles, w, c)
        weights = _weighted_sum(kernel_weights, [kernel[i] for i in range(3)])
        products.append(along_columns(combined, weights, padding).reshape(b, tiles, columns, o))
    outputs = jnp.stack([_weighted_sum(weights, products) for weights in of_products], axis=2)
    return outputs.reshape(b, tiles * tile, columns, o)[:, :rows]


def _along_columns(x: jax.Array, kernel: jax.Array, padding: int, precision: lax.Precision) -> jax.Array:
    """`[n w c]` with a kernel `[3 c o]`."""
    numbers = ("NWC", "WIO", "NWC")
    return lax.conv_general_dilated(
        x, kernel, (1,), ((padding, padding),), dimension_numbers=numbers, precision=precision
    )


def _along_columns_by_patches(x: jax.Array, kernel: jax.Array, padding: int, precision: lax.Precision) -> jax.Array:
    """The same as a matrix product, whose gradient of the kernel is one, too."""
    x = jnp.pad(x, ((0, 0), (padding, padding), (0, 0)))
    return _by_patches(x[:, None], kernel[None], 1, 0, precision)[:, 0]


def _weighted_sum(weights: tuple[int | float, ...], terms: list[jax.Array]) -> jax.Array:
    """The sum of the terms times their weights; those of weight 0 are left out."""
    return functools.reduce(jnp.add, [t if w == 1 else w * t for w, t in zip(weights, terms, strict=True) if w != 0])


def _by_pairs_of_columns(x: jax.Array, kernel: jax.Array, padding: int, precision: lax.Precision) -> jax.Array:
    """Slices that two neighbouring outputs see together, times the kernel once for each of the two.

    A layer of few channels is short of outputs to share a slice among and long in the copying of tiny slices.
    """
    kh, kw, c, o = kernel.shape
    columns = x.shape[2] + 2 * padding - kw + 1
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding + columns % 2), (0, 0)))
    b, h, w, _ = x.shape
    rows, pairs = h - kh + 1, (columns + 1) // 2
    x = x.reshape(b, h, w // 2, 2 * c)
    slices = [x[:, i : i + rows, j : j + pairs] for i in range(kh) for j in range((kw + 1) // 2)]
    twice = jnp.stack([jnp.pad(kernel, ((0, 0), (i, 1 - i), (0, 0), (0, 0))) for i in range(2)], axis=3)
    twice = twice.reshape(kh * (kw + 1) * c, 2 * o)
    outputs = jnp.matmul(jnp.concatenate(slices, axis=-1), twice, precision=precision)
    return outputs.reshape(b, rows, 2 * pairs, o)[:, :, :columns]


def _as_dense_layer(x: jax.Array, kernel: jax.Array, padding: int, precision: lax.Precision) -> jax.Array:
    """A matrix from every input position to every output position: on the smallest maps most slices are padding."""
    b, h, w, c = x.shape
    o = kernel.shape[-1]
    tall, wide = max(h - 1 - padding, 0), max(w - 1 - padding, 0)
    turned = jnp.pad(kernel[::-1, ::-1], ((tall, tall), (wide, wide), (0, 0), (0, 0)))
    # An input at row i reaches the output at row p by the kernel's element i - p + padding, counted from its end here.
    top, left = padding + tall, padding + wide
    reached = jnp.stack([turned[top - i : top - i + h, left - j : left - j + w] for i in range(h) for j in range(w)])
    matrix = reached.transpose(0, 3, 1, 2, 4).reshape(h * w * c, h * w * o)
    return jnp.matmul(x.reshape(b, h * w * c), matrix, precision=precision).reshape(b, h, w, o)


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """Maximum over disjoint 2 x 2 squares, `[b h w c] -> [b h' w' c]` with the sides that `pooled_shape` gives.

    A remainder at the right and bottom is left out; a side of 1 stays. Maxima of pairs: on CPU twice as fast, with
    its gradient, as a maximum over reshaped axes, and many times as fast as `reduce_window`. Reverse-mode
    differentiable only; equal elements of a pair share its gradient.
    """
    return _max_of_pairs(_max_of_pairs(x, 2), 1)


def _pooling_residuals(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return max_pool(x), x


def _pooling_gradients(x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    """Selected and interleaved: JAX's own gradient of slices adds arrays with zeros in between, which takes longer."""
    rows = _pairs(x, 1)
    of_rows = _shares([_max_of_pairs(row, 2) for row in rows], gradient)
    of_columns = [_interleaved(_shares(_pairs(row, 2), of_row), 2) for row, of_row in zip(rows, of_rows, strict=True)]
    found = _interleaved(of_columns, 1)
    return (jnp.pad(found, [(0, whole - part) for whole, part in zip(x.shape, found.shape, strict=True)]),)


max_pool.defvjp(_pooling_residuals, _pooling_gradients)


def _max_of_pairs(x: jax.Array, axis: int) -> jax.Array:
    return functools.reduce(jnp.maximum, _pairs(x, axis))


def _pairs(x: jax.Array, axis: int) -> list[jax.Array]:
    """The first and the second elements of all pairs of neighbours; x itself where there is one element."""
    end = x.shape[axis] // 2 * 2
    return [lax.slice_in_dim(x, i, end, 2, axis) for i in range(2)] if end else [x]


def _shares(pair: list[jax.Array], gradient: jax.Array) -> list[jax.Array]:
    """The gradients of both elements of pairs, given that of their maximum."""
    if len(pair) == 1:
        return [gradient]
    first, second = pair
    shared = jnp.where(first == second, gradient / 2, gradient)
    return [jnp.where(first >= second, shared, 0), jnp.where(second >= first, shared, 0)]


def _interleaved(parts: list[jax.Array], axis: int) -> jax.Array:
    """The inverse of `_pairs`."""
    shape = list(parts[0].shape)
    shape[axis] *= len(parts)
    return jnp.stack(parts, axis + 1).reshape(shape)


def pooled_shape(height: int, width: int) -> tuple[int, int]:
    """The sides of a map after `max_pool`: halved, rounded down, at least 1."""
    return max(height // 2, 1), max(width // 2, 1)


def mean_pool(x: jax.Array) -> jax.Array:
    """Mean over all positions in float32: `[b h w c] -> [b c]`."""
    return x.mean(axis=(1, 2), dtype=jnp.float32)
