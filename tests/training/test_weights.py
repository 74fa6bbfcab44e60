"""Perturbed and averaged weights, against closed forms and NumPy."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mi_jax import attacks, data, models
from mi_jax.errors import InputError
from mi_jax.training import ObjectiveConfig, Optimizer
from mi_jax.training.weights import adversarial_weights, averaged


@pytest.fixture(scope="module")
def perceptron(trainer):
    return dataclasses.replace(
        trainer,
        network=models.create("mlp", num_classes=10, input_shape=(8, 8, 1), width=0.25),
        objective_config=ObjectiveConfig(attack=attacks.PGD(eps=0.1, steps=1, step_size=0.1, random_start=False)),
        optimizer=Optimizer(learning_rate=0.1, momentum=0.0, weight_decay=0.0, schedule="constant"),
        augmentation=data.Augmentation(),
    )


def after(trainer, arrays, cuts):
    state, states = trainer.init(arrays[0]), []
    for first, last in itertools.pairwise(cuts):
        state = trainer.advance(state, *arrays, first, last)
        states.append(jax.device_get(state))
    return states


def test_adversarial_weights_of_a_linear_model_have_their_closed_form():
    """Softmax regression: the gradient is X' (p - y) / n, the step gamma |W| along it; the bias stays."""
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal((12, 5)), rng.standard_normal((5, 3)), rng.standard_normal(3)
    y = rng.integers(0, 3, 12)

    def loss(params):
        logits = jnp.asarray(x, jnp.float32) @ params["w"] + params["b"][None]
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(y)).mean()

    params = {"w": jnp.asarray(w, jnp.float32), "b": jnp.asarray(b, jnp.float32)}
    found = adversarial_weights(params, jax.grad(loss)(params), 5e-3)
    scores = np.exp(x @ w + b)
    slope = x.T @ (scores / scores.sum(1, keepdims=True) - np.eye(3)[y]) / 12
    expected = w + 5e-3 * np.sqrt((w**2).sum()) * slope / np.sqrt((slope**2).sum())
    np.testing.assert_allclose(found["w"], expected, atol=1e-6)
    np.testing.assert_array_equal(found["b"], params["b"])


def test_a_kernel_without_slope_stays_where_it_is():
    params = {"w": jnp.ones((2, 2))}
    np.testing.assert_array_equal(adversarial_weights(params, {"w": jnp.zeros((2, 2))}, 0.1)["w"], params["w"])


def test_an_update_with_awp_steps_from_the_weights_along_the_gradient_at_the_worse_ones(perceptron, arrays):
    """The first update written out: images attacked at the weights themselves, the gradient taken beyond them."""
    trainer = dataclasses.replace(perceptron, awp=0.05)
    before = trainer.init(arrays[0])["variables"]["params"]
    _, order_key, _ = jax.random.split(jax.random.key(0), 3)
    rows = data.epoch_order(order_key, 0, len(arrays[0]))[: trainer.batch_size]
    x, y = data.to_float(arrays[0][rows]), arrays[1][rows]

    def loss(params, images):
        logits = trainer.network.logits({"params": params, "batch_stats": {}}, images)
        return jnp.mean(optax.losses.softmax_cross_entropy_with_integer_labels(logits, y))

    adversarial = jnp.clip(x + 0.1 * jnp.sign(jax.grad(loss, 1)(before, x)), 0, 1)
    worse = adversarial_weights(before, jax.grad(loss)(before, adversarial), 0.05)
    expected = jax.tree.map(lambda w, g: w - 0.1 * g, before, jax.grad(loss)(worse, adversarial))
    (state,) = after(trainer, arrays, [0, 1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), state["variables"]["params"], expected)
    assert float(state["totals"]["loss"]) == pytest.approx(float(loss(worse, adversarial)), rel=1e-5)
    assert float(loss(worse, adversarial)) > float(loss(before, adversarial))


def test_normal_training_ignores_awp(perceptron, arrays):
    normal = dataclasses.replace(perceptron, objective="nt")
    with_awp = dataclasses.replace(normal, awp=0.05)
    jax.tree.map(np.testing.assert_array_equal, after(normal, arrays, [0, 3]), after(with_awp, arrays, [0, 3]))


def test_the_average_is_that_of_numpy_and_leaves_the_training_as_it_is(perceptron, arrays):
    averaging = dataclasses.replace(perceptron, average=0.6)
    expected = jax.device_get(averaging.init(arrays[0])["variables"])
    plain = after(perceptron, arrays, range(11))
    states = after(averaging, arrays, range(11))
    for update, state in enumerate(states):
        kept = min(0.6, (1 + update) / (10 + update))
        expected = jax.tree.map(lambda old, new, kept=kept: kept * old + (1 - kept) * new, expected, state["variables"])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state["average"], expected)
    jax.tree.map(np.testing.assert_array_equal, averaging.evaluated(states[-1]), states[-1]["average"])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), states[-1]["variables"], plain[-1]["variables"]
    )


def test_running_statistics_are_averaged_like_the_weights_and_soon_forget_the_start():
    start = {"params": {"w": jnp.ones(3)}, "batch_stats": {"var": jnp.full(3, 5.0)}}
    new = {"params": {"w": jnp.zeros(3)}, "batch_stats": {"var": jnp.ones(3)}}
    first = averaged(start, new, jnp.int32(0), 0.995)
    np.testing.assert_allclose(first["params"]["w"], 0.1, rtol=1e-6)
    np.testing.assert_allclose(first["batch_stats"]["var"], 1.4, rtol=1e-6)
    late = averaged(start, new, jnp.int32(10**6), 0.995)
    np.testing.assert_allclose(late["batch_stats"]["var"], 4.98, rtol=1e-5)


def test_averaged_training_in_chunks_of_any_length_gives_the_same_bits(perceptron, arrays):
    trainer = dataclasses.replace(perceptron, average=0.9, awp=0.01, seeds=(3,))
    whole, pieces = after(trainer, arrays, [0, 10])[-1], after(trainer, arrays, [0, 1, 4, 10])[-1]
    jax.tree.map(np.testing.assert_array_equal, whole, pieces)


def test_seeds_side_by_side_keep_an_average_each(perceptron, arrays):
    trainer = dataclasses.replace(perceptron, average=0.9, awp=0.01)
    together = dataclasses.replace(trainer, seeds=(3, 5))
    state = together.advance(together.init(arrays[0]), *arrays, 0, 4)
    for seed, member in together.members(state):
        alone = after(dataclasses.replace(trainer, seeds=(seed,)), arrays, [0, 4])[-1]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), member["average"], alone["average"])


@pytest.mark.parametrize(("name", "value"), [("awp", -0.1), ("awp", float("nan")), ("average", 1.0)])
def test_sizes_and_decays_out_of_range_are_refused(perceptron, name, value):
    with pytest.raises(InputError, match=rf"Invalid {name} {value}: expected a number in \[0, 1\)"):
        dataclasses.replace(perceptron, **{name: value})
