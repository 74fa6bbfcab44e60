"""Normal training: cross-entropy on clean images."""

from dataclasses import dataclass

from mi_jax.training.objectives.objective import Objective, register


@register("nt")
@dataclass(frozen=True, kw_only=True)
class Normal(Objective):
    """Cross-entropy on the images as they are."""

    title = "normal training"
    inputs = "clean"

    @staticmethod
    def forwards(steps: int) -> int:
        """One forward pass, and a backward pass that costs two."""
        return 3
