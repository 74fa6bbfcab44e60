"""What a training minimises, by name: one objective is one file and one line here. Knows neither optimizer nor loop."""

from mi_jax.training.objectives.fast import FAST
from mi_jax.training.objectives.mart import MART
from mi_jax.training.objectives.normal import NOISE, NORMAL
from mi_jax.training.objectives.objective import Objective, ObjectiveConfig, Outcome
from mi_jax.training.objectives.pgd import PGD_TRAINING
from mi_jax.training.objectives.trades import TRADES

OBJECTIVES: dict[str, Objective] = {
    "nt": NORMAL,
    "at": PGD_TRAINING,
    "trades": TRADES,
    "mart": MART,
    "fast": FAST,
    "noise": NOISE,
}
"""Training objectives by the name that `--training` takes."""

__all__ = ["OBJECTIVES", "Objective", "ObjectiveConfig", "Outcome"]
