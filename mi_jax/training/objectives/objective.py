"""What an objective is made of, and the parts that several share. Holds no objective by itself.

An objective has two parts: `perturb` makes the images to train on and is not differentiated; `loss` is differentiated
with respect to the parameters.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mi_jax.attacks import PGD
from mi_jax.errors import InputError
from mi_jax.models import Network
from mi_jax.typing import Images, Key, Labels, Logits, Variables

Statistics = dict[str, Any]


@dataclass(frozen=True)
class ObjectiveConfig:
    """What an objective needs beside the network.

    Attributes:
        attack: the inner maximisation: one run to its last point, on the loss that belongs to the objective. Its loss,
            keep and restarts have no say and must stay `ce`, `last` and 1.
        batch_norm: mode of batch normalisation inside it: `eval` uses the running statistics (TRADES, MART,
            torchattacks); `batch` those of the batch, which are then forgotten; `batch_update` those of the batch,
            and every attack step moves the running ones (Rice et al. 2020, Wong et al. 2020).
        noise: standard deviation of Gaussian-noise training, pixel units of [0, 1].
        trades_beta: weight of the divergence in TRADES (Zhang et al. 2019, 1 / lambda; theirs is 6).
        mart_weight: weight of the divergence in MART (lambda of Wang et al. 2020; theirs is 5).
        fast_step: length of the one step of fast adversarial training, in radii (Wong et al. 2020; theirs is 1.25).

    Raises:
        InputError: for values outside these.
    """

    attack: PGD = PGD(steps=7)
    batch_norm: Literal["eval", "batch", "batch_update"] = "eval"
    noise: float = 8 / 255
    trades_beta: float = 6.0
    mart_weight: float = 5.0
    fast_step: float = 1.25

    def __post_init__(self):
        for name, only in (("loss", "ce"), ("keep", "last"), ("restarts", 1)):
            if getattr(self.attack, name) != only:
                raise InputError(
                    f"attack.{name} is {getattr(self.attack, name)!r}; it must be {only!r}, as the attack of training "
                    "makes one run to its last point, on the loss of its objective."
                )
        if self.batch_norm not in ("eval", "batch", "batch_update"):
            raise InputError(f"batch_norm is {self.batch_norm!r}; choose eval, batch or batch_update.")
        if not self.noise > 0:
            raise InputError(f"noise is {self.noise!r}; it must be a positive standard deviation in pixel units.")
        for name in ("trades_beta", "mart_weight"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise InputError(f"{name.replace('_', '-')} is {value!r}; it must be a weight of 0 or more.")
        if not 0 < self.fast_step < math.inf:
            raise InputError(f"fast-step is {self.fast_step!r}; it must be a positive length in radii, such as 1.25.")


class Outcome(NamedTuple):
    """Logits on the images trained on, and the moved batch statistics."""

    logits: Logits
    batch_stats: Statistics


Perturb = Callable[[Network, Variables, Images, Labels, Key, ObjectiveConfig], tuple[Images, Statistics]]
"""`perturb(network, variables, x, y, key, adversary)`: the images to train on, and the batch statistics after making
them."""
Loss = Callable[[Network, Variables, Images, Images, Labels, Key, ObjectiveConfig], tuple[jax.Array, Outcome]]
"""`loss(network, variables, x, perturbed, y, key, adversary)`: the mean loss of a batch, in training mode."""


@dataclass(frozen=True)
class Objective:
    """A training objective.

    Attributes:
        title: in words.
        inputs: what the images trained on are.
        perturb, loss: its two parts.
        forwards: its cost an example in forward passes, from the number of attack steps.
    """

    title: str
    inputs: Literal["clean", "adversarial", "noisy"]
    perturb: Perturb
    loss: Loss
    forwards: Callable[[int], int]

    @property
    def adversarial(self) -> bool:
        """Whether it trains on adversarial images."""
        return self.inputs == "adversarial"


def unperturbed(network, variables, x, y, key, objective_config):
    """The images as they are (a `Perturb`)."""
    return x, variables["batch_stats"]


def cross_entropy(network, variables, x, perturbed, y, key, objective_config):
    """Mean cross-entropy on the images trained on, nats (a `Loss`)."""
    logits, _, statistics = network.apply_train(variables, perturbed, key)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, y)
    return jnp.mean(losses), Outcome(logits, statistics)


def clean_and_perturbed(
    network: Network, variables: Variables, x: Images, perturbed: Images, key: Key
) -> tuple[Logits, Logits, Statistics]:
    """Logits on the clean and the perturbed batch in training mode, and the moved batch statistics.

    Two passes, each normalised by its own batch; the running statistics move with the clean batch, then with the
    perturbed one.
    """
    clean, _, statistics = network.apply_train(variables, x, key)
    seen = {**variables, "batch_stats": statistics}
    logits, _, statistics = network.apply_train(seen, perturbed, key)
    return clean, logits, statistics


def attacked_logits(
    network: Network, variables: Variables, key: Key, objective_config: ObjectiveConfig
) -> Callable[[Images, Statistics], tuple[Logits, Statistics]]:
    """The network as an attack meets it: images and batch statistics to logits and batch statistics."""
    params, mode = variables["params"], objective_config.batch_norm

    def logits_of(images, statistics):
        seen = {"params": params, "batch_stats": statistics}
        if mode == "eval":
            return network.logits(seen, images), statistics
        logits, _, moved = network.apply_train(seen, images, key)
        return logits, moved if mode == "batch_update" else statistics

    return logits_of
