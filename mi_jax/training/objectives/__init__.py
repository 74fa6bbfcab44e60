"""What a training minimises: one file per objective, registered by name.

A new objective is one file here (or a cell of a notebook): a frozen dataclass whose fields are its options.

    >>> import dataclasses
    >>> from mi_jax import training
    >>> @training.register("label-smoothing")
    ... @dataclasses.dataclass(frozen=True, kw_only=True)
    ... class Smoothed(training.Objective):
    ...     title = "label smoothing"
    ...     inputs = "clean"
    ...     smoothing: float = 0.1
    ...
    ...     @staticmethod
    ...     def forwards(steps):
    ...         return 3
    ...
    ...     def loss(self, network, variables, x, perturbed, y, key):
    ...         loss, outcome = super().loss(network, variables, x, perturbed, y, key)
    ...         return (1 - self.smoothing) * loss, outcome  # and so on
    >>> training.ObjectiveConfig(smoothing=0.2).objective("label-smoothing")
    Smoothed(smoothing=0.2)
    >>> training.OBJECTIVES.unregister("label-smoothing")
"""

from mi_jax.training.objectives.objective import OBJECTIVES, Objective, ObjectiveConfig, Outcome, register

__all__ = ["OBJECTIVES", "Objective", "ObjectiveConfig", "Outcome", "register"]
