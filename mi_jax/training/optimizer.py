"""The optimizer of a training: optax updates with schedules counted in epochs."""

import itertools
import numbers
from dataclasses import dataclass
from typing import Literal, get_args

import jax
import optax

from mi_jax import checks
from mi_jax.errors import InputError

Name = Literal["sgd", "adam"]
Schedule = Literal["constant", "multistep", "cosine", "triangle"]


@dataclass(frozen=True)
class Optimizer:
    """Settings of the optimizer; the paper's are SGD 0.1, momentum 0.9, multi-step decay.

    Attributes:
        name: `sgd` (with momentum) or `adam` (AdamW).
        learning_rate: highest learning rate of the schedule.
        momentum: momentum of sgd; 0 for none.
        nesterov: use Nesterov's form of the momentum.
        weight_decay: for kernels; biases and normalisation are not decayed. Under sgd it is added to the gradient (L2),
            under adam it is decoupled.
        schedule: `constant`; `multistep` (times `decay` at each milestone); `cosine` (to 0); `triangle` (linear rise
            over the warm-up, linear fall to 0).
        milestones: milestones of multistep, as increasing fractions of the training.
        decay: factor at a milestone.
        warmup: warm-up of triangle, as a fraction of the training.

    Raises:
        InputError: for values outside their range.
    """

    name: Name = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: Schedule = "multistep"
    milestones: tuple[float, ...] = (0.5, 0.75)
    decay: float = 0.1
    warmup: float = 0.2

    def __post_init__(self):
        checks.one_of("optimizer.name", self.name, get_args(Name))
        checks.one_of("optimizer.schedule", self.schedule, get_args(Schedule))
        checks.positive("optimizer.learning_rate", self.learning_rate, usual="0.1")
        checks.at_least("optimizer.weight_decay", self.weight_decay, 0)
        checks.flag("optimizer.nesterov", self.nesterov)
        for name in ("momentum", "decay", "warmup"):
            checks.between(f"optimizer.{name}", getattr(self, name), 0, 1)
        bounds = (0, *self.milestones, 1) if isinstance(self.milestones, tuple) else ()
        rising = bounds and all(isinstance(bound, numbers.Real) for bound in bounds)
        if not rising or not all(low < high for low, high in itertools.pairwise(bounds)):
            raise InputError(
                f"Invalid optimizer.milestones {self.milestones!r}: expected increasing fractions of the training, "
                "such as (0.5, 0.75)."
            )


def learning_rate(config: Optimizer, *, epochs: int, steps_per_epoch: int) -> optax.Schedule:
    """The learning rate as a function of the update count.

    Milestones fall on the nearest epoch boundary, none before the first epoch is done.

    Examples:
        >>> rate = learning_rate(Optimizer(), epochs=4, steps_per_epoch=10)
        >>> [round(float(rate(step)), 6) for step in (0, 19, 20, 30)]
        [0.1, 0.1, 0.01, 0.001]
    """
    total = max(epochs * steps_per_epoch, 1)
    peak = config.learning_rate
    if config.schedule == "cosine":
        return optax.cosine_decay_schedule(peak, total)
    if config.schedule == "triangle":
        top = round(config.warmup * total)
        rise, fall = optax.linear_schedule(0.0, peak, top), optax.linear_schedule(peak, 0.0, total - top)
        return optax.join_schedules([rise, fall], [top]) if top else fall
    if config.schedule == "multistep":
        boundaries: dict[int, float] = {}
        for milestone in config.milestones:
            step = max(1, round(milestone * epochs)) * steps_per_epoch
            boundaries[step] = boundaries.get(step, 1.0) * config.decay
        return optax.piecewise_constant_schedule(peak, boundaries)
    return optax.constant_schedule(peak)


def build(config: Optimizer, *, epochs: int, steps_per_epoch: int) -> optax.GradientTransformation:
    """The optax transformation that `config` describes."""
    rate = learning_rate(config, epochs=epochs, steps_per_epoch=steps_per_epoch)
    if config.name == "adam":
        return optax.adamw(rate, weight_decay=config.weight_decay, mask=_kernels)
    momentum = config.momentum or None
    sgd = optax.sgd(rate, momentum=momentum, nesterov=config.nesterov)
    return optax.chain(optax.add_decayed_weights(config.weight_decay, mask=_kernels), sgd)


def _kernels(params):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
