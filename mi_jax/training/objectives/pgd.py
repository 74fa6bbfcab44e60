"""PGD adversarial training (Madry et al. 2018, eq. 2.1)."""

from dataclasses import dataclass

from mi_jax.models import Network
from mi_jax.training.objectives.objective import Objective, ObjectiveConfig, Statistics, pgd_examples, register
from mi_jax.typing import Images, Key, Labels, Variables


@register("at")
@dataclass(frozen=True, kw_only=True)
class PGDTraining(Objective):
    """Cross-entropy on the PGD examples of the images."""

    title = "adversarial training (PGD)"
    inputs = "adversarial"

    @staticmethod
    def forwards(steps: int) -> int:
        """A forward and a backward pass per step besides the update."""
        return 2 * steps + 3

    def perturb(
        self, network: Network, variables: Variables, x: Images, y: Labels, key: Key, config: ObjectiveConfig
    ) -> tuple[Images, Statistics]:
        """PGD on the cross-entropy."""
        return pgd_examples(network, variables, x, y, key, config)
