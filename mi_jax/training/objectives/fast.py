"""Fast adversarial training (Wong et al. 2020): one long step from a random point of the ball.

Can overfit catastrophically: robust against the one step and against nothing else; `held_out.collapsed` detects it.
"""

import dataclasses
from dataclasses import dataclass

from mi_jax import checks
from mi_jax.attacks import PGD
from mi_jax.attacks.engine.input_checks import MAX_STEP
from mi_jax.models import Network
from mi_jax.training.objectives.objective import Objective, ObjectiveConfig, Statistics, pgd_examples, register
from mi_jax.typing import Images, Key, Labels, Variables


@register("fast")
@dataclass(frozen=True, kw_only=True)
class Fast(Objective):
    """Cross-entropy on examples of one attack step.

    Attributes:
        fast_step: length of the step, in radii (1.25 in Wong et al. 2020), in L2 and L1 at most 3.
    """

    title = "fast adversarial training (FGSM)"
    inputs = "adversarial"
    fast_step: float = 1.25

    def __post_init__(self):
        checks.positive("fast_step", self.fast_step, usual="1.25 radii")

    @staticmethod
    def forwards(steps: int) -> int:
        """One attack step, whatever the number of steps in the configuration."""
        return 5

    def check(self, config: ObjectiveConfig) -> None:
        """Refuses also a radius of 0, of which no step has a length, and a step that is too long for the norm."""
        super().check(config)
        checks.positive("attack.eps", config.attack.eps)
        self.attack(config)

    def attack(self, config: ObjectiveConfig) -> PGD:
        """One step of `fast_step` radii from a uniformly random point of the ball of the configured attack.

        Args:
            config: the settings that all objectives share.

        Raises:
            InputError: in L2 and L1 for a step of more than 3 radii.
        """
        length = self.fast_step * config.attack.eps
        if config.attack.norm == "linf":
            length = min(length, 1.0)  # no pixel moves farther
        else:
            checks.between("fast_step", self.fast_step, 0, MAX_STEP, usual="1.25 radii")
        return dataclasses.replace(config.attack, steps=1, random_start=True, init="uniform", step_size=length)

    def perturb(
        self, network: Network, variables: Variables, x: Images, y: Labels, key: Key, config: ObjectiveConfig
    ) -> tuple[Images, Statistics]:
        """The point that the step of `attack` reaches, projected back into the ball.

        Linf: the sign of the gradient; L2: its direction. The authors' code takes the gradient in training mode, which
        updates the running statistics: `batch_norm="batch_update"`. Every point is clipped to [0, 1].
        """
        return pgd_examples(network, variables, x, y, key, dataclasses.replace(config, attack=self.attack(config)))
