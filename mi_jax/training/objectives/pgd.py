"""PGD adversarial training (Madry et al. 2018, eq. 2.1): cross-entropy on the worst images that PGD finds."""

import optax

from mi_jax.attacks import ascend
from mi_jax.training.objectives.objective import Objective, attacked_logits, cross_entropy


def perturbed(network, variables, x, y, key, objective_config):
    """PGD on the cross-entropy as `objective_config.attack` says, batch normalisation as `batch_norm` says (a `Perturb`)."""
    logits_of = attacked_logits(network, variables, key, objective_config)

    def objective(images, statistics):
        logits, statistics = logits_of(images, statistics)
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, y), statistics

    return ascend(objective, x, key, config=objective_config.attack, state=variables["batch_stats"])


PGD_TRAINING = Objective(
    "adversarial training (PGD)", "adversarial", perturbed, cross_entropy, lambda steps: 2 * steps + 3
)
