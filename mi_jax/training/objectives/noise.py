"""Gaussian-noise training, a control for adversarial training: perturbed images without an attack."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from mi_jax import checks
from mi_jax.models import Network
from mi_jax.training.objectives.objective import Objective, ObjectiveConfig, Statistics, register
from mi_jax.typing import Images, Key, Labels, Variables


@register("noise")
@dataclass(frozen=True, kw_only=True)
class Noise(Objective):
    """Cross-entropy on images with Gaussian noise, clipped to [0, 1].

    Attributes:
        noise: standard deviation, pixel units of [0, 1].
    """

    title = "Gaussian-noise training"
    inputs = "noisy"
    noise: float = 8 / 255

    def __post_init__(self):
        checks.positive("noise", self.noise, usual="8/255")
        checks.between("noise", self.noise, 0, 1, usual="8/255")

    @staticmethod
    def forwards(steps: int) -> int:
        """As normal training."""
        return 3

    def perturb(
        self, network: Network, variables: Variables, x: Images, y: Labels, key: Key, config: ObjectiveConfig
    ) -> tuple[Images, Statistics]:
        """The images plus noise."""
        noise = self.noise * jax.random.normal(key, x.shape, x.dtype)
        return jnp.clip(x + noise, 0, 1), variables["batch_stats"]
