"""The deep variational information bottleneck (Alemi et al. 2017, eq. 17) of a network with a Gaussian code."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from mi_jax import checks
from mi_jax.information import gaussian_rate
from mi_jax.models import Network
from mi_jax.training.objectives.objective import Objective, Outcome, register
from mi_jax.typing import Images, Key, Labels, Variables


@register("vib")
@dataclass(frozen=True, kw_only=True)
class Bottleneck(Objective):
    """CE(f(z), y) + beta KL(q(z | x) || N(0, I)) on clean images, z one draw of the code.

    Attributes:
        beta: weight of the rate, an upper bound on I(X;Z) in nats (1e-3 is best on MNIST in the paper).
    """

    title = "variational information bottleneck"
    inputs = "clean"
    architectures = ("vib",)
    beta: float = 1e-3

    def __post_init__(self):
        checks.at_least("beta", self.beta, 0, usual="1e-3")

    @staticmethod
    def forwards(steps: int) -> int:
        """As normal training."""
        return 3

    def loss(
        self, network: Network, variables: Variables, x: Images, perturbed: Images, y: Labels, key: Key
    ) -> tuple[jax.Array, Outcome]:
        """One draw of the code per image, as in the paper's training."""
        logits, taps, statistics = network.apply_train(variables, perturbed, key)
        distortion = optax.losses.softmax_cross_entropy_with_integer_labels(logits, y)
        rate = gaussian_rate(taps["code_mean"], taps["code_std"])
        return jnp.mean(distortion + self.beta * rate), Outcome(logits, statistics)
