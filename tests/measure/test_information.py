"""Information plane records: host and device activations, memory, classes and noise rules."""

import dataclasses
import weakref

import jax.numpy as jnp
import numpy as np
import pytest

import mi_jax as mj
from mi_jax import batches, data
from mi_jax.attacks import PGD
from mi_jax.claims.same_trend import FEWEST_EPOCHS
from mi_jax.errors import InputError
from mi_jax.information import NOISE_RULES
from mi_jax.measure import information as plane
from mi_jax.measure.information import InformationConfig, frozen_noise_variances, information_plane
from mi_jax.runs.config import preset

ATTACK = PGD(steps=1)
CONFIG = InformationConfig(noise=("fixed", "trace", "median", "scale_free"))


@pytest.fixture
def measure(key):
    """Measures an untrained network on 60 digits, with 60 others in place of their adversarial examples."""
    digits = mj.data.load("digits", limit=120).train
    network = mj.models.create("mlp", num_classes=10, input_shape=(8, 8, 1), width=0.1)
    variables, images, labels = (
        network.init(key),
        data.to_float(jnp.asarray(digits.images)),
        jnp.asarray(digits.labels[:60]),
    )

    def rows(config=CONFIG):
        noise_variances = frozen_noise_variances(network, variables, images[:60], config=config)
        return information_plane(
            network,
            variables,
            images[:60],
            images[60:],
            labels,
            noise_variances=noise_variances,
            config=config,
            attack=ATTACK,
        )

    return rows


def test_activations_on_the_host_give_the_same_rows(measure, monkeypatch):
    on_device, layers, kinds = measure(), plane._layers, set()

    def watched(taps, *arguments):
        kinds.update(type(tap) for tap in taps.values())
        return layers(taps, *arguments)

    monkeypatch.setattr(batches, "DEVICE_BYTES", 1)
    monkeypatch.setattr(plane, "_layers", watched)
    on_host = measure()
    assert kinds == {np.ndarray}
    certain = [row for row in on_host if "leave_one_out" not in row.quantity]  # those are rows where they are finite
    assert len(certain) == 5 * (2 * (4 * 6 + 2) + 10)  # layers; inputs, noise rules x quantities and binning; classes
    assert on_host == on_device


def test_distances_have_the_precision_of_the_configuration(measure):
    usual, split = measure(), measure(dataclasses.replace(CONFIG, precision="bfloat16x3"))
    estimates = [(a, b) for a, b in zip(usual, split, strict=True) if a.estimator == "kde" and a.class_ is None]
    for a, b in estimates:
        if a.quantity == "i_ty_certified_upper":  # widened by what rounding may have done to each of its parts
            assert b.value > a.value - 1e-9
        elif a.quantity != "i_ty_certified_lower":
            assert a.value == pytest.approx(b.value, abs=b.numerical_error), a.quantity
    assert any(b.numerical_error > 100 * a.numerical_error for a, b in estimates)
    with pytest.raises(InputError, match=r"information\.precision 'half': expected one of"):
        InformationConfig(precision="half")  # pyright: ignore[reportArgumentType]


def test_clean_activations_are_freed_before_the_adversarial_ones_are_computed(measure, monkeypatch):
    made, activations = [], plane.activations

    def watched(*arguments):
        assert [reference() for reference in made] == [None] * len(made)
        taps = {layer: np.array(tap) for layer, tap in activations(*arguments).items()}
        made.extend(map(weakref.ref, taps.values()))
        return taps

    monkeypatch.setattr(plane, "activations", watched)
    measure()
    assert len(made) == 3 * 5  # of the noise rules, of clean images, of their adversarial examples; layers


def test_records_of_a_class_count_and_saturate_by_its_own_images():
    tap, labels = jnp.asarray([[0.0], [0.1], [10.0], [20.0], [30.0]], jnp.float32), jnp.asarray([0, 0, 1, 1, 1])
    rows = plane.kde_records(tap, labels, {"fixed": 9.0, "trace": 0.1}, num_classes=2, by_class=True)
    found = {row.class_: row for row in rows if row.quantity == "i_tx_given_y_upper"}
    assert [(row.n, row.saturated, row.noise_rule) for row in found.values()] == [
        (2, False, "trace"),
        (3, True, "trace"),
    ]
    assert found[1].value == pytest.approx(np.log2(3))
    (whole,) = (row for row in rows if row.quantity == "i_tx_upper" and row.noise_rule == "trace")
    errors = [whole.numerical_error * 5 / row.n for row in found.values()]
    assert whole.numerical_error > 0
    assert [row.numerical_error for row in found.values()] == pytest.approx(errors, rel=1e-12)


def test_a_class_without_images_has_no_records(key):
    tap, labels = jnp.asarray(np.random.default_rng(0).standard_normal((40, 3)), jnp.float32), jnp.arange(40) % 3
    rows = plane.kde_records(tap, labels, {"fixed": 0.1}, num_classes=5, by_class=True, layer="a", inputs="clean", n=40)
    assert {row.class_ for row in rows if row.quantity == "i_tx_given_y_upper"} == {0, 1, 2}


def test_a_registered_noise_rule_can_be_configured_and_gives_its_variance(key):
    images = data.to_float(jnp.asarray(mj.data.load("digits", limit=40).train.images))
    network = mj.models.create("mlp", num_classes=10, input_shape=(8, 8, 1), width=0.1)
    NOISE_RULES.register("seven", lambda t: 7.0)
    try:
        config = InformationConfig(noise=("seven",))
        variances = frozen_noise_variances(network, network.init(key), images, config=config)
    finally:
        NOISE_RULES.unregister("seven")
    assert variances == {"seven": dict.fromkeys(network.layers, 7.0)}
    with pytest.raises(InputError, match="scale_free"):
        InformationConfig(noise=("seven",))


@pytest.mark.parametrize("last", [10, 11, 30, 99, 100, 200, 999])
def test_ten_or_more_epochs_are_measured_at_enough_of_them_for_a_trend(last):
    epochs = InformationConfig().schedule(last)
    assert len(epochs) - 1 >= FEWEST_EPOCHS
    assert (epochs[0], epochs[1], epochs[-1]) == (0, 1, last)
    assert len(epochs) <= 13


def test_the_paper_preset_can_decide_the_claim_of_one_trend():
    config = preset("paper", dataset="cifar10", arch="vgg")
    assert len(config.information.schedule(config.epochs)) - 1 >= FEWEST_EPOCHS
