"""Compiled training: the same numbers whatever the chunks, the company and the devices."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest

from mi_jax import attacks, data
from mi_jax.errors import InputError
from mi_jax.optax_update import update
from mi_jax.training import epoch
from mi_jax.training import optimizer as optimizers
from mi_jax.training.objectives import OBJECTIVES, register


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_close(a, b, tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=tolerance, rtol=0), a, b)


def run(trainer, arrays, cuts):
    state = trainer.init(arrays[0])
    for first, last in itertools.pairwise(cuts):
        state = trainer.advance(state, *arrays, first, last)
    return state


def test_chunks_of_any_length_give_the_same_bits(trainer, arrays):
    n = trainer.steps_per_epoch
    assert n == 10
    whole = run(trainer, arrays, [0, n, 2 * n])
    pieces = run(trainer, arrays, [0, 1, 4, n, n + 3, 2 * n])
    assert_same(whole, pieces)


def test_all_chunks_and_seeds_share_one_compiled_program(trainer, arrays):
    before = epoch._advance._cache_size()
    run(trainer, arrays, [0, 2, 5])
    run(dataclasses.replace(trainer, seeds=(7,)), arrays, [0, 3])
    assert epoch._advance._cache_size() <= max(before, 1)


def test_a_chunk_over_an_epoch_boundary_is_a_mistake(trainer, arrays):
    with pytest.raises(ValueError, match="not of one epoch"):
        trainer.advance(trainer.init(arrays[0]), *arrays, 8, 12)


def test_the_untrained_network_depends_on_the_seed_alone(trainer, normal_trainer, arrays):
    assert_same(trainer.init(arrays[0])["variables"], normal_trainer.init(arrays[0])["variables"])
    other = dataclasses.replace(trainer, seeds=(1,)).init(arrays[0])["variables"]
    kernels = jax.tree.leaves(trainer.init(arrays[0])["variables"]["params"])
    assert not np.array_equal(kernels[-1], jax.tree.leaves(other["params"])[-1])


def test_seeds_side_by_side_equal_seeds_in_turn(trainer, arrays):
    together = dataclasses.replace(trainer, seeds=(3, 5))
    state = run(together, arrays, [0, 4])
    for seed, member in together.members(state):
        alone = run(dataclasses.replace(trainer, seeds=(seed,)), arrays, [0, 4])
        assert_close(member["variables"], alone["variables"], 2e-5)
        assert_close(member["totals"], alone["totals"], 1e-4)
    assert_same(together.join([member for _, member in together.members(state)]), state)


def test_perturbations_grow_from_nothing_over_the_warmup(trainer, arrays):
    """The first of two updates of warmup trains on perturbations of half the length."""
    found = run(dataclasses.replace(trainer, attack_warmup=0.2), arrays, [0, 1])["totals"]["loss"]
    kind = OBJECTIVES["at"]

    @register("half-length")
    class HalfLength(kind):
        def perturb(self, network, variables, x, *rest):
            perturbed, statistics = super().perturb(network, variables, x, *rest)
            return x + 0.5 * (perturbed - x), statistics

    expected = run(dataclasses.replace(trainer, objective="half-length"), arrays, [0, 1])["totals"]["loss"]
    OBJECTIVES.unregister("half-length")
    whole_length = run(trainer, arrays, [0, 1])["totals"]["loss"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert abs(float(found - whole_length)) > 0.01


def test_a_negative_warmup_is_refused(trainer):
    with pytest.raises(InputError, match=r"Invalid attack_warmup -1\.0: expected a number of at least 0"):
        dataclasses.replace(trainer, attack_warmup=-1.0)


def test_one_update_is_the_one_written_out_by_hand(normal_trainer, arrays):
    """The first update of normal training without augmentation, from its parts."""
    trainer = dataclasses.replace(normal_trainer, augmentation=data.Augmentation())
    images, labels = arrays
    state = trainer.init(images)
    _, order_key, _ = jax.random.split(jax.random.key(0), 3)
    rows = data.epoch_order(order_key, 0, len(images))[:32]
    x, y = data.to_float(images[rows]), labels[rows]
    before = state["variables"]

    def loss(params):
        logits, _, moved = trainer.network.apply_train({**before, "params": params}, x, jax.random.key(0))
        return jnp.mean(optax.losses.softmax_cross_entropy_with_integer_labels(logits, y)), moved

    (value, moved), gradient = jax.value_and_grad(loss, has_aux=True)(before["params"])
    rule = optimizers.build(trainer.optimizer, epochs=3, steps_per_epoch=10)
    moved_to, _ = update(rule, gradient, rule.init(before["params"]), before["params"])
    expected = {"params": moved_to, "batch_stats": moved}
    after = trainer.advance(trainer.init(images), images, labels, 0, 1)
    assert_close(after["variables"], expected, 1e-6)
    assert float(after["totals"]["loss"]) == pytest.approx(float(value), abs=1e-5)


def test_the_totals_are_of_the_current_epoch(trainer, arrays):
    state = run(trainer, arrays, [0, 10, 12])
    assert float(state["totals"]["updates"]) == 2.0


def test_calibrated_statistics_are_those_of_the_first_images(normalised_trainer, arrays):
    """In evaluation mode the untrained network then does on these images what it does in training mode."""
    trainer = normalised_trainer
    variables = trainer.init(arrays[0])["variables"]
    x = data.to_float(arrays[0][: epoch._CALIBRATION_IMAGES])
    evaluated, _ = trainer.network.apply(variables, x)
    trained, _, _ = trainer.network.apply_train(variables, x, jax.random.key(0))
    # The running variance is unbiased (n - 1), that of the batch is not.
    np.testing.assert_allclose(evaluated, trained, atol=5e-3)


@pytest.mark.parametrize("mode", ["eval", "batch", "batch_update"])
def test_batch_norm_in_the_attack_is_in_the_mode_that_was_asked_for(normalised_trainer, arrays, mode):
    """Against an attack written out with the mode's statistics, which move in `batch_update` alone."""
    trainer = normalised_trainer
    objective_config = dataclasses.replace(trainer.objective_config, batch_norm=mode)
    objective_config = dataclasses.replace(
        objective_config, attack=attacks.PGD(eps=0.1, steps=1, step_size=0.05, random_start=False)
    )
    variables = trainer.init(arrays[0])["variables"]
    x, y = data.to_float(arrays[0][:16]) * 0.5, arrays[1][:16]
    found, statistics = objective_config.objective("at").perturb(
        trainer.network, variables, x, y, jax.random.key(1), objective_config
    )

    def loss(images):
        if mode == "eval":
            logits, _ = trainer.network.apply(variables, images)
        else:
            logits, _, _ = trainer.network.apply_train(variables, images, jax.random.key(1))
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, y).sum()

    expected = jnp.clip(x + 0.05 * jnp.sign(jax.grad(loss)(x)), 0, 1)
    assert float(jnp.mean(jnp.abs(found - expected) < 1e-6)) > 0.999
    moved = any(
        not np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(statistics), jax.tree.leaves(variables["batch_stats"]), strict=True)
    )
    assert moved == (mode == "batch_update")


@pytest.mark.parametrize(
    ("seeds", "sentence"),
    [
        ((), r"Invalid seeds \(\): expected at least one, all different"),
        ((1, 2, 1), r"Invalid seeds \(1, 2, 1\): expected at least one, all different"),
        ((-1,), "Invalid seed -1: expected a whole number of at least 0"),
        ((0, 2**32), "Invalid seed 4294967296: expected a whole number of at most 4294967295"),
        ((0.5,), r"Invalid seed 0\.5: expected a whole number"),
    ],
)
def test_seeds_that_give_no_networks_of_their_own_are_refused(trainer, seeds, sentence, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it would refuse a fraction first
    with pytest.raises(InputError, match=sentence):
        dataclasses.replace(trainer, seeds=seeds)
    assert dataclasses.replace(trainer, seeds=(0, 2**32 - 1)).seeds == (0, 2**32 - 1)


def test_a_batch_larger_than_the_training_set_is_refused(trainer):
    with pytest.raises(InputError, match=r"Invalid batch_size 999: expected a number in \[1, 320\]"):
        dataclasses.replace(trainer, batch_size=999)
    with pytest.raises(InputError, match=r"Invalid batch_size 2\.5: expected a whole number of at least 1"):
        dataclasses.replace(trainer, batch_size=2.5)
