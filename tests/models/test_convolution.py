"""Every way of computing a convolution agrees with XLA's, values and gradients; so does pooling."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from mi_jax.models import convolution
from mi_jax.models.cost import matmul_flops

CASES = [
    # height, width, channels, kernel, stride, padding
    *((8, 8, 8, 3, 1, 1), (7, 9, 8, 3, 1, 1), (6, 4, 9, 3, 1, 0), (5, 7, 8, 3, 1, 2)),  # Winograd, even and odd
    *((2, 6, 8, 3, 1, 1), (4, 1, 16, 3, 1, 1), (3, 5, 128, 3, 1, 1), (11, 4, 16, 3, 1, 0)),  # few rows or columns
    *((3, 6, 16, 3, 1, 0), (1, 6, 16, 3, 1, 1), (6, 6, 8, 3, 1, 3)),  # too few rows, or too much padding, for that
    *((8, 8, 3, 3, 1, 1), (9, 7, 8, 3, 2, 1), (8, 8, 8, 3, 2, 1), (1, 5, 8, 3, 2, 1)),  # patches, stride 2
    *((8, 8, 5, 1, 1, 0), (9, 7, 5, 1, 2, 0), (11, 8, 3, 5, 1, 0), (8, 6, 3, 5, 2, 2)),  # kernels of 1 and 5
    *((5, 7, 3, 3, 1, 1), (5, 6, 1, 5, 1, 2), (6, 5, 2, 3, 1, 0), (3, 2, 3, 5, 1, 2)),  # pairs of columns
    *((2, 2, 8, 3, 1, 1), (1, 1, 8, 3, 1, 1), (1, 3, 8, 3, 1, 1), (4, 1, 4, 5, 1, 2)),  # as a dense layer
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "x".join(map(str, case)))
def test_convolution_and_its_gradients_agree_with_xla(case, key):
    height, width, channels, size, stride, padding = case
    features = 10
    x = jax.random.normal(key, (2, height, width, channels))
    kernel = jax.random.normal(jax.random.fold_in(key, 1), (size, size, channels, features)) / (size * channels**0.5)

    @jax.jit
    def compare(x, kernel):
        def run(method):
            y, pull = jax.vjp(
                lambda x, k: convolution.conv2d(x, k, stride=stride, padding=padding, method=method), x, kernel
            )
            return y, *pull(jnp.cos(y))

        return run("lax"), run("patches"), run("products")

    reference, *others = compare(x, kernel)
    rows, columns = ((side + 2 * padding - size) // stride + 1 for side in (height, width))
    assert reference[0].shape == (2, rows, columns, features)
    for other in others:
        for expected, actual in zip(reference, other, strict=True):
            np.testing.assert_allclose(actual, expected, atol=1e-5 * max(1, jnp.abs(expected).max()), rtol=1e-5)


@pytest.mark.parametrize("channels", [8, 128])
def test_a_cpu_never_gets_xlas_convolution_along_two_axes_and_an_accelerator_gets_nothing_else(channels):
    x, kernel = jnp.ones((2, 8, 8, channels)), jnp.ones((3, 3, channels, channels))
    gradients = jax.grad(lambda x, kernel: jnp.sin(convolution.conv2d(x, kernel, padding=1)).sum(), argnums=(0, 1))
    traced = jax.jit(gradients).trace(x, kernel)
    planar = re.compile(r"dim_numbers = \[., ., ., .\]")
    assert not planar.search(traced.lower(lowering_platforms=("cpu",)).as_text())
    for platform in ("cuda", "tpu"):
        program = traced.lower(lowering_platforms=(platform,)).as_text()
        assert len(planar.findall(program)) == 3
        assert "dot_general" not in program


def test_a_layer_is_convolved_along_one_axis_and_so_is_its_gradient():
    """In the compiled code, too: XLA is slow at any other arrangement of the axes and at turned kernels."""
    x, kernel = jnp.ones((2, 8, 8, 16)), jnp.ones((3, 3, 16, 32))
    gradient = jax.grad(lambda x, kernel: jnp.sin(convolution.conv2d(x, kernel, padding=1)).sum(), argnums=(0, 1))
    compiled = jax.jit(gradient).lower(x, kernel).compile().as_text()
    found = re.findall(r" convolution\(.*?window=\{(.*?)\}, dim_labels=(\S+?)[, ]", compiled)
    assert found == [("size=3 pad=1_1", "b0f_0io->b0f")] * 12


@pytest.mark.parametrize(("rows", "share"), [(2, 2 / 3), (6, 2 / 3), (7, 4 / 7), (8, 1 / 2)])
def test_winograd_saves_products(rows, share):
    channels = 16
    x, kernel = jnp.ones((1, rows, 8, channels)), jnp.ones((3, 3, channels, channels))

    def products(method: convolution.Method) -> int:
        return matmul_flops(lambda x: convolution.conv2d(x, kernel, padding=1, method=method), x) // 2

    assert products("patches") == rows * 8 * channels * 9 * channels
    assert products("products") == pytest.approx(products("patches") * share)


def test_a_layer_of_few_channels_computes_two_columns_from_one_slice():
    layer = functools.partial(convolution.conv2d, padding=1, method="products")
    trace = str(jax.make_jaxpr(layer)(jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 3, 16))))
    assert re.findall(r"f32\[([\d,]+)\] = dot_general", trace) == ["1,8,4,32"]
    assert "concatenate" in trace


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (2, 7, 5, 3), (2, 2, 3, 1)])
def test_max_pool_and_its_gradient_agree_with_reduce_window(shape, key):
    x = jax.random.normal(key, shape)

    def reference(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    np.testing.assert_array_equal(convolution.max_pool(x), reference(x))
    ours, theirs = (jax.grad(lambda x, f=f: jnp.sin(f(x)).sum())(x) for f in (convolution.max_pool, reference))
    np.testing.assert_array_equal(ours, theirs)
    assert convolution.max_pool(x).shape[1:3] == convolution.pooled_shape(*shape[1:3])


def test_equal_elements_of_a_pair_share_the_gradient_of_their_maximum():
    x = jnp.array([[3.0, 3.0, 1.0], [1.0, 3.0, 9.0], [9.0, 9.0, 9.0]])[None, :, :, None]
    found = jax.grad(lambda x: 8 * convolution.max_pool(x).sum())(x)[0, :, :, 0]
    np.testing.assert_array_equal(found, [[2, 2, 0], [0, 4, 0], [0, 0, 0]])
    line = jax.grad(lambda x: 8 * convolution.max_pool(x).sum())(x[:, :1])[0, 0, :, 0]
    np.testing.assert_array_equal(line, [4, 4, 0])


def test_max_pool_leaves_a_side_of_one():
    x = jnp.arange(6.0).reshape(1, 1, 6, 1)
    np.testing.assert_array_equal(convolution.max_pool(x)[0, 0, :, 0], [1, 3, 5])
    assert convolution.max_pool(jnp.ones((1, 1, 1, 2))).shape == (1, 1, 1, 2)


def test_mean_pool_sums_bfloat16_in_float32():
    x = jnp.full((1, 32, 32, 1), 1.0, jnp.bfloat16).at[0, 0, 0, 0].set(3.0)
    np.testing.assert_allclose(convolution.mean_pool(x), [[1 + 2 / 1024]], rtol=1e-6)
