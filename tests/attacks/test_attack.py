"""Every registered attack agrees with the model, and an attack of another module runs alone and in AutoAttack."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax.attacks import (
    APGD,
    ATTACKS,
    FAB,
    FMN,
    Attack,
    Budget,
    Momentum,
    SparseRS,
    Square,
    autoattack,
    register,
    run,
)
from mi_jax.attacks.attack import Faults
from mi_jax.attacks.losses import misclassified
from mi_jax.errors import InputError


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


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("value", ["0.5", None, np.nan, -1.0, True, [0.5]])
@pytest.mark.parametrize(
    ("config", "name"),
    [(APGD, "rho"), (FAB, "alpha_max"), (FAB, "eta"), (FAB, "beta"), (Square, "p_init"), (Momentum, "decay"),
     (FMN, "gamma"), (functools.partial(SparseRS, pixels=1), "alpha_init")],
)  # fmt: skip
def test_sizes_of_every_attack_are_numbers(config, name, value):
    with pytest.raises(InputError, match=rf"^Invalid {name} .*: expected a (positive )?number"):
        config(**{name: value})


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("config", "name"),
    [(APGD, "wrapped_first_check"), (APGD, "decreasing_eps"), (Square, "rescale_schedule"), (FMN, "grow_until_found"),
     (functools.partial(SparseRS, pixels=1), "rescale_schedule")],
)  # fmt: skip
def test_switches_of_every_attack_are_true_or_false(config, name):
    for value in ("no", 0, None):
        with pytest.raises(InputError, match=rf"^Invalid {name} .*: expected True or False"):
            config(**{name: value})


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("config", "argument", "says"),
    [
        (Square(eps=0.1), {"start": np.zeros((1, 8, 8, 1), np.float32)}, "chooses the points from which it starts"),
        (Square(eps=0.1), {"targets": [1]}, "Square has no target classes"),
        (APGD(loss="cw", targets=2), {"targets": [1]}, "APGD with targets=2 chooses its target classes"),
        (APGD(), {"step_size": 0.1}, "APGD chooses the lengths of its steps; leave out step_size"),
        (APGD(restarts=2), {"start": np.zeros((1, 8, 8, 1), np.float32)}, "one given start would all be the same"),
    ],
)
def test_an_argument_that_an_attack_does_not_use_is_refused(linear, softmax, config, argument, says):
    with pytest.raises(InputError, match=says):
        run(linear, softmax.variables, softmax.images[:1], softmax.labels[:1], 0, config=config, **argument)


def test_momentum_has_no_divergence_from_a_prediction():
    with pytest.raises(InputError, match=r"^Invalid loss 'kl': expected one of ce, dlr, cw"):
        Momentum(loss="kl")
