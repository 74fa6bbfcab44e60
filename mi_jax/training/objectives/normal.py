"""Training without an adversary: on clean images, and on noisy ones as the control for adversarial training."""

import jax
import jax.numpy as jnp

from mi_jax.training.objectives.objective import Objective, cross_entropy, unperturbed


def noisy(network, variables, x, y, key, objective_config):
    """The images plus Gaussian noise, clipped to [0, 1] (a `Perturb`)."""
    noise = objective_config.noise * jax.random.normal(key, x.shape, x.dtype)
    return jnp.clip(x + noise, 0, 1), variables["batch_stats"]


NORMAL = Objective("normal training", "clean", unperturbed, cross_entropy, lambda steps: 3)
NOISE = Objective("Gaussian-noise training", "noisy", noisy, cross_entropy, lambda steps: 3)
