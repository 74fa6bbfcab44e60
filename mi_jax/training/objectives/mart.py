"""MART (Wang et al. 2020, eq. 11): a boosted cross-entropy, and invariance where the clean prediction is doubtful."""

import jax
import jax.numpy as jnp

from mi_jax.attacks import losses
from mi_jax.training.objectives import pgd
from mi_jax.training.objectives.objective import Objective, Outcome, clean_and_perturbed
from mi_jax.typing import Labels, Logits


def boosted_cross_entropy(logits: Logits, labels: Labels) -> jax.Array:
    """-log p_y - log(1 - max_{k != y} p_k) in nats [b] (Wang et al. 2020, eq. 8).

    Exact, with log(1 - p_k) as a logsumexp over the other classes; the authors' code adds 1e-4 inside this logarithm.
    """
    rival = jnp.argmax(jnp.where(_one_hot(logits, labels), -jnp.inf, logits), axis=1)
    without_rival = jax.nn.logsumexp(jnp.where(_one_hot(logits, rival), -jnp.inf, logits), axis=1)
    return losses.cross_entropy(logits, labels) + jax.nn.logsumexp(logits, axis=1) - without_rival


def loss(network, variables, x, perturbed, y, key, objective_config):
    """Mean of BCE(f(x'), y) + lambda KL(f(x) || f(x')) (1 - f_y(x)), nats (a `Loss`).

    The gradient goes through both predictions and through the weight. Batch normalisation as in the authors' code:
    each pass uses the statistics of its own batch; the running ones move with the clean, then the perturbed batch.
    """
    clean, logits, statistics = clean_and_perturbed(network, variables, x, perturbed, key)
    doubt = -jnp.expm1(-losses.cross_entropy(clean, y))
    each = boosted_cross_entropy(logits, y) + objective_config.mart_weight * doubt * losses.kl(logits, clean)
    return jnp.mean(each), Outcome(logits, statistics)


def _one_hot(logits: Logits, labels: Labels) -> jax.Array:
    return jnp.arange(logits.shape[1]) == labels[:, None]


# The inner attack is that of PGD training, as in the paper; the authors' code starts it at 1e-3 times Gaussian noise,
# which attack.start_law="gaussian" gives.
MART = Objective("MART", "adversarial", pgd.perturbed, loss, lambda steps: 2 * steps + 6)
