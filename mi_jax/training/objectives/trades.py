"""TRADES (Zhang et al. 2019, eq. 5): cross-entropy on clean images plus how far an attack can move the prediction."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from mi_jax.attacks import ascend, losses
from mi_jax.training.objectives.objective import Objective, Outcome, attacked_logits, clean_and_perturbed


def perturbed(network, variables, x, y, key, objective_config):
    """PGD on KL(f(x) || f(x')) from a Gaussian start of standard deviation 1e-3 (a `Perturb`).

    Linf and L2 alike by the steps of `objective_config.attack` (the authors' L2 code uses an optimizer in place of steepest
    steps). The clean prediction is computed once, in the mode of `objective_config.batch_norm`; theirs is `eval`.
    """
    attack = dataclasses.replace(objective_config.attack, random_start=True, init="gaussian")
    logits_of = attacked_logits(network, variables, key, objective_config)
    clean, statistics = logits_of(x, variables["batch_stats"])
    clean = jax.lax.stop_gradient(clean)

    def objective(images, statistics):
        logits, statistics = logits_of(images, statistics)
        return losses.kl(logits, clean), statistics

    return ascend(objective, x, key, config=attack, state=statistics)


def loss(network, variables, x, perturbed, y, key, objective_config):
    """Mean of CE(f(x), y) + beta KL(f(x) || f(x')), nats; the gradient goes through both predictions (a `Loss`).

    Batch normalisation: each of the two passes uses the statistics of its own batch, and the running ones move with
    the clean, then with the perturbed batch. The authors' code makes the clean pass twice, so theirs move thrice.
    """
    clean, logits, statistics = clean_and_perturbed(network, variables, x, perturbed, key)
    natural = optax.losses.softmax_cross_entropy_with_integer_labels(clean, y)
    return jnp.mean(natural + objective_config.trades_beta * losses.kl(logits, clean)), Outcome(logits, statistics)


TRADES = Objective("TRADES", "adversarial", perturbed, loss, lambda steps: 2 * steps + 7)
