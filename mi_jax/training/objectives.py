"""What a training minimises: normal, PGD-adversarial, Gaussian-noise. One registry; knows neither optimizer nor loop.

An objective has two parts: `perturb` makes the images to train on and is not differentiated; `loss` is differentiated
with respect to the parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mi_jax.attacks import PGD, ascend
from mi_jax.errors import InputError
from mi_jax.models import Network
from mi_jax.typing import Images, Key, Labels, Logits, Variables

Statistics = dict[str, Any]


@dataclass(frozen=True)
class Adversary:
    """What an adversarial objective needs beside the network.

    attack: the inner maximisation. batch_norm: mode of batch normalisation inside it: `eval` uses the running
    statistics (TRADES, MART, torchattacks); `batch` those of the batch, which are then forgotten; `batch_update`
    those of the batch, and every attack step moves the running ones (Rice et al. 2020, Wong et al. 2020).
    noise: standard deviation of Gaussian-noise training, pixel units of [0, 1].
    """

    attack: PGD = PGD(steps=7)
    batch_norm: Literal["eval", "batch", "batch_update"] = "eval"
    noise: float = 8 / 255

    def __post_init__(self):
        if self.batch_norm not in ("eval", "batch", "batch_update"):
            raise InputError(f"batch_norm is {self.batch_norm!r}; choose eval, batch or batch_update.")
        if not self.noise > 0:
            raise InputError(f"noise is {self.noise!r}; it must be a positive standard deviation in pixel units.")


class Outcome(NamedTuple):
    """Logits on the images trained on, and the moved batch statistics."""

    logits: Logits
    batch_stats: Statistics


Perturb = Callable[[Network, Variables, Images, Labels, Key, Adversary], tuple[Images, Statistics]]
"""`perturb(network, variables, x, y, key, adversary)`: the images to train on, and the batch statistics after making
them."""
Loss = Callable[[Network, Variables, Images, Images, Labels, Key], tuple[jax.Array, Outcome]]
"""`loss(network, variables, x, perturbed, y, key)`: the mean loss of a batch."""


@dataclass(frozen=True)
class Objective:
    """A training objective.

    title: in words. inputs: what the images trained on are. perturb, loss: its two parts. forwards: its cost an
    example in forward passes, from the number of attack steps.
    """

    title: str
    inputs: str
    perturb: Perturb
    loss: Loss
    forwards: Callable[[int], int]


def _unperturbed(network, variables, x, y, key, adversary):
    return x, variables["batch_stats"]


def _noisy(network, variables, x, y, key, adversary):
    noise = adversary.noise * jax.random.normal(key, x.shape, x.dtype)
    return jnp.clip(x + noise, 0, 1), variables["batch_stats"]


def _pgd(network, variables, x, y, key, adversary):
    """Madry et al. (2018), eq. 2.1: the inner maximisation of the cross-entropy."""
    params, mode = variables["params"], adversary.batch_norm

    def objective(images, statistics):
        if mode == "eval":
            logits = network.logits({"params": params, "batch_stats": statistics}, images)
        else:
            seen = {"params": params, "batch_stats": statistics}
            logits, _, moved = network.apply_train(seen, images, key)
            statistics = moved if mode == "batch_update" else statistics
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, y), statistics

    return ascend(objective, x, key, config=adversary.attack, state=variables["batch_stats"])


def _cross_entropy(network, variables, x, perturbed, y, key):
    logits, _, statistics = network.apply_train(variables, perturbed, key)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, y)
    return jnp.mean(losses), Outcome(logits, statistics)


OBJECTIVES: dict[str, Objective] = {
    "nt": Objective("normal training", "clean", _unperturbed, _cross_entropy, lambda steps: 3),
    "at": Objective("adversarial training (PGD)", "adversarial", _pgd, _cross_entropy, lambda steps: 2 * steps + 3),
    "noise": Objective("Gaussian-noise training", "noisy", _noisy, _cross_entropy, lambda steps: 3),
}
"""Training objectives by the name that `--training` takes."""
