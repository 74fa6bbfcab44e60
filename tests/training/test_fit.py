"""The host-side loop: every epoch is reported, an interruption saves the state, and divergence or bad data raise."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from mi_jax import data
from mi_jax.errors import InputError
from mi_jax.training import Diverged, Interrupted, Optimizer, evaluate, fit, predictions


def test_training_learns_real_digits_and_reports_each_epoch(normal_trainer, arrays, digits):
    trainer = dataclasses.replace(normal_trainer, epochs=30, augmentation=data.Augmentation())
    ends = []
    state = fit(
        trainer,
        trainer.init(arrays[0]),
        *arrays,
        after_chunk=lambda _, progress: ends.append(progress) if progress.ends_epoch else None,
    )
    assert [round(progress.epoch) for progress in ends] == list(range(1, 31))
    assert [progress.step for progress in ends] == [10 * k for k in range(1, 31)]
    assert ends[-1].loss[0] < 0.5 * ends[0].loss[0]
    _, accuracy = evaluate(
        trainer.network, state["variables"], digits.test.images / np.float32(255), digits.test.labels
    )
    assert accuracy > 0.8


def test_an_interrupted_training_resumes_to_the_same_bits(trainer, arrays):
    whole = fit(trainer, trainer.init(arrays[0]), *arrays, after_chunk=lambda *_: None)
    kept = []

    def keep(state, progress):
        kept.append((jax.device_get(state), progress.step))

    with pytest.raises(Interrupted):
        fit(trainer, trainer.init(arrays[0]), *arrays, after_chunk=keep, stop_asked=lambda: len(kept) == 1)
    state, step = kept[-1]
    assert 0 < step < trainer.total_steps
    rest = fit(trainer, jax.tree.map(jnp.asarray, state), *arrays, first_step=step, after_chunk=lambda *_: None)
    jax.tree.map(np.testing.assert_array_equal, rest, whole)


def test_a_loss_that_is_no_number_ends_the_training(normal_trainer, arrays):
    trainer = dataclasses.replace(
        normal_trainer, optimizer=Optimizer(learning_rate=1e30, schedule="constant", momentum=0.0)
    )
    with pytest.raises(Diverged, match="the loss of seed 0"):
        fit(trainer, trainer.init(arrays[0]), *arrays, after_chunk=lambda *_: None)


def test_predictions_do_not_depend_on_the_batching(normal_trainer, arrays, digits):
    variables = normal_trainer.init(arrays[0])["variables"]
    images = jnp.asarray(digits.test.images[:300] / np.float32(255))
    logits = predictions(normal_trainer.network, variables, images)
    np.testing.assert_allclose(logits, normal_trainer.network.logits(variables, images), atol=1e-5)
    assert logits.shape == (300, 10)
    compiled = jax.jit(functools.partial(predictions, normal_trainer.network))(variables, images[:2])
    np.testing.assert_allclose(compiled, logits[:2], atol=1e-5)
    host = np.asarray(images[:2])
    for given in (host, host.tolist(), torch.tensor(host)):
        np.testing.assert_allclose(predictions(normal_trainer.network, variables, given), logits[:2], atol=1e-5)
    with pytest.raises(InputError, match="Images must hold at least one pixel"):
        predictions(normal_trainer.network, variables, images[:0])
    with pytest.raises(InputError, match=r"network must be a mi_jax\.models\.Network, not NoneType"):
        predictions(None, variables, images)  # pyright: ignore[reportArgumentType]


def test_evaluate_gives_the_mean_cross_entropy_and_the_accuracy(normal_trainer, arrays):
    variables = normal_trainer.init(arrays[0])["variables"]
    x, y = data.to_float(arrays[0][:50]), np.asarray(arrays[1][:50])
    logits = np.asarray(normal_trainer.network.logits(variables, x), np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    loss, accuracy = evaluate(normal_trainer.network, variables, x, y)
    assert loss == pytest.approx(-log_probabilities[np.arange(50), y].mean(), abs=1e-5)
    assert accuracy == np.mean(logits.argmax(-1) == y)


def test_an_image_without_a_prediction_is_misclassified(normal_trainer, arrays):
    variables = jax.tree.map(jnp.copy, normal_trainer.init(arrays[0])["variables"])
    x, y = data.to_float(arrays[0][:50]), np.zeros(50, np.int32)
    variables["params"]["head"]["bias"] = jnp.full(10, -jnp.inf).at[0].set(0)  # masks all classes but the first
    assert evaluate(normal_trainer.network, variables, x, y)[1] == 1
    for broken in (jnp.nan, jnp.inf):
        variables["params"]["head"]["bias"] = jnp.zeros(10).at[0].set(broken)
        assert evaluate(normal_trainer.network, variables, x, y)[1] == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x, y: (x, y + 1), r"Labels must lie in 0\.\.9"),
        (lambda x, y: (x, y - 1), r"Labels must lie in 0\.\.9"),
        (lambda x, y: (x, y[:1]), r"Labels must be integers of shape \[50\]"),
        (lambda x, y: (x, y[:, None]), r"Labels must be integers of shape \[50\]"),
        (lambda x, y: (x, np.eye(10)[y]), "Labels must be integers"),
        (lambda x, y: (x * 255, y), r"Images must lie in \[0, 1\]"),
        (lambda x, y: (x * np.nan, y), r"Images must lie in \[0, 1\]"),
        (lambda x, y: (x[:0], y[:0]), "Images must hold at least one pixel"),
        (lambda x, y: ((x * 255).astype(np.uint8), y), "divide 8-bit pixels by 255"),
    ],
)
def test_evaluate_refuses_images_and_labels_that_do_not_fit(normal_trainer, arrays, digits, change, sentence):
    variables = normal_trainer.network.init(jax.random.key(0))
    x, y = digits.test.images[:50] / np.float32(255), digits.test.labels[:50]
    with pytest.raises(InputError, match=sentence):
        evaluate(normal_trainer.network, variables, *change(x, y))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x, y: (x / 255, y), r"must be uint8 of shape \[320, 8, 8, 1\]"),
        (lambda x, y: (x[:-1], y[:-1]), r"must be uint8 of shape \[320, 8, 8, 1\]"),
        (lambda x, y: (x, y + 1), r"Labels must lie in 0\.\.9"),
        (lambda x, y: (x, y[:-1]), r"Labels must be integers of shape \[320\]"),
    ],
)
def test_fit_refuses_images_and_labels_that_do_not_fit(normal_trainer, arrays, change, sentence):
    with pytest.raises(InputError, match=sentence):
        fit(normal_trainer, {}, *change(*arrays), after_chunk=lambda *_: None)


def test_noise_training_adds_gaussian_noise_of_the_given_size(trainer):
    objective_config = dataclasses.replace(trainer.objective_config, noise=0.05)
    x = jnp.full((64, 8, 8, 1), 0.5)
    variables = {"params": {}, "batch_stats": {}}
    noisy, _ = objective_config.objective("noise").perturb(
        trainer.network, variables, x, jnp.zeros(64, jnp.int32), jax.random.key(0), objective_config
    )
    assert float(jnp.std(noisy - x)) == pytest.approx(0.05, rel=0.05)
    assert float(noisy.min()) >= 0
    assert float(noisy.max()) <= 1
