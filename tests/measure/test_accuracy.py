"""Accuracy under the final attack: independent of the batch size, and the worst of its restarts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax import models
from mi_jax.attacks import PGD, pgd
from mi_jax.measure.accuracy import misclassified_under, performance, robustness, transfer


@pytest.fixture(scope="module")
def case():
    network = models.create("mlp", num_classes=4, input_shape=(6, 6, 1), width=0.25)
    images = jax.random.uniform(jax.random.key(4), (24, 6, 6, 1))
    variables = network.init(jax.random.key(3))
    return network, variables, images, jnp.argmax(network.logits(variables, images), axis=1).astype(jnp.int32)


@pytest.mark.parametrize(("norm", "tolerance"), [("linf", 0.0), ("l2", 1e-6)])
def test_adversarial_images_do_not_depend_on_the_batch_size(case, norm, tolerance):
    attack = PGD(norm=norm, eps=0.1, steps=3, step_size=0.05, restarts=2)
    made = [robustness(*case, jax.random.key(0), attack=attack, batch_size=size) for size in (7, 250)]
    np.testing.assert_allclose(*(np.asarray(images) for _, images in made), rtol=0, atol=tolerance)
    assert made[0][0] == made[1][0]


def test_every_image_and_restart_has_its_own_random_start(case):
    network, variables, images, labels = case
    same = jnp.broadcast_to(images[:1], images.shape)
    attack = PGD(eps=0.1, steps=1, step_size=1e-6)
    _, made = robustness(network, variables, same, labels[:1].repeat(24), jax.random.key(0), attack=attack)
    assert len(np.unique(np.asarray(made).reshape(24, -1), axis=0)) == 24
    assert np.abs(np.asarray(made - same)).max() <= 0.1 + 1e-6


def test_an_attack_without_random_start_is_plain_pgd(case):
    network, variables, images, labels = case
    attack = PGD(eps=0.05, steps=3, step_size=0.02, random_start=False)
    rows, made = robustness(*case, jax.random.key(0), attack=attack)
    plain = pgd(network.logits, variables, images, labels, config=attack)
    np.testing.assert_allclose(made, plain.images, atol=1e-6)
    assert rows[1].value == pytest.approx(1 - float(np.mean(plain.success)))


def test_an_image_that_is_misclassified_without_an_attack_is_not_robust(case):
    # Rounded pixels have no gradient, and the random start leads misclassified images back to their class.
    images = case[2]
    weights = jax.random.normal(jax.random.key(5), (36, 4))
    network, variables = models.from_function(
        lambda w, x: (jnp.round(4 * x) / 4 - 0.5).reshape(len(x), -1) @ w, weights, input_shape=(6, 6, 1)
    )
    attack, key = PGD(eps=0.3, steps=1), jax.random.key(0)
    order = jnp.argsort(network.logits(variables, images), axis=1)
    labels = jnp.where(jnp.arange(24) % 2, order[:, -1], order[:, -2])  # every second image is misclassified
    found = pgd(network.logits, variables, images, labels, key, config=attack, index=np.arange(24))
    moved = np.asarray(found.predictions == labels)
    robust = moved & (np.arange(24) % 2 == 1)
    assert 0 < robust.sum() < moved.sum()
    np.testing.assert_array_equal(found.success, ~robust)
    (clean, attacked), _ = robustness(network, variables, images, labels, key, attack=attack)
    assert (clean.value, attacked.value) == (0.5, pytest.approx(robust.mean()))
    np.testing.assert_array_equal(misclassified_under(network, variables, images, labels, key, attack=attack), ~robust)


def test_a_single_image_has_a_loss_without_an_error(case):
    network, variables, images, labels = case
    loss, accuracy = performance(network, variables, images[:1], labels[:1], inputs="clean")
    expected = -jax.nn.log_softmax(network.logits(variables, images[:1]))[0, labels[0]]
    assert (loss.ok, loss.value, loss.stderr, loss.blocks) == (True, pytest.approx(float(expected)), None, None)
    assert (accuracy.value, accuracy.blocks) == (1.0, None)


def test_columns_of_the_records_identify_the_measurement(case):
    attack = PGD(norm="l2", eps=0.5, steps=3, step_size=0.2, restarts=2)
    rows, made = robustness(*case, jax.random.key(0), attack=attack)
    columns = [(row.image_set, row.inputs, row.attack, row.eps, row.attack_steps, row.restarts) for row in rows]
    assert columns == [("test", "clean", None, None, None, None), ("test", "adversarial", "pgd", 0.5, 3, 2)]
    network, variables, _, labels = case
    row = transfer(network, variables, made, labels, source="at", attack=attack)
    assert (row.quantity, row.source, row.norm) == ("transfer_accuracy", "at", "l2")
