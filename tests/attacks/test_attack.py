"""Every registered attack agrees with the model, and an attack of another module runs alone and in AutoAttack."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax.attacks import ATTACKS, Attack, Budget, autoattack, register, run
from mi_jax.attacks.attack import Faults
from mi_jax.attacks.losses import misclassified


@pytest.mark.parametrize(
    ("name", "norm"), [(name, norm) for name in ATTACKS for norm in ("linf", "l2") if norm in ATTACKS[name].norms]
)
def test_every_registered_attack_stays_in_the_ball_and_reports_the_outputs_of_the_model(linear, softmax, name, norm):
    x, y = softmax.images[:20], softmax.labels[:20]
    attack = ATTACKS[name]
    options = {attack.effort: 200 if name == "square" else 6}
    if attack.targets:
        options["targets"] = 2
    if attack.step_size:
        options["step_size"] = {"linf": 0.03, "l2": 0.2}[norm]
    config = dataclasses.replace(attack, norm=norm, eps={"linf": 0.1, "l2": 0.8}[norm], **options)
    result = run(linear, softmax.variables, x, y, jax.random.key(0), config=config)
    assert config.budget.keys() <= {field.name for field in dataclasses.fields(config)}
    assert set(config.budget.values()) <= {field.name for field in dataclasses.fields(Budget)}
    assert float(result.perturbation_norm.max()) <= config.eps * (1 + 1e-5)
    assert float(result.images.min()) >= 0
    assert float(result.images.max()) <= 1
    logits = linear(softmax.variables, result.images)
    np.testing.assert_allclose(result.logits, logits, atol=1e-4)
    np.testing.assert_array_equal(result.success, np.argmax(logits, axis=1) != y)
    assert result.success.mean() > np.mean(np.argmax(linear(softmax.variables, x), axis=1) != y)
    assert result.warnings == ()


class Shifted(NamedTuple):
    images: jax.Array
    found: jax.Array
    faults: Faults


def test_an_attack_from_another_module_runs_alone_and_inside_autoattack(linear, softmax):
    @register("brighten")
    @dataclasses.dataclass(frozen=True)
    class Brighten(Attack):
        steps: int = 1

        def initial_state(self, problem, words):
            rows = len(problem.clean)
            return Shifted(problem.clean, jnp.zeros(rows, bool), Faults.none(rows))

        def step(self, problem, state, i, words):
            images = problem.threat.project(state.images + self.eps, problem.clean)
            return Shifted(images, misclassified(problem.logits(images, i), problem.labels), state.faults)

    batch = softmax.variables, softmax.images[:20], softmax.labels[:20]
    alone = run(linear, *batch, config=Brighten(eps=0.3))
    np.testing.assert_allclose(alone.images, np.minimum(softmax.images[:20] + 0.3, 1), atol=1e-6)
    assert alone.success.any()
    assert not alone.success.all()
    result = autoattack(linear, *batch, 0, eps=0.3, version=["brighten"])
    np.testing.assert_array_equal(result.success, alone.success)
