"""Normal and adversarial training of networks, in compiled chunks of an epoch."""

from mi_jax.training.epoch import Trainer
from mi_jax.training.evaluation import evaluate, evaluate_each, predictions
from mi_jax.training.fit import Diverged, Interrupted, TrainingProgress, fit
from mi_jax.training.held_out import (
    EarlyStopping,
    HeldOutAccuracy,
    best,
    held_out_attack,
    held_out_rows,
    split_held_out,
)
from mi_jax.training.objectives import OBJECTIVES, Objective, ObjectiveConfig, Outcome, register
from mi_jax.training.optimizer import Optimizer

__all__ = [
    "OBJECTIVES",
    "Diverged",
    "EarlyStopping",
    "HeldOutAccuracy",
    "Interrupted",
    "Objective",
    "ObjectiveConfig",
    "Optimizer",
    "Outcome",
    "Trainer",
    "TrainingProgress",
    "best",
    "evaluate",
    "evaluate_each",
    "fit",
    "held_out_attack",
    "held_out_rows",
    "predictions",
    "register",
    "split_held_out",
]
