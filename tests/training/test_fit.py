"""The host's loop: every epoch is reported, a wish to stop is met with the state at hand, nonsense ends it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax import data
from mi_jax.training import Diverged, Interrupted, Optimizer, evaluate, fit, predictions
from mi_jax.training.objectives import OBJECTIVES


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


def test_a_wish_to_stop_is_met_after_the_chunk_and_the_rest_gives_the_same_bits(trainer, arrays):
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


def test_evaluate_gives_the_mean_cross_entropy_and_the_accuracy(normal_trainer, arrays):
    variables = normal_trainer.init(arrays[0])["variables"]
    x, y = arrays[0][:50] / jnp.float32(255), np.asarray(arrays[1][:50])
    logits = np.asarray(normal_trainer.network.logits(variables, x), np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    loss, accuracy = evaluate(normal_trainer.network, variables, x, y)
    assert loss == pytest.approx(-log_probabilities[np.arange(50), y].mean(), abs=1e-5)
    assert accuracy == np.mean(logits.argmax(-1) == y)


def test_noise_training_adds_gaussian_noise_of_the_given_size(trainer):
    objective_config = dataclasses.replace(trainer.objective_config, noise=0.05)
    x = jnp.full((64, 8, 8, 1), 0.5)
    variables = {"params": {}, "batch_stats": {}}
    noisy, _ = OBJECTIVES["noise"].perturb(
        trainer.network, variables, x, jnp.zeros(64, jnp.int32), jax.random.key(0), objective_config
    )
    assert float(jnp.std(noisy - x)) == pytest.approx(0.05, rel=0.05)
    assert float(noisy.min()) >= 0
    assert float(noisy.max()) <= 1
