"""TRADES (Zhang et al. 2019, eq. 5): cross-entropy on clean images plus how far an attack can move the prediction."""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from mi_jax import checks
from mi_jax.attacks import ascend, losses
from mi_jax.models import Network
from mi_jax.training.objectives.objective import (
    Objective,
    ObjectiveConfig,
    Outcome,
    Statistics,
    attacked_logits,
    clean_and_perturbed,
    register,
)
from mi_jax.typing import Images, Key, Labels, Variables


@register("trades")
@dataclass(frozen=True, kw_only=True)
class Trades(Objective):
    """CE(f(x), y) + beta KL(f(x) || f(x')).

    Attributes:
        trades_beta: weight of the divergence (1 / lambda of the paper, 6 there).
    """

    title = "TRADES"
    inputs = "adversarial"
    trades_beta: float = 6.0

    def __post_init__(self):
        checks.at_least("trades_beta", self.trades_beta, 0, usual="6")

    @staticmethod
    def forwards(steps: int) -> int:
        """Besides the attack, a forward pass for its reference and two passes in the loss."""
        return 2 * steps + 7

    def perturb(
        self, network: Network, variables: Variables, x: Images, y: Labels, key: Key, config: ObjectiveConfig
    ) -> tuple[Images, Statistics]:
        """PGD on KL(f(x) || f(x')) from a Gaussian start of standard deviation 1e-3.

        The authors' L2 code uses an optimizer instead of steepest steps. The clean prediction is computed once, in the
        batch-normalisation mode of `config`; theirs is `eval`.
        """
        attack = dataclasses.replace(config.attack, random_start=True, init="gaussian")
        logits_of = attacked_logits(network, variables, key, config)
        clean, statistics = logits_of(x, variables["batch_stats"])
        clean = jax.lax.stop_gradient(clean)

        def divergence(images: Images, statistics: Statistics) -> tuple[jax.Array, Statistics]:
            logits, statistics = logits_of(images, statistics)
            return losses.kl(logits, clean), statistics

        return ascend(divergence, x, key, config=attack, state=statistics)

    def loss(
        self, network: Network, variables: Variables, x: Images, perturbed: Images, y: Labels, key: Key
    ) -> tuple[jax.Array, Outcome]:
        """The gradient goes through both predictions.

        Each of the two passes uses the statistics of its own batch, and both update the running ones, the clean batch
        first. The authors' code makes the clean pass twice, so that theirs are updated three times.
        """
        clean, logits, statistics = clean_and_perturbed(network, variables, x, perturbed, key)
        natural = optax.losses.softmax_cross_entropy_with_integer_labels(clean, y)
        return jnp.mean(natural + self.trades_beta * losses.kl(logits, clean)), Outcome(logits, statistics)
