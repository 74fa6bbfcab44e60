"""Fast adversarial training (Wong et al. 2020): one long step from a random point of the ball.

Can overfit catastrophically: the one step is then defended against and nothing else; `held_out.collapsed` notices.
"""

import dataclasses

from mi_jax.training.objectives import pgd
from mi_jax.training.objectives.objective import Objective, cross_entropy


def perturbed(network, variables, x, y, key, objective_config):
    """A step of `fast_step` radii from a uniformly random point of the ball, brought back into it (a `Perturb`).

    Linf: sign of the gradient; L2: the gradient's direction. The authors' code takes the gradient in training mode,
    which moves the running statistics: that is `batch_norm="batch_update"`; the default is `eval`, as for every other
    objective here. Every point, the start too, is clipped to [0, 1].
    """
    radius = objective_config.attack.eps
    step = dataclasses.replace(
        objective_config.attack,
        steps=1,
        random_start=True,
        init="uniform",
        step_size=objective_config.fast_step * radius,
    )
    return pgd.perturbed(network, variables, x, y, key, dataclasses.replace(objective_config, attack=step))


FAST = Objective("fast adversarial training (FGSM)", "adversarial", perturbed, cross_entropy, lambda steps: 5)
