"""FMN and DDN: minimal perturbations, by gradient steps in a ball whose radius adapts.

The radius shrinks where the point is misclassified and grows where it is not. As in FAB, eps only sets which distance
counts as a success.
"""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from mi_jax import checks
from mi_jax.attacks.attack import Attack, AttackResult, Faults, Outcome, Point, Problem, Words, check_config, register
from mi_jax.attacks.engine.run import run
from mi_jax.attacks.threat_model import DUAL, TINY, Norm, ThreatModel, largest_entry, length, per_image, unit
from mi_jax.errors import InputError
from mi_jax.typing import Flags, Images, Key, LogitsFn

LAST_STEP = 0.01
"""Length of the last step as a share of that of the first."""
LAST_GAMMA = 0.001
"""Relative change of the radius of FMN in the last iteration."""


class AdaptiveRadiusState(NamedTuple):
    """Per-row state: the point, the radius, the nearest adversarial image so far and its distance, and success."""

    point: Images
    radius: Float[Array, " r"]
    nearest: Images
    distance: Float[Array, " r"]
    images: Images
    found: Flags
    faults: Faults


@dataclasses.dataclass(frozen=True)
class AdaptiveRadius(Attack):
    """What FMN and DDN share: each iteration evaluates the point, sets the radius, and moves inside its ball.

    Attributes:
        norm, eps: as in `PGD`; eps is the distance that counts as success.
        steps: iterations, of one gradient each.
        targets: 0 for the untargeted attack; n for one run against each of the n highest wrong classes.
        max_step_size: L2 length of the first step, pixel units of [0, 1]; cosine annealing reduces it to a hundredth.
        gamma: relative change of the radius after an iteration.
    """

    steps: int = 100
    targets: int = 0
    max_step_size: float = 1.0
    gamma: float = 0.05

    def __post_init__(self):
        super().__post_init__()
        checks.positive("max_step_size", self.max_step_size, usual="1.0")
        checks.positive("gamma", self.gamma, usual="0.05")
        if self.gamma >= 1:
            raise InputError(f"Invalid gamma {self.gamma!r}: expected a number between 0 and 1, such as 0.05.")

    @property
    def iterations(self) -> int:
        """As many as steps; the point that the last one moves to is not evaluated, as in foolbox."""
        return self.steps

    def first_radius(self, problem: Problem) -> Array:
        """The radius of each row before the first iteration [r], or [1]."""
        raise NotImplementedError

    def next_radius(
        self, state: AdaptiveRadiusState, distance: Array, gradient: Images, seen: Point, annealing: Array
    ) -> Array:
        """The radius of each row [r] for the next point.

        `distance` [r] and `seen` are those of the point, `annealing` falls from 1 to 0, and `state` already has the
        point where it is the nearest adversarial image. The gradient and the losses are divided by the largest entry
        of the gradient, so that nothing depends on the scale of the logits.
        """
        raise NotImplementedError

    def into_ball(self, point: Images, clean: Images, radius: Array) -> Images:
        """The next point: within the radius and within [0, 1]."""
        raise NotImplementedError

    def initial_state(self, problem: Problem, words: Words) -> AdaptiveRadiusState:
        """State at the clean image."""
        clean, rows = problem.clean, len(problem.clean)
        radius = jnp.broadcast_to(self.first_radius(problem), rows).astype(clean.dtype)
        none = jnp.full(rows, jnp.inf, clean.dtype)
        return AdaptiveRadiusState(clean, radius, clean, none, clean, jnp.zeros(rows, bool), Faults.none(rows))

    def step(self, problem: Problem, state: AdaptiveRadiusState, i: Any, words: Words) -> AdaptiveRadiusState:
        """Keeps the point if it is the nearest adversarial one, adapts the radius and takes a normalised step."""
        clean, point = problem.clean, state.point
        gradient, seen = problem.gradient(point, i, self.loss)
        state = state._replace(faults=state.faults.add(gradient, seen.wrong))
        gradient = jnp.where(jnp.isfinite(gradient), gradient, 0)
        largest = largest_entry(gradient)
        gradient, seen = gradient / largest, seen._replace(losses=seen.losses / largest[:, 0, 0, 0])
        distance = problem.threat.distance(point, clean)
        nearer = seen.wrong & (distance <= state.distance)
        state = state._replace(
            nearest=jnp.where(per_image(nearer), point, state.nearest),
            distance=jnp.where(nearer, distance, state.distance),
        )
        annealing = (1 + jnp.cos(jnp.pi / self.steps * jnp.asarray(i, clean.dtype))) / 2
        farthest = length(jnp.maximum(clean, 1 - clean), problem.threat.norm)
        radius = jnp.minimum(self.next_radius(state, distance, gradient, seen, annealing), farthest)
        step_size = self.max_step_size * (LAST_STEP + (1 - LAST_STEP) * annealing)
        found = state.distance <= problem.threat.radii
        return state._replace(
            point=self.into_ball(point + step_size * unit(gradient, "l2"), clean, radius),
            radius=radius,
            images=jnp.where(per_image(found), state.nearest, clean),
            found=found,
        )

    def outcome(self, state: AdaptiveRadiusState) -> Outcome:
        """The nearest adversarial image within eps, else the clean image."""
        return Outcome(state.images, state.found, rank=-state.distance, faults=state.faults)


@register("fmn")
@dataclasses.dataclass(frozen=True)
class FMN(AdaptiveRadius):
    """Settings of FMN, the fast minimum-norm attack on the margin (Pintor et al. 2021), in Linf, L2 and L1.

    Until a point is misclassified, the radius is the distance to the boundary by its linearisation; then it shrinks or
    grows by `gamma`, annealed to 0.001.

    Iterates with `grow_until_found=False` equal those of foolbox 3.3.4 in Linf. They cannot in L2, where foolbox does
    not project (it divides a norm by itself), nor in L1, where it clips to [0, 1] after the projection, while this
    attack projects onto the intersection of ball and box; with these projections foolbox's iterates equal ours.

    Attributes:
        norm, eps: as in `PGD`; eps is the distance that counts as success.
        steps: iterations, of one gradient each.
        targets: 0 for the untargeted attack; n for one run against each of the n highest wrong classes.
        max_step_size: L2 length of the first step, pixel units of [0, 1]; cosine annealing reduces it to a hundredth.
        gamma: relative change of the radius after the first iteration.
        grow_until_found: let the radius grow by at least `gamma` in each iteration until a point is misclassified.
            Without this, the published rule, points approach the boundary from inside and often never cross it: on
            piecewise linear models, and in L2 where pixels are at 0 or 1.

    Raises:
        InputError: for values outside these.
    """

    grow_until_found: bool = True

    loss = "cw"

    def __post_init__(self):
        super().__post_init__()
        checks.flag("grow_until_found", self.grow_until_found)

    def first_radius(self, problem: Problem) -> Array:
        """Zero, since the first iteration chooses the radius."""
        return jnp.zeros(1)

    def next_radius(
        self, state: AdaptiveRadiusState, distance: Array, gradient: Images, seen: Point, annealing: Array
    ) -> Array:
        """Pintor et al. 2021, algorithm 1, for p > 0."""
        gamma = LAST_GAMMA + (self.gamma - LAST_GAMMA) * annealing
        linearised = distance + jnp.abs(seen.losses) / (length(gradient, DUAL[str(self.norm)]) + TINY)
        grown = state.radius * (1 + gamma)
        unfound = jnp.maximum(linearised, grown) if self.grow_until_found else linearised
        outside = jnp.where(jnp.isfinite(state.distance), grown, unfound)
        return jnp.where(seen.wrong, jnp.minimum(state.radius * (1 - gamma), state.distance), outside)

    def into_ball(self, point: Images, clean: Images, radius: Array) -> Images:
        """The projection into the ball and [0, 1]."""
        return ThreatModel(str(self.norm), radius).project(point, clean)


@register("ddn")
@dataclasses.dataclass(frozen=True)
class DDN(AdaptiveRadius):
    """Settings of DDN, decoupled direction and norm on the cross-entropy (Rony et al. 2019), in L2 only.

    Points lie on the sphere of the radius, before they are clipped to [0, 1]. Distances below about
    init_radius (1 - gamma)^steps, which is 0.006 by default, are out of reach. Iterates equal those of foolbox 3.3.4,
    except that a zero gradient takes no step, where foolbox takes a random one. The perturbation is not quantised.

    Attributes:
        norm, eps: `l2`, and the distance that counts as success, pixel units of [0, 1].
        steps: iterations, of one gradient each.
        targets: 0 for the untargeted attack; n for one run against each of the n highest wrong classes.
        max_step_size: L2 length of the first step, pixel units of [0, 1]; cosine annealing reduces it to a hundredth.
        gamma: relative change of the radius after an iteration.
        init_radius: radius in the first iteration, pixel units of [0, 1]; eps if that is smaller.

    Raises:
        InputError: for values outside these.
    """

    norm: Norm | str = "l2"
    init_radius: float = 1.0

    loss = "ce"
    norms = ("l2",)

    def __post_init__(self):
        super().__post_init__()
        checks.positive("init_radius", self.init_radius, usual="1.0")

    def first_radius(self, problem: Problem) -> Array:
        """`init_radius`, or eps if that is smaller."""
        return jnp.minimum(problem.threat.radii, self.init_radius)

    def next_radius(
        self, state: AdaptiveRadiusState, distance: Array, gradient: Images, seen: Point, annealing: Array
    ) -> Array:
        """Smaller by `gamma` where the point is misclassified, else larger (Rony et al. 2019, algorithm 1)."""
        return state.radius * jnp.where(seen.wrong, 1 - self.gamma, 1 + self.gamma).astype(state.radius.dtype)

    def into_ball(self, point: Images, clean: Images, radius: Array) -> Images:
        """The point at the radius in the same direction, clipped."""
        return jnp.clip(clean + per_image(radius) * unit(point - clean, "l2"), 0, 1)


def fmn(
    logits_fn: LogitsFn,
    variables: Any,
    x: Any,
    y: Any,
    key: Key | int | None = None,
    *,
    config: FMN,
    eps: ArrayLike | None = None,
) -> AttackResult:
    """Attacks images by FMN (Pintor et al. 2021, algorithm 1), which minimises the norm of the perturbation.

    Args:
        logits_fn, variables, x, y: as for `pgd`.
        key: a random key or a seed; not used, as the attack starts at the clean image.
        config: settings.
        eps: replaces that of the configuration, with one number or one per image [b]; may be traced.

    Returns:
        The nearest adversarial image found within eps, or the clean image where there is none.

    Raises:
        InputError: as `pgd`, and for eps = 0.
    """
    check_config(config, FMN)
    return run(logits_fn, variables, x, y, key, config=config, eps=eps)


def ddn(
    logits_fn: LogitsFn,
    variables: Any,
    x: Any,
    y: Any,
    key: Key | int | None = None,
    *,
    config: DDN,
    eps: ArrayLike | None = None,
) -> AttackResult:
    """Attacks images by DDN (Rony et al. 2019, algorithm 1), which minimises the L2 norm of the perturbation.

    Args:
        logits_fn, variables, x, y: as for `pgd`.
        key: a random key or a seed; not used, as the attack starts at the clean image.
        config: settings.
        eps: replaces that of the configuration, with one number or one per image [b]; may be traced.

    Returns:
        The nearest adversarial image found within eps, or the clean image where there is none.

    Raises:
        InputError: as `pgd`, and for eps = 0.
    """
    check_config(config, DDN)
    return run(logits_fn, variables, x, y, key, config=config, eps=eps)
