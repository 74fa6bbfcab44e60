"""Attacks on more rows than are worked on at once: the same results in the same order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax.attacks import APGD, PGD, apgd, pgd
from mi_jax.attacks.engine.chunks import chunked_map


@pytest.mark.parametrize(("count", "most", "sizes"), [(7, 3, [3, 3, 3]), (8, 3, [3, 3, 3]), (4, 4, [4]), (1, 1, [1])])
def test_rows_are_dealt_out_evenly_and_come_back_in_their_order(count, most, sizes):
    def attack(x, label):
        jax.debug.callback(lambda: calls.append(len(x)))
        return {"sum": x.sum(axis=1) + label, "twice": 2 * x}

    calls = []
    x, label = jnp.arange(2.0 * count).reshape(count, 2), 100 * jnp.arange(count)
    result = chunked_map(attack, x, label, most=most)
    np.testing.assert_array_equal(result["sum"], x.sum(axis=1) + label)
    np.testing.assert_array_equal(result["twice"], 2 * x)
    jax.effects_barrier()
    assert calls == sizes


def test_a_cpu_takes_slices_and_an_accelerator_all_rows(monkeypatch):
    def shapes() -> set[int]:
        seen = set()
        jax.eval_shape(lambda x: chunked_map(lambda x: (seen.add(len(x)), x)[1], x), jnp.ones((300, 1)))
        return seen

    assert shapes() == {100}
    monkeypatch.setattr(slices, "backend", lambda: "gpu")
    assert shapes() == {300}


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
    monkeypatch.setattr(slices, "ROWS_ON_CPU", 10_000)
    for part, whole in zip(jax.tree.leaves(sliced), jax.tree.leaves(result()), strict=True):
        np.testing.assert_allclose(part, whole, rtol=1e-6, atol=1e-6)
