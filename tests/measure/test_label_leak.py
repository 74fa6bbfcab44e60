"""Adversarial examples made with the label, and without it: what they tell of a label that the image does not know."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mi_jax as mj
from mi_jax.attacks import PGD
from mi_jax.measure.accuracy import adversarial_examples, attack_columns, label_free_examples
from mi_jax.measure.information import InformationConfig, frozen_noise_variances, label_free_information
from mi_jax.records.labels import LABEL_FREE_ATTACKS, attack_label
from mi_jax.training import predictions

N, CLASSES = 200, 4
ATTACK = PGD(eps=0.3, steps=10, step_size=0.1)


@pytest.fixture(scope="module")
def untrained():
    """An untrained network, images of noise, and labels that are drawn without regard to them."""
    network = mj.models.create("mlp", num_classes=CLASSES, input_shape=(6, 6, 1), width=0.5)
    random = np.random.default_rng(0)
    images = random.uniform(0.3, 0.7, (N, 6, 6, 1)).astype(np.float32)
    return network, network.init(jax.random.key(0)), jnp.asarray(images), jnp.arange(N) % CLASSES


@pytest.fixture(scope="module")
def label_free(untrained):
    network, variables, images, _ = untrained
    return label_free_examples(network, variables, images, jax.random.key(1), attack=ATTACK)


def test_an_attack_that_knows_the_label_writes_it_into_the_image_and_others_do_not(untrained, label_free):
    network, variables, images, labels = untrained
    shown = {"clean": images, "pgd": adversarial_examples(network, variables, images, labels, attack=ATTACK)}
    shown |= label_free
    logits = {name: np.asarray(predictions(network, variables, inputs)) for name, inputs in shown.items()}
    found = {}
    for name, t in logits.items():
        noise = mj.information.noise_variance(t, rule="trace")
        found[name] = mj.information.kde(t, labels, noise_variance=noise).i_ty_upper
    assert found["pgd"] > 0.3 * np.log(CLASSES)
    for name in ("clean", *LABEL_FREE_ATTACKS):
        assert found[name] < 0.1 * np.log(CLASSES)


def test_label_free_examples_stay_in_the_ball_and_reach_their_aim(untrained, label_free):
    network, variables, images, _ = untrained
    predicted = np.argmax(predictions(network, variables, images), -1)
    for name in LABEL_FREE_ATTACKS:
        assert np.abs(label_free[name] - images).max() <= ATTACK.eps + 1e-6
    away, towards = (np.argmax(predictions(network, variables, label_free[name]), -1) for name in LABEL_FREE_ATTACKS)
    assert np.mean(away == predicted) < 0.05
    assert np.mean(towards == predicted) < 0.3
    shares = np.bincount(towards, minlength=CLASSES) / N
    assert shares.max() < 0.5, "an attack away from the prediction ends in the nearest class, this one in a random one"


def test_records_of_label_free_inputs_name_their_attack(untrained):
    network, variables, images, labels = untrained
    config = InformationConfig(noise=("fixed", "scale_free"))
    frozen = frozen_noise_variances(network, variables, images, config=config)
    rows = label_free_information(
        network, variables, images, labels, jax.random.key(1), noise_variances=frozen, config=config, attack=ATTACK
    )
    assert {row.attack for row in rows} == set(LABEL_FREE_ATTACKS)
    bounds = [row for row in rows if "leave_one_out" not in row.quantity]  # those are rows where they are finite
    assert len(bounds) == 2 * len(network.layers) * 2 * 6  # attacks, layers, noise rules, quantities
    assert {attack_label({**attack_columns(ATTACK), "attack": name}) for name in LABEL_FREE_ATTACKS} == {
        "PGD-10 Linf 76.5/255 on the prediction",
        "PGD-10 Linf 76.5/255 towards a random class",
    }
