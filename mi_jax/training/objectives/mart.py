"""MART (Wang et al. 2020, eq. 11): a boosted cross-entropy, and invariance where the clean prediction is uncertain."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from mi_jax import checks
from mi_jax.attacks import losses
from mi_jax.models import Network
from mi_jax.training.objectives.objective import (
    Objective,
    ObjectiveConfig,
    Outcome,
    Statistics,
    clean_and_perturbed,
    pgd_examples,
    register,
)
from mi_jax.typing import Images, Key, Labels, Logits, Variables


@register("mart")
@dataclass(frozen=True, kw_only=True)
class Mart(Objective):
    """BCE(f(x'), y) + lambda KL(f(x) || f(x')) (1 - f_y(x)).

    Attributes:
        mart_weight: weight of the divergence (lambda of the paper, 5 there).
    """

    title = "MART"
    inputs = "adversarial"
    mart_weight: float = 5.0

    def __post_init__(self):
        checks.at_least("mart_weight", self.mart_weight, 0, usual="5")

    @staticmethod
    def forwards(steps: int) -> int:
        """Besides the attack, two passes in the loss."""
        return 2 * steps + 6

    def perturb(
        self, network: Network, variables: Variables, x: Images, y: Labels, key: Key, config: ObjectiveConfig
    ) -> tuple[Images, Statistics]:
        """PGD on the cross-entropy; `init="gaussian"` of the attack gives the start of the authors' code."""
        return pgd_examples(network, variables, x, y, key, config)

    def loss(
        self, network: Network, variables: Variables, x: Images, perturbed: Images, y: Labels, key: Key
    ) -> tuple[jax.Array, Outcome]:
        """The gradient goes through both predictions and through the weight; batch statistics as in `Trades.loss`."""
        clean, logits, statistics = clean_and_perturbed(network, variables, x, perturbed, key)
        uncertainty = -jnp.expm1(-losses.cross_entropy(clean, y))
        each = boosted_cross_entropy(logits, y) + self.mart_weight * uncertainty * losses.kl(logits, clean)
        return jnp.mean(each), Outcome(logits, statistics)


def boosted_cross_entropy(logits: Logits, labels: Labels) -> jax.Array:
    """-log p_y - log(1 - max_{k != y} p_k) in nats [b] (Wang et al. 2020, eq. 8).

    Exact, with log(1 - p_k) as a logsumexp over the other classes; the authors' code adds 1e-4 inside this logarithm.
    """
    rival = jnp.argmax(losses.others(logits, labels), axis=1)
    without_rival = jax.nn.logsumexp(losses.others(logits, rival), axis=1)
    return losses.cross_entropy(logits, labels) + jax.nn.logsumexp(logits, axis=1) - without_rival
