"""MI-FGSM (Dong et al. 2018, algorithm 1): signed gradient steps along an accumulated, normalised gradient."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_jax import checks
from mi_jax.attacks.attack import Attack, Faults, Outcome, Problem, Words, register
from mi_jax.attacks.losses import Loss
from mi_jax.attacks.threat_model import TINY, largest_entry, per_image
from mi_jax.typing import Flags, Images


class MomentumState(NamedTuple):
    """Per-row state: the iterate, the accumulated gradient, and the best iterate so far with its loss and success."""

    point: Images
    velocity: Images
    images: Images
    loss: Float[Array, " r"]
    found: Flags
    faults: Faults


@register("mi-fgsm")
@dataclasses.dataclass(frozen=True)
class Momentum(Attack):
    """Settings of MI-FGSM (Dong et al. 2018).

    Attributes:
        norm, eps: as in `PGD`.
        steps: gradient steps.
        step_size: length of a step, pixel units of [0, 1]; None for 2/255 in Linf and eps / 4 in L2 and L1.
        decay: factor of the accumulated gradient at each step (mu).
        loss: `ce`, `dlr` or `cw`.

    Raises:
        InputError: for values outside these.
    """

    steps: int = 10
    step_size: float = None  # pyright: ignore[reportAssignmentType]  # a number once `__post_init__` has run
    decay: float = 1.0
    loss: Loss | str = "ce"

    traced: ClassVar[tuple[str, ...]] = ("eps", "step_size")

    def __post_init__(self):
        super().__post_init__()
        checks.one_of("loss", self.loss, ("ce", "dlr", "cw"))
        checks.at_least("decay", self.decay, 0, usual="1.0")

    def initial_state(self, problem: Problem, words: Words) -> MomentumState:
        """State at the clean image, without momentum."""
        clean, rows = problem.clean, len(problem.clean)
        lowest, found = jnp.full(rows, -jnp.inf, clean.dtype), jnp.zeros(rows, bool)
        return MomentumState(clean, jnp.zeros_like(clean), clean, lowest, found, Faults.none(rows))

    def step(self, problem: Problem, state: MomentumState, i: Any, words: Words) -> MomentumState:
        """Keeps the iterate if it is the best so far, and moves along the accumulated gradient."""
        gradient, seen = problem.gradient(state.point, i, self.loss)
        finite = jnp.where(jnp.isfinite(gradient), gradient, 0)
        scaled = finite / largest_entry(finite)
        velocity = self.decay * state.velocity + scaled / (per_image(jnp.mean(jnp.abs(scaled), axis=(1, 2, 3))) + TINY)
        moved = state.point + self.step_size * problem.threat.steepest(velocity)
        better = (seen.wrong & ~state.found) | ((seen.wrong == state.found) & (seen.losses > state.loss))
        return MomentumState(
            point=problem.threat.project(moved, problem.clean),
            velocity=velocity,
            images=jnp.where(per_image(better), state.point, state.images),
            loss=jnp.where(better, seen.losses, state.loss),
            found=state.found | seen.wrong,
            faults=state.faults.add(gradient, seen.wrong),
        )

    def outcome(self, state: MomentumState) -> Outcome:
        """The best iterate: misclassified if any is, then of highest loss."""
        return Outcome(state.images, state.found, loss=state.loss, faults=state.faults)
