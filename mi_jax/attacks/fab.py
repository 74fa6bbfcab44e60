"""FAB, the fast adaptive boundary attack (Croce and Hein 2020b): minimal perturbations, by projections.

It minimises the distance whatever eps is; eps only sets where restarts start and which distance counts as a success.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from mi_jax import checks
from mi_jax.attacks.attack import Attack, AttackResult, Faults, Outcome, Problem, Words, check_config, register
from mi_jax.attacks.engine import randomness
from mi_jax.attacks.engine.run import run
from mi_jax.attacks.losses import at, misclassified
from mi_jax.attacks.projections import onto_hyperplane
from mi_jax.attacks.threat_model import DUAL, TINY, flat, largest_entry, length, per_image, unit
from mi_jax.typing import Flags, Images, Key, LogitsFn

CLASSES_AT_ONCE = 16


class FABState(NamedTuple):
    """Per-row state: the current point, the nearest adversarial image so far and its distance, and success."""

    point: Images
    nearest: Images
    distance: Float[Array, " r"]
    images: Images
    found: Flags
    faults: Faults


@register("fab")
@dataclasses.dataclass(frozen=True)
class FAB(Attack):
    """Settings of FAB (Croce and Hein 2020b).

    Attributes:
        norm, eps, restarts: as in `PGD`; eps is the distance that counts as success.
        steps: iterations.
        targets: 0 to move to the nearest class boundary at each step, which needs a gradient per class; n for one run
            against each of the n highest wrong classes (FAB-T).
        alpha_max: largest weight of the projection of the clean image.
        eta: factor by which a step overshoots the boundary.
        beta: share of the perturbation that is kept after a success.

    Raises:
        InputError: for values outside these.
    """

    steps: int = 100
    restarts: int = 1
    targets: int = 0
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9

    budget: ClassVar[dict[str, str]] = {"steps": "fab_steps", "restarts": "restarts", "targets": "targets"}

    def __post_init__(self):
        super().__post_init__()
        checks.between("alpha_max", self.alpha_max, 0, 1, usual="0.1")
        checks.at_least("eta", self.eta, 1, usual="1.05")
        checks.portion("beta", self.beta, usual="0.9")

    @property
    def iterations(self) -> int:
        """As many as steps, each of which evaluates the point that it reaches."""
        return self.steps

    def start_words(self, shape: tuple[int, ...]) -> int:
        """One word for each pixel and channel where there are restarts."""
        return shape[0] * shape[1] * shape[2] if self.restarts > 1 else 0

    def initial_state(self, problem: Problem, words: Words) -> FABState:
        """State at the clean image, and for later restarts at a random point half of eps away from it."""
        clean = start = problem.clean
        if words is not None:
            draws = words.reshape(clean.shape)
            noise = 2 * randomness.uniform(draws) - 1 if self.norm == "linf" else randomness.normal(draws)
            away = jnp.clip(clean + self.eps / 2 * unit(noise.astype(clean.dtype), str(self.norm)), 0, 1)
            start = jnp.where(per_image(problem.batch.restarts > 0), away, clean)
        wrong = misclassified(problem.logits(clean, 0), problem.labels)
        distance = jnp.where(wrong, 0, jnp.inf).astype(start.dtype)
        return FABState(start, clean, distance, clean, wrong, Faults.none(len(start)))

    def step(self, problem: Problem, state: FABState, i: Any, words: Words) -> FABState:
        """Projects the point and the clean image onto the linearised boundary, and moves back if adversarial."""
        boundary = _towards_target if self.targets else _nearest_boundary
        difference, gradient, already = boundary(problem, state.point, i)
        finite = jnp.isfinite(difference)
        faults = state.faults.add(jnp.where(per_image(finite), gradient, jnp.nan), already)
        difference, gradient = jnp.where(finite, difference, 0), jnp.where(jnp.isfinite(gradient), gradient, 0)
        largest = largest_entry(gradient)
        point = _move(self, problem.clean, state.point, difference / largest[:, 0, 0, 0], gradient / largest)
        wrong = misclassified(problem.logits(point, i), problem.labels)
        distance = problem.threat.distance(point, problem.clean)
        nearer = wrong & (distance < state.distance)
        nearest = jnp.where(per_image(nearer), point, state.nearest)
        least = jnp.where(nearer, distance, state.distance)
        found = least <= problem.threat.radii
        return FABState(
            point=jnp.where(per_image(wrong), problem.clean + (point - problem.clean) * self.beta, point),
            nearest=nearest,
            distance=least,
            images=jnp.where(per_image(found), nearest, problem.clean),
            found=found,
            faults=faults,
        )

    def outcome(self, state: FABState) -> Outcome:
        """The nearest adversarial image within eps, else the clean image."""
        return Outcome(state.images, state.found, rank=-state.distance, faults=state.faults)


register("fab-t", FAB(targets=9))


def _towards_target(problem: Problem, point: Images, i: Any):
    """z_t - z_y and its gradient for each row's target class, and whether the point is misclassified."""
    targets, labels = problem.batch.targets, problem.labels
    assert targets is not None

    def total(x):
        logits = problem.logits(x, i)
        difference = at(logits, targets) - at(logits, labels)
        return jnp.sum(difference), (difference, misclassified(logits, labels))

    gradient, (difference, wrong) = jax.grad(total, has_aux=True)(point)
    return difference, gradient, wrong


def _nearest_boundary(problem: Problem, point: Images, i: Any):
    """z_k - z_y and its gradient for the class k whose linearised boundary is nearest, and misclassification."""
    logits, pull = jax.vjp(lambda x: problem.logits(x, i), point)
    classes, dual = logits.shape[1], DUAL[problem.threat.norm]
    own = jax.nn.one_hot(problem.labels, classes, dtype=logits.dtype)
    differences = logits - at(logits, problem.labels)[:, None]

    def slope(k):
        gradient = pull(jax.nn.one_hot(k, classes, dtype=logits.dtype)[None] - own)[0]
        gradient = jnp.where(jnp.isfinite(gradient), gradient, 0)
        largest = largest_entry(gradient)
        return largest[:, 0, 0, 0], length(gradient / largest, dual)

    largest, slopes = jax.lax.map(slope, jnp.arange(classes), batch_size=min(classes, CLASSES_AT_ONCE))
    distance = jnp.where(own > 0, jnp.inf, jnp.abs(differences) / largest.T / (slopes.T + TINY))
    nearest = jnp.argmin(distance, axis=1)
    gradient = pull(jax.nn.one_hot(nearest, classes, dtype=logits.dtype) - own)[0]
    return at(differences, nearest), gradient, misclassified(logits, problem.labels)


def _move(config: FAB, clean: Images, point: Images, difference: Array, gradient: Images) -> Images:
    """Average of the projections of the point and of the clean image onto the linearised boundary, with overshoot."""
    x, x0, w = flat(point), flat(clean), flat(gradient)
    offset = jnp.sum(w * x, axis=1) - difference
    # Both projections in one call, which halves the passes of the solver.
    both = onto_hyperplane(
        jnp.concatenate([x, x0]), jnp.concatenate([w, w]), jnp.concatenate([offset, offset]), config.norm
    ).reshape((2, *point.shape))
    sizes = [jnp.maximum(length(move, config.norm), 1e-8) for move in both]
    alpha = per_image(jnp.minimum(sizes[0] / (sizes[0] + sizes[1]), config.alpha_max))
    return jnp.clip((point + config.eta * both[0]) * (1 - alpha) + (clean + config.eta * both[1]) * alpha, 0, 1)


def fab(
    logits_fn: LogitsFn,
    variables: Any,
    x: Any,
    y: Any,
    key: Key | int | None = None,
    *,
    config: FAB,
    eps: ArrayLike | None = None,
) -> AttackResult:
    """Attacks images by FAB (Croce and Hein 2020b); restarts and targets share one batch.

    Args:
        logits_fn, variables, x, y: as for `pgd`.
        key: a random key or a seed, needed for more than one restart: the first starts at the clean image.
        config: settings.
        eps: replaces that of the configuration, with one number or one per image [b]; may be traced.

    Returns:
        The nearest adversarial image found within eps, or the clean image where there is none.

    Raises:
        InputError: as `pgd`, and for eps = 0.
    """
    check_config(config, FAB)
    return run(logits_fn, variables, x, y, key, config=config, eps=eps)
