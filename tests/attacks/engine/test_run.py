"""The engine of all attacks: chunks of rows, random numbers that belong to an image, and warnings."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax.attacks import APGD, PGD, Attack, apgd, pgd, run
from mi_jax.attacks.attack import Outcome
from mi_jax.attacks.engine import run as engine
from mi_jax.attacks.engine.input_checks import Model
from mi_jax.attacks.engine.run import chunked_map
from mi_jax.attacks.engine.survivors import PlacedModel


@pytest.mark.parametrize(("count", "most", "sizes"), [(7, 3, [3, 3, 3]), (8, 3, [3, 3, 3]), (4, 4, [4]), (1, 1, [1])])
def test_chunks_are_even_and_results_keep_their_order(count, most, sizes):
    def attack(x, label):
        jax.debug.callback(lambda: calls.append(len(x)))
        return {"sum": x.sum(axis=1) + label, "twice": 2 * x}

    calls = []
    x, label = jnp.arange(2.0 * count).reshape(count, 2), 100 * jnp.arange(1.0 * count)
    result = chunked_map(attack, x, label, most=most)
    np.testing.assert_array_equal(result["sum"], x.sum(axis=1) + label)
    np.testing.assert_array_equal(result["twice"], 2 * x)
    jax.effects_barrier()
    assert calls == sizes


def test_a_cpu_works_in_chunks_and_an_accelerator_on_all_rows():
    traced = jax.jit(lambda x: chunked_map(jnp.sin, x)).trace(jnp.ones((300, 1)))
    for platform, rows in (("cpu", 100), ("cuda", 300), ("tpu", 300)):
        program = traced.lower(lowering_platforms=(platform,)).as_text()
        assert re.findall(r"stablehlo.sine .*tensor<(\d+)x1xf32>", program) == [str(rows)]


@pytest.mark.parametrize(
    "config", [PGD(eps=0.1, steps=3, step_size=0.05, restarts=2, keep="best"), APGD(eps=0.1, steps=9)]
)
def test_an_attack_on_many_rows_is_that_on_all_at_once(linear_model, monkeypatch, key, config):
    _, variables = linear_model
    x = jax.random.uniform(jax.random.fold_in(key, 1), (150, 4, 3, 2))
    y = jax.random.randint(jax.random.fold_in(key, 2), (150,), 0, 5)

    def result():
        # A model of its own, so that nothing compiled before is used again.
        attack = pgd if isinstance(config, PGD) else apgd
        return attack(lambda v, x: x.reshape(len(x), -1) @ v["w"], variables, x, y, key, config=config)

    sliced = result()
    monkeypatch.setattr(engine, "ROWS_ON_CPU", 10_000)
    for part, whole in zip(jax.tree.leaves(sliced), jax.tree.leaves(result()), strict=True):
        np.testing.assert_allclose(part, whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_restarts_give_the_same_images_whatever_the_batches_and_chunks(linear_model, monkeypatch, key, norm):
    logits_fn, variables = linear_model
    x = jax.random.uniform(jax.random.fold_in(key, 1), (30, 4, 3, 2))
    y = jax.random.randint(jax.random.fold_in(key, 2), (30,), 0, 5)
    config = PGD(norm=norm, eps=0.1, steps=2, step_size=0.03, restarts=3)
    whole = pgd(logits_fn, variables, x, y, key, config=config).images
    parts = [
        pgd(logits_fn, variables, x[a:b], y[a:b], key, config=config, index=np.arange(a, b)).images
        for a, b in ((0, 7), (7, 30))
    ]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)
    monkeypatch.setattr(engine, "ROWS_ON_CPU", 11)
    chunked = pgd(lambda v, images: logits_fn(v, images), variables, x, y, key, config=config).images
    np.testing.assert_allclose(chunked, whole, atol=1e-6)


def test_another_radius_or_step_does_not_compile_an_attack_again(linear_model, batch, key):
    traces = []

    def counted(v, images):
        traces.append(1)
        return linear_model[0](v, images)

    for attack, configs in {
        apgd: [APGD(eps=eps, steps=3) for eps in (0.1, 0.2)],
        pgd: [PGD(eps=eps, step_size=eps / 2) for eps in (0.1, 0.2)],
    }.items():
        attack(counted, linear_model[1], *batch, key, config=configs[0])
        once = len(traces)
        attack(counted, linear_model[1], *batch, key, config=configs[1])
        assert len(traces) == once


def test_a_random_model_draws_new_noise_for_each_iteration_for_the_outcome_and_for_each_batch(linear, softmax, key):
    def noisy(variables, x, key):
        return linear(variables, x) + jax.random.normal(key, (len(x), 10))

    config = APGD(eps=0.05, steps=3, eot_draws=2)
    arguments = noisy, softmax.variables, softmax.images[:8], softmax.labels[:8], key
    whole, halves = run(*arguments, config=config), run(*arguments, config=config, batch_size=4)
    draw = config.iterations * config.eot_draws  # those before it are of the iterations
    fresh = jax.random.fold_in(engine.noise_key(key, 0), draw)
    np.testing.assert_allclose(whole.logits, noisy(softmax.variables, whole.images, fresh), atol=1e-4)
    noise = np.asarray(halves.logits - linear(softmax.variables, halves.images))
    assert np.abs(noise[:4] - noise[4:]).min() > 1e-3
    of_second = jax.random.normal(jax.random.fold_in(engine.noise_key(key, 4), draw), (4, 10))
    np.testing.assert_allclose(noise[4:], of_second, atol=1e-4)


def test_batches_of_an_evaluation_under_noise_share_no_draw(key):
    def noisy(variables, x, key):
        return jax.random.normal(key, (len(x), 10))

    model = PlacedModel(Model(noisy), {}, key, 64, 32, None, random=True)
    images = np.full((64, 8, 8, 3), 0.5, np.float32)
    first, second = np.split(model.logits(images), 2)
    assert np.abs(first - second).min() > 1e-4
    np.testing.assert_array_equal(model.logits(images[32:], index=np.arange(32, 64)), second)
    assert np.abs(model.logits(images[:32], salt=1) - first).min() > 1e-4


@dataclasses.dataclass(frozen=True)
class ByRestart(Attack):
    """Moves each row by a hundredth for each restart before its own, and prefers the last."""

    steps: int = 1
    restarts: int = 3
    targets: int = 2

    def initial_state(self, problem, words):
        restart = problem.batch.restarts.astype(jnp.float32)
        moved = problem.clean + 0.01 * restart.reshape(-1, 1, 1, 1)
        return Outcome(moved, jnp.ones(len(moved), bool), rank=restart)

    def step(self, problem, state, i, words):
        return state

    def outcome(self, state):
        return state


def test_every_restart_has_every_target(linear, softmax, key):
    images, labels = 0.5 + 0.0 * softmax.images[:4], softmax.labels[:4]
    found = run(linear, softmax.variables, images, labels, key, config=ByRestart(eps=0.1))
    np.testing.assert_allclose(found.images, images + 0.02, atol=1e-6)
