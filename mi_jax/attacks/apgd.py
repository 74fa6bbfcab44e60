"""Auto-PGD (Croce and Hein 2020): gradient ascent whose step size follows its own progress. No model lives here.

Untargeted on cross-entropy or DLR, or targeted on the DLR ratio (APGD-T) with one row a target class.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from mi_jax.attacks.engine import randomness
from mi_jax.attacks.engine.input_checks import check_count, check_eps
from mi_jax.attacks.engine.run import AttackStep, Evaluate, Rows, run
from mi_jax.attacks.losses import Loss, check_loss, loss_of
from mi_jax.attacks.results import AttackResult
from mi_jax.attacks.threat_model import Norm, Scalar, check_norm, length, per_image, steepest, unit
from mi_jax.errors import InputError
from mi_jax.typing import Images, Key, LogitsFn


@dataclasses.dataclass(frozen=True)
class APGD:
    """Settings of Auto-PGD.

    norm, eps (pixel units), steps, restarts as in `PGD`. loss: `ce`, `dlr` or `cw`. targets: 0 for the untargeted
    attack; n for one run against each of the n highest wrong classes of the clean image (APGD-T: loss `dlr`,
    targets 9). rho: share of increasing steps below which the step is halved. eot_draws: gradients averaged over
    the noise of a random model, `logits_fn(variables, x, key)`. wrapped_first_check: count the first iterate as
    an increase if its loss is positive, an indexing slip of the official code that parity tests need.
    Raises `InputError` for values outside these.
    """

    norm: Norm | str = "linf"
    eps: float = 8 / 255
    steps: int = 100
    restarts: int = 1
    loss: Loss | str = "ce"
    targets: int = 0
    rho: float = 0.75
    eot_draws: int = 1
    wrapped_first_check: bool = False

    def __post_init__(self):
        check_norm(self.norm)
        check_eps(self.eps, self.norm)
        for name, least in (("steps", 1), ("restarts", 1), ("targets", 0), ("eot_draws", 1)):
            check_count(name, getattr(self, name), least)
        check_loss(self.loss)
        if self.loss == "kl":
            raise InputError("APGD needs a loss that ranks by label: use 'ce', 'dlr' or 'cw', not 'kl'.")
        if not 0 < self.rho <= 1:
            raise InputError(f"rho must lie in (0, 1]; got {self.rho!r} (0.75 is usual).")


class APGDState(NamedTuple):
    """Per-row state: where the ascent is, the best point with its gradient, and what the next checkpoint compares."""

    point: Images
    previous: Images
    best: Images
    best_gradient: Images
    best_loss: Float[Array, " r"]
    step_size: Float[Array, " r"]
    last_loss: Float[Array, " r"]
    increases: Int[Array, " r"]
    best_at_check: Float[Array, " r"]
    halved: Bool[Array, " r"]
    adversarial: Images
    found: Bool[Array, " r"]

    @property
    def images(self) -> Images:
        """The last misclassified iterate, else the iterate of highest loss."""
        return jnp.where(per_image(self.found), self.adversarial, self.best)


def checkpoints(steps: int) -> np.ndarray:
    """Window length at each step that ends one, else 0 [steps]: after 22, 41, 57, 70, 80, 87, 93, 99 of 100."""
    window, least, shrink = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    table = np.zeros(steps, np.int32)
    last = 0
    while last + window <= steps:
        last += window
        table[last - 1] = window
        window = max(window - shrink, least)
    return table


def random_start(bits: randomness.Bits, images: Images, eps: Scalar, norm: str) -> Images:
    """A start on the surface of the ball: uniform noise scaled to Linf length eps, or a Gaussian direction."""
    draws = bits.reshape(images.shape)
    noise = 2 * randomness.uniform(draws) - 1 if norm == "linf" else randomness.normal(draws)
    return jnp.clip(images + eps * unit(noise.astype(images.dtype), norm), 0, 1)


def begin(config: APGD, rows: Rows, bits: randomness.Bits, eps: Scalar) -> APGDState:
    """State before the first evaluation, at a random start in each row."""
    return begin_at(random_start(bits, rows.images, eps, config.norm), eps)


def begin_at(start: Images, eps: Scalar) -> APGDState:
    """State before the first evaluation, at the given images."""
    rows = len(start)
    least = jnp.full(rows, -jnp.inf, start.dtype)
    no, zero = jnp.zeros(rows, bool), jnp.zeros_like(start)
    return APGDState(
        point=start,
        previous=start,
        best=start,
        best_gradient=zero,
        best_loss=least,
        step_size=jnp.full(rows, 2 * eps, start.dtype),
        last_loss=least,
        increases=jnp.zeros(rows, jnp.int32),
        best_at_check=least,
        halved=~no,
        adversarial=start,
        found=no,
    )


def advance(evaluate: Evaluate, config: APGD, rows: Rows, state: APGDState, bits, first, count, eps) -> APGDState:
    """Make `count` iterations from `first` on. Iteration 0 evaluates the start; each then moves to the next point."""
    del bits
    losses_of = loss_of(config.loss, rows.labels, targets=rows.targets if config.targets else None)
    windows = jnp.asarray(np.concatenate([[0], checkpoints(config.steps)]))

    def total(x, i):
        logits = evaluate(x, i)
        losses = losses_of(logits).astype(x.dtype)
        return jnp.sum(losses), (losses, jnp.argmax(logits, axis=1) != rows.labels)

    def gradient_at(x, i):
        if config.eot_draws == 1:
            return jax.grad(total, has_aux=True)(x, i)

        def draw(carry, j):
            gradient, (losses, wrong) = jax.grad(total, has_aux=True)(x, i * config.eot_draws + j)
            return (carry[0] + gradient, carry[1] + losses), wrong

        zero = (jnp.zeros_like(x), jnp.zeros(len(x), x.dtype))
        (gradient, losses), wrong = jax.lax.scan(draw, zero, jnp.arange(config.eot_draws))
        return gradient / config.eot_draws, (losses / config.eot_draws, wrong[-1])

    def iteration(i, s):
        gradient, (losses, wrong) = gradient_at(s.point, i)
        s, gradient = _update(config, s, gradient, losses, wrong, i, windows[i])
        moved = _move(config.norm, rows.images, s, gradient, jnp.where(i > 0, 0.75, 1.0).astype(eps.dtype), eps)
        return s._replace(point=moved, previous=s.point)

    return jax.lax.fori_loop(first, first + count, iteration, state)


def _update(config: APGD, s: APGDState, gradient, losses, wrong, i, window):
    """Keep the best point, count increases, and at a checkpoint halve the step of rows that stall."""
    compared = jnp.zeros_like(losses) if config.wrapped_first_check else s.last_loss
    # i = 0 is the start itself; the first step (i = 1) is the one the official code compares with a row of zeros.
    rose = losses > jnp.where(i == 1, compared, s.last_loss)
    better = losses > s.best_loss
    best = jnp.where(per_image(better), s.point, s.best)
    best_gradient = jnp.where(per_image(better), gradient, s.best_gradient)
    best_loss = jnp.where(better, losses, s.best_loss)
    increases = s.increases + ((i > 0) & rose)

    check = window > 0
    stalled = ~s.halved & (s.best_at_check >= best_loss)
    halve = check & ((increases <= config.rho * window) | stalled)
    s = s._replace(
        best=best,
        best_gradient=best_gradient,
        best_loss=best_loss,
        last_loss=losses,
        increases=jnp.where(check, 0, increases),
        best_at_check=jnp.where(check | (i == 0), best_loss, s.best_at_check),
        halved=jnp.where(check, halve, s.halved),
        step_size=jnp.where(halve, s.step_size / 2, s.step_size),
        adversarial=jnp.where(per_image(wrong), s.point, s.adversarial),
        found=s.found | wrong,
        point=jnp.where(per_image(halve), best, s.point),
    )
    return s, jnp.where(per_image(halve), best_gradient, gradient)


def _move(norm: str, clean: Images, s: APGDState, gradient: Images, weight: Scalar, eps: Scalar) -> Images:
    z = _into_ball(s.point + per_image(s.step_size) * steepest(gradient, norm), clean, eps, norm)
    return _into_ball(s.point + (z - s.point) * weight + (s.point - s.previous) * (1 - weight), clean, eps, norm)


def _into_ball(images: Images, clean: Images, eps: Scalar, norm: str) -> Images:
    if norm == "linf":
        return jnp.clip(jnp.clip(images, clean - eps, clean + eps), 0, 1)
    delta = images - clean
    size = jnp.minimum(eps, per_image(length(delta, "l2")))
    return jnp.clip(clean + unit(delta, "l2") * size, 0, 1)


ATTACK_STEP = AttackStep(
    begin=begin,
    advance=advance,
    iterations=lambda config: config.steps + 1,
    start_words=lambda config, shape: shape[0] * shape[1] * shape[2],
    step_words=lambda config, shape: 0,
)


def apgd(
    logits_fn: LogitsFn, variables: Any, x: ArrayLike, y: ArrayLike, key: Key, *, config: APGD, eps: Any = None
) -> AttackResult:
    """Attack images by Auto-PGD (Croce and Hein 2020, algorithm 1), restarts and targets folded into the batch.

    Arguments, `eps` and errors as for `pgd`. Where no run succeeds the point of the highest margin among the
    runs' highest losses is returned. Raises `InputError` also for eps = 0 and too few classes for the loss.
    """
    return run(ATTACK_STEP, config, logits_fn, variables, x, y, key, eps)
