import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from mi_jax import models
from mi_jax.information import fit_probe
from mi_jax.measure.linear_probes import fit_probes, gains, mean_and_error, probed, rescaled_gains


def blobs(n, width, *, distance, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % 4)
    centres = np.random.default_rng(99).normal(size=(4, width)) * distance
    return (centres[y] + rng.normal(size=(n, width))).astype(np.float32), y


def test_a_linearly_decodable_factor_gives_its_entropy():
    t, y = blobs(400, 300, distance=1.0)
    probe = fit_probes(t[:200], {"f": y[:200]}, num_classes=4)["f"]
    value, _ = mean_and_error(gains(probe.log_probabilities(t[200:]), y[200:]))
    assert value == pytest.approx(np.log(4), abs=0.05)


@pytest.mark.parametrize("width", [20, 400])
def test_shuffled_labels_give_no_information(width):
    t, y = blobs(600, width, distance=1.0)
    shuffled = np.random.default_rng(5).permutation(y)
    probe = fit_probes(t[:300], {"f": shuffled[:300]}, num_classes=4)["f"]
    value, error = mean_and_error(gains(probe.log_probabilities(t[300:]), shuffled[300:]))
    assert value <= 3 * error


def test_a_narrow_layer_is_fitted_by_fit_probe():
    t, y = blobs(200, 12, distance=0.3)
    ours, theirs = fit_probes(t, {"f": y}, num_classes=4)["f"], fit_probe(t, y, num_classes=4)
    np.testing.assert_array_equal(ours.weight, theirs.weight)


def test_the_probe_of_a_wide_layer_equals_one_on_its_principal_coordinates():
    """The probe of the flattened layer and one on coordinates found by a plain SVD must agree."""
    t, y = blobs(120, 500, distance=0.15)
    probe = fit_probes(t, {"f": y}, num_classes=4)["f"]
    centred = t - t.mean(0)
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    scores = (left * lengths)[:, :119] / np.sqrt(np.mean(np.sum(centred**2, 1)))
    reference = fit_probe(scores, y, num_classes=4).log_probabilities(scores)
    np.testing.assert_allclose(probe.log_probabilities(t), reference, atol=2e-3)


def test_channel_means_let_a_probe_decode_a_texture_at_a_random_position():
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(600) % 4)
    t = 2 * rng.normal(size=(600, 8, 8, 8)).astype(np.float32)
    t[np.arange(600), :, :, y] += 0.8
    probe = fit_probes(t[:300], {"f": y[:300]}, num_classes=4)["f"]
    value, _ = mean_and_error(gains(probe.log_probabilities(t[300:]), y[300:]))
    assert value > 0.8 * np.log(4)


def test_gains_of_the_class_frequencies_are_zero():
    y = np.array([0, 0, 0, 1])
    log_q = np.log(np.tile([0.75, 0.25], (4, 1)))
    np.testing.assert_allclose(gains(log_q, y), 0, atol=2e-6)  # the uniform guess has weight 1e-6


def test_a_class_that_was_absent_in_fitting_has_a_bounded_loss():
    y = np.arange(12) % 3
    logits = np.tile([0.0, 0.0, -np.inf], (12, 1))
    frequency = np.log(1 / 3)
    want = np.array([np.log(1 / 2), np.log(1 / 2), np.log(1e-6 / 3)])[y] - frequency
    np.testing.assert_allclose(gains(logits - np.log(2), y), want, atol=2e-6)
    np.testing.assert_allclose(rescaled_gains(logits, y), 0, atol=1e-12)  # the uniform guess is better


@pytest.mark.parametrize("shape", [(40,), (300,), (8, 8, 5)])
def test_a_constant_layer_gives_the_class_frequencies(shape):
    y = np.arange(40) % 4
    for value in (0.5, 0.3):  # the mean of the second rounds
        t = np.full((40, *shape), value, np.float32)
        probe = fit_probes(t, {"f": y}, num_classes=4)["f"]
        assert not probe.weight.any()
        np.testing.assert_allclose(gains(probe.log_probabilities(t), y), 0, atol=1e-6)


def test_a_probe_of_wrong_predictions_gives_zero_and_not_a_negative_value():
    rng = np.random.default_rng(0)
    y = np.arange(400) % 4
    wrong = 8.0 * np.eye(4)[(y + rng.integers(1, 4, 400)) % 4]
    assert gains(log_softmax(wrong, axis=1), y).mean() < -5
    np.testing.assert_allclose(rescaled_gains(wrong, y), 0, atol=1e-12)


def test_rescaling_recovers_an_overconfident_probe():
    rng = np.random.default_rng(0)
    y = np.arange(2000) % 4
    said = np.where(rng.random(2000) < 0.7, y, (y + rng.integers(1, 4, 2000)) % 4)
    p = 0.7
    capacity = np.log(4) + p * np.log(p) + (1 - p) * np.log((1 - p) / 3)
    value, error = mean_and_error(rescaled_gains(50.0 * np.eye(4)[said], y))
    assert value == pytest.approx(capacity, abs=3 * error + 0.02)


def test_a_probed_network_returns_the_logits_of_the_probe():
    network = models.create("cnn", num_classes=4, input_shape=(8, 8, 3), width=0.25)
    variables = network.init(jax.random.key(0))
    x = jax.random.uniform(jax.random.key(1), (40, 8, 8, 3))
    t = np.asarray(network.apply(variables, x)[1]["dense1"])
    probe = fit_probes(t, {"f": np.arange(40) % 4}, num_classes=4)["f"]
    function = probed(network, "dense1")
    logits = function(function.variables(variables, probe), jnp.asarray(x))
    np.testing.assert_allclose(log_softmax(logits, axis=1), probe.log_probabilities(t), atol=1e-4)
    assert probed(network, "dense1") is function
