"""FAB, the fast adaptive boundary attack (Croce and Hein 2020b): minimal perturbations by steps along the boundary.

It minimises the distance and so ignores eps while it searches; a row counts as found once its distance is <= eps.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from mi_jax.attacks.engine import randomness
from mi_jax.attacks.engine.input_checks import check_count, check_eps
from mi_jax.attacks.engine.run import AttackStep, Evaluate, Rows, run
from mi_jax.attacks.losses import at
from mi_jax.attacks.projections import onto_hyperplane
from mi_jax.attacks.results import AttackResult
from mi_jax.attacks.threat_model import TINY, Norm, Scalar, check_norm, length, per_image, unit
from mi_jax.errors import InputError
from mi_jax.typing import Images, Key, LogitsFn

CLASSES_AT_ONCE = 16


@dataclasses.dataclass(frozen=True)
class FAB:
    """Settings of FAB.

    norm, eps (pixel units: the distance that counts as success), steps, restarts as in `PGD`. targets: 0 goes to
    the nearest class at each step and needs a gradient a class; n runs once against each of the n highest wrong
    classes (FAB-T). alpha_max: greatest pull back to the clean image; eta: overshoot; beta: retreat after a
    success. Raises `InputError` for values outside these.
    """

    norm: Norm | str = "linf"
    eps: float = 8 / 255
    steps: int = 100
    restarts: int = 1
    targets: int = 0
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9

    def __post_init__(self):
        check_norm(self.norm)
        check_eps(self.eps, self.norm)
        for name, least in (("steps", 1), ("restarts", 1), ("targets", 0)):
            check_count(name, getattr(self, name), least)
        if not (0 <= self.alpha_max <= 1 and self.eta >= 1 and 0 < self.beta <= 1):
            raise InputError("FAB needs alpha_max in [0, 1], eta >= 1 and beta in (0, 1]; 0.1, 1.05, 0.9 are usual.")


class FABState(NamedTuple):
    """Per-row state: the walking point, the nearest adversarial image so far and its distance, and success."""

    point: Images
    nearest: Images
    distance: Float[Array, " r"]
    images: Images
    found: Array


def begin(config: FAB, rows: Rows, bits: randomness.Bits, eps: Scalar) -> FABState:
    """Start at the clean image; restarts after the first start half of eps away from it in a random direction."""
    start = rows.images
    if config.restarts > 1:
        draws = bits.reshape(start.shape)
        noise = 2 * randomness.uniform(draws) - 1 if config.norm == "linf" else randomness.normal(draws)
        away = jnp.clip(start + eps / 2 * unit(noise.astype(start.dtype), config.norm), 0, 1)
        start = jnp.where(per_image(rows.restarts > 0), away, start)
    none = jnp.full(len(start), jnp.inf, start.dtype)
    return FABState(start, rows.images, none, rows.images, jnp.zeros(len(start), bool))


def advance(evaluate: Evaluate, config: FAB, rows: Rows, state: FABState, bits, first, count, eps) -> FABState:
    """Make `count` steps: linearise, project the point and the clean image, mix, overshoot, retreat if adversarial."""
    del bits
    boundary = _towards_target if config.targets else _nearest_boundary

    def iteration(i, s):
        difference, gradient = boundary(evaluate, rows, s.point, i, config.norm)
        point = _step(config, rows.images, s.point, difference, gradient)
        wrong = jnp.argmax(evaluate(point, i), axis=1) != rows.labels
        distance = length(point - rows.images, config.norm)
        nearer = wrong & (distance < s.distance)
        s = s._replace(
            nearest=jnp.where(per_image(nearer), point, s.nearest),
            distance=jnp.where(nearer, distance, s.distance),
            point=jnp.where(per_image(wrong), rows.images + (point - rows.images) * config.beta, point),
        )
        found = s.distance <= eps
        return s._replace(found=found, images=jnp.where(per_image(found), s.nearest, rows.images))

    return jax.lax.fori_loop(first, first + count, iteration, state)


def _towards_target(evaluate: Evaluate, rows: Rows, point: Images, i, norm: str):
    """z_t - z_y and its gradient for each row's target class."""

    def total(x):
        logits = evaluate(x, i)
        difference = at(logits, rows.targets) - at(logits, rows.labels)
        return jnp.sum(difference), difference

    gradient, difference = jax.grad(total, has_aux=True)(point)
    return difference, gradient


def _nearest_boundary(evaluate: Evaluate, rows: Rows, point: Images, i, norm: str):
    """z_k - z_y and its gradient for the class k whose linearised boundary is nearest to each row's point."""
    logits, pull = jax.vjp(lambda x: evaluate(x, i), point)
    classes = logits.shape[1]
    own = jax.nn.one_hot(rows.labels, classes, dtype=logits.dtype)
    differences = logits - at(logits, rows.labels)[:, None]

    def slope(k):
        gradient = pull(jax.nn.one_hot(k, classes, dtype=logits.dtype) - own)[0]
        return length(gradient, "l2") if norm == "l2" else jnp.sum(jnp.abs(gradient), axis=(1, 2, 3))

    slopes = jax.lax.map(slope, jnp.arange(classes), batch_size=min(classes, CLASSES_AT_ONCE)).T
    distance = jnp.where(own > 0, jnp.inf, jnp.abs(differences) / (slopes + TINY))
    nearest = jnp.argmin(distance, axis=1)
    gradient = pull(jax.nn.one_hot(nearest, classes, dtype=logits.dtype) - own)[0]
    return at(differences, nearest), gradient


def _step(config: FAB, clean: Images, point: Images, difference: Array, gradient: Images) -> Images:
    """Move to the linearised boundary from the point and from the clean image, and mix the two with overshoot."""
    rows = len(point)
    x, x0, w = (a.reshape(rows, -1) for a in (point, clean, gradient))
    offset = jnp.sum(w * x, axis=1) - difference
    # One call for both projections halves the passes of the solver.
    both = onto_hyperplane(
        jnp.concatenate([x, x0]), jnp.concatenate([w, w]), jnp.concatenate([offset, offset]), config.norm
    ).reshape((2, *point.shape))
    sizes = [jnp.maximum(length(move, config.norm), 1e-8) for move in both]
    alpha = per_image(jnp.minimum(sizes[0] / (sizes[0] + sizes[1]), config.alpha_max))
    return jnp.clip((point + config.eta * both[0]) * (1 - alpha) + (clean + config.eta * both[1]) * alpha, 0, 1)


ATTACK_STEP = AttackStep(
    begin=begin,
    advance=advance,
    iterations=lambda config: config.steps,
    start_words=lambda config, shape: shape[0] * shape[1] * shape[2] if config.restarts > 1 else 0,
    step_words=lambda config, shape: 0,
)


def fab(
    logits_fn: LogitsFn, variables: Any, x: ArrayLike, y: ArrayLike, key: Key, *, config: FAB, eps: Any = None
) -> AttackResult:
    """Attack images by FAB; restarts and targets folded into the batch, the first restart from the clean image.

    Arguments, `eps` and errors as for `pgd`. Where no adversarial image within eps was found, the clean image is
    returned. Raises `InputError` also for eps = 0.
    """
    return run(ATTACK_STEP, config, logits_fn, variables, x, y, key, eps)
