"""Training of networks, normal and adversarial, in compiled chunks of an epoch. Saves nothing and prints nothing."""

from mi_jax.training.epoch import Trainer
from mi_jax.training.evaluation import evaluate, predictions
from mi_jax.training.fit import Diverged, Interrupted, Moment, fit
from mi_jax.training.held_out import EpochEnd, Watch, held_out_attack, held_out_rows, set_apart
from mi_jax.training.objectives import OBJECTIVES, Adversary, Objective
from mi_jax.training.optimizer import Optimizer

__all__ = [
    "OBJECTIVES",
    "Adversary",
    "Diverged",
    "EpochEnd",
    "Interrupted",
    "Moment",
    "Objective",
    "Optimizer",
    "Trainer",
    "Watch",
    "evaluate",
    "fit",
    "held_out_attack",
    "held_out_rows",
    "predictions",
    "set_apart",
]
