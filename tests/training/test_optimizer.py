"""The optimizer: schedules that count in epochs, decay of kernels alone, and the update rule of PyTorch's SGD."""

import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from mi_jax.errors import InputError
from mi_jax.optax_update import update
from mi_jax.training.optimizer import Optimizer, build, learning_rate


def rates(config: Optimizer, steps, *, epochs=10, steps_per_epoch=7):
    rate = learning_rate(config, epochs=epochs, steps_per_epoch=steps_per_epoch)
    return [float(rate(step)) for step in steps]


def test_multistep_drops_at_epoch_boundaries_not_at_batches():
    found = rates(Optimizer(learning_rate=0.1, milestones=(0.5, 0.8)), [0, 34, 35, 55, 56, 69])
    np.testing.assert_allclose(found, [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-6)


def test_short_trainings_decay_at_every_milestone_and_never_before_the_first_update():
    np.testing.assert_allclose(rates(Optimizer(), [0, 6], epochs=1), [0.1, 0.1], rtol=1e-6)
    np.testing.assert_allclose(rates(Optimizer(), [0, 13, 14, 20], epochs=3), [0.1, 0.1, 0.001, 0.001], rtol=1e-6)


def test_cosine_and_triangle_have_their_closed_form():
    np.testing.assert_allclose(
        rates(Optimizer(schedule="cosine", learning_rate=0.2), [0, 35, 70]), [0.2, 0.1, 0.0], atol=1e-7
    )
    triangle = Optimizer(schedule="triangle", learning_rate=0.3, warmup=0.2)
    np.testing.assert_allclose(rates(triangle, [0, 7, 14, 42, 70]), [0.0, 0.15, 0.3, 0.15, 0.0], atol=1e-7)


def test_sgd_makes_the_updates_of_pytorch():
    torch = pytest.importorskip("torch")
    start = np.linspace(-1, 1, 6).reshape(2, 3).astype(np.float32)
    gradients = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
    config = Optimizer(learning_rate=0.1, momentum=0.9, weight_decay=5e-4, schedule="constant")
    transformation = build(config, epochs=1, steps_per_epoch=5)
    params = {"kernel": jnp.asarray(start)}
    state = transformation.init(params)
    weight = torch.nn.Parameter(torch.tensor(start))
    peer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, weight_decay=5e-4)
    for gradient in gradients:
        params, state = update(transformation, {"kernel": jnp.asarray(gradient)}, state, params)
        weight.grad = torch.tensor(gradient)
        peer.step()
    np.testing.assert_allclose(params["kernel"], weight.detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_weight_decay_spares_biases_and_normalisation(name):
    transformation = build(Optimizer(name=name, weight_decay=0.1, schedule="constant"), epochs=1, steps_per_epoch=1)
    params = {"kernel": jnp.ones((2, 2)), "scale": jnp.ones(2)}
    zero = {"kernel": jnp.zeros((2, 2)), "scale": jnp.zeros(2)}
    moved, _ = update(transformation, zero, transformation.init(params), params)
    assert float(moved["scale"][0]) == 1.0
    assert float(moved["kernel"][0, 0]) == pytest.approx(1 - 0.1 * 0.1)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"learning_rate": 0.0}, "Invalid optimizer.learning_rate 0.0: expected a positive number, such as 0.1"),
        ({"momentum": 1.5}, r"Invalid optimizer.momentum 1.5: expected a number in \[0, 1\]"),
        ({"name": "adamw"}, "Invalid optimizer.name 'adamw': expected one of sgd, adam"),
        ({"schedule": "cosin"}, "Invalid optimizer.schedule 'cosin': expected one of constant, multistep"),
        ({"weight_decay": -1.0}, "Invalid optimizer.weight_decay -1.0"),
        ({"milestones": (0.8, 0.5)}, "expected increasing fractions"),
        ({"milestones": (0.5, 1.5)}, "expected increasing fractions"),
        ({"milestones": ("0.5",)}, "expected increasing fractions"),
        ({"milestones": None}, "expected increasing fractions"),
        ({"milestones": [0.5, 0.75]}, r"expected increasing fractions of the training, such as \(0.5, 0.75\)"),
        ({"nesterov": "no"}, "Invalid optimizer.nesterov 'no': expected True or False"),
    ],
)
def test_values_out_of_range_are_named(fields, sentence, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it would refuse an unknown name first
    with pytest.raises(InputError, match=sentence):
        Optimizer(**fields)
