"""A folded network computes what the network does, and its layers the same gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax import models
from mi_jax.errors import InputError
from mi_jax.models.layers import BatchNorm, ForwardContext, ModelSpec, relu

CREATE = functools.partial(models.create, num_classes=3, input_shape=(4, 4, 2), width=0.125, convolution="lax")


@pytest.mark.parametrize("arch", ["vgg11", "resnet18", "wrn-10-1", "cnn"])
def test_a_folded_network_gives_the_logits_activations_and_gradients_of_the_network(arch, key):
    network = CREATE(arch)
    shapes = jax.eval_shape(network.init, key)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.2, 1, leaf.shape), jnp.float32), shapes)
    variables["params"] = jax.tree.map(lambda leaf: leaf - 0.6, variables["params"])
    x = jnp.asarray(rng.uniform(size=(3, 4, 4, 2)), jnp.float32)

    @jax.jit
    def both(variables, x):
        def outputs(network, variables):
            logits, pull, taps = jax.vjp(lambda x: network.apply(variables, x), x, has_aux=True)
            return logits, pull(jnp.cos(logits))[0], dict(taps)

        return outputs(network, variables), outputs(*network.fold(variables))

    expected, actual = both(variables, x)
    for plain, folded in zip(jax.tree.leaves(expected), jax.tree.leaves(actual), strict=True):
        np.testing.assert_allclose(folded, plain, atol=2e-5 * np.abs(plain).max(), rtol=1e-5)


def test_a_folded_network_has_no_statistics_and_weights_of_its_dtype_and_cannot_be_trained(key):
    network = CREATE("vgg11", dtype="bfloat16")
    variables = jax.eval_shape(network.init, key)
    folded = network.fold(variables := jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), variables))
    assert folded[1]["batch_stats"] == {}
    assert folded[1]["params"]["conv1"]["conv"]["kernel"].dtype == jnp.bfloat16
    assert folded[1]["params"]["head"]["kernel"].dtype == jnp.float32
    assert folded[0].fold(folded[1]) == folded
    with pytest.raises(InputError, match="A folded network supports only evaluation mode"):
        folded[0].apply_train(folded[1], jnp.ones((1, 4, 4, 2)), key)
    with pytest.raises(InputError, match="The variables do not fit"):
        folded[0].logits(variables, jnp.ones((1, 4, 4, 2)))


def test_relu_has_the_values_and_gradients_of_jax():
    x = jnp.array([-2.0, -0.0, 0.0, 1e-30, 3.0, jnp.inf])
    for ours, theirs in zip(*(jax.vjp(f, x) for f in (relu, jax.nn.relu)), strict=True):
        arrays = (g(jnp.ones_like(x))[0] if callable(g) else g for g in (ours, theirs))
        np.testing.assert_array_equal(*arrays)


def test_batch_statistics_of_channels_far_from_zero_lose_little_to_rounding(key):
    x = jax.random.normal(key, (64, 4, 4, 2)) + jnp.array([0.0, 300.0])[None, None, None]
    norm = BatchNorm(2, ModelSpec(2, (4, 4, 2)))
    norm.mean[...] = jnp.array([0.0, 290.0])
    y = norm(x, ForwardContext(train=True))
    wide = np.asarray(x, np.float64).reshape(-1, 2)
    np.testing.assert_allclose(np.asarray(y).reshape(-1, 2), (wide - wide.mean(0)) / wide.std(0), atol=1e-3)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * wide.var(axis=0, ddof=1), rtol=1e-4)
