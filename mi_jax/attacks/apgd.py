"""Auto-PGD (Croce and Hein 2020): gradient ascent with momentum that halves its step size where progress stalls.

Untargeted, on cross-entropy or the DLR loss, or targeted, on the targeted DLR loss (APGD-T), one row per target class.
The L1 attack is another one (`apgd_l1`).
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from mi_jax import checks
from mi_jax.attacks import apgd_l1
from mi_jax.attacks.attack import Attack, AttackResult, Faults, Problem, Words, check_config, register
from mi_jax.attacks.engine import randomness
from mi_jax.attacks.engine.run import run
from mi_jax.attacks.losses import Loss
from mi_jax.attacks.threat_model import ThreatModel, length, per_image, unit
from mi_jax.errors import InputError
from mi_jax.typing import Images, Key, LogitsFn


class APGDState(NamedTuple):
    """Per-row state: the iterate, the best point with its gradient, and what the next checkpoint compares."""

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
    faults: Faults

    @property
    def images(self) -> Images:
        """The last misclassified iterate, else the iterate of highest loss."""
        return jnp.where(per_image(self.found), self.adversarial, self.best)


def checkpoints(steps: int) -> np.ndarray:
    """Length of the window that ends at each step, else 0 [steps]: at 22, 41, 57, 70, 80, 87, 93, 99 of 100."""
    window, least, shrink = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    table = np.zeros(steps, np.int32)
    last = 0
    while last + window <= steps:
        last += window
        table[last - 1] = window
        window = max(window - shrink, least)
    return table


def state_at(start: Images, eps: ArrayLike) -> APGDState:
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
        step_size=jnp.broadcast_to(2 * jnp.ravel(jnp.asarray(eps)), rows).astype(start.dtype),
        last_loss=least,
        increases=jnp.zeros(rows, jnp.int32),
        best_at_check=least,
        halved=~no,
        adversarial=start,
        found=no,
        faults=Faults.none(rows),
    )


@register("apgd-ce")
@dataclasses.dataclass(frozen=True)
class APGD(Attack):
    """Settings of Auto-PGD (Croce and Hein 2020, and 2021 for L1).

    Attributes:
        norm, eps, restarts: as in `PGD`.
        steps: gradient steps.
        loss: `ce`, `dlr` or `cw`.
        targets: 0 for the untargeted attack; n for one run against each of the n highest wrong classes of the clean
            image (APGD-T: loss `dlr`, targets 9).
        rho: the step size is halved where the loss rose in at most this share of a window's steps; not in L1.
        eot_draws: draws of the noise of a random model, `logits_fn(variables, x, key)`, over which each gradient is
            averaged.
        wrapped_first_check: count the first iterate as an increase if its loss is positive, an indexing error of the
            official code that comparisons with it reproduce; not in L1.
        decreasing_eps: in L1, spend 30 % of the steps each at 3 eps and at 2 eps, and the rest at eps.

    Raises:
        InputError: for values outside these.
    """

    steps: int = 100
    restarts: int = 1
    loss: Loss | str = "ce"
    targets: int = 0
    rho: float = 0.75
    eot_draws: int = 1
    wrapped_first_check: bool = False
    decreasing_eps: bool = True

    takes_start: ClassVar[bool] = True
    budget: ClassVar[dict[str, str]] = {
        "steps": "apgd_steps",
        "restarts": "restarts",
        "targets": "targets",
        "eot_draws": "eot_draws",
    }

    def __post_init__(self):
        super().__post_init__()
        checks.count("eot_draws", self.eot_draws)
        if self.loss == "kl":
            raise InputError("APGD does not support the loss 'kl'; use 'ce', 'dlr' or 'cw'.")
        checks.portion("rho", self.rho, usual="0.75")
        for name in ("wrapped_first_check", "decreasing_eps"):
            checks.flag(name, getattr(self, name))

    @property
    def l1_schedule(self) -> apgd_l1.Schedule:
        """Radius and checkpoints at each iteration of the L1 attack."""
        return apgd_l1.Schedule.of(self.steps, self.decreasing_eps)

    @property
    def iterations(self) -> int:
        """One more than the steps, as the last call only evaluates; in L1 one more for each radius."""
        return len(self.l1_schedule.radius) if self.norm == "l1" else self.steps + 1

    def start_words(self, shape: tuple[int, ...]) -> int:
        """One word for each pixel and channel."""
        return shape[0] * shape[1] * shape[2]

    def initial_state(self, problem: Problem, words: Words) -> APGDState | apgd_l1.L1State:
        """State at the given start, else at a random point on the surface of the ball."""
        assert words is not None
        if self.norm == "l1":
            return apgd_l1.initial_state(problem, words, self.l1_schedule)
        clean, norm = problem.clean, problem.threat.norm
        draws = words.reshape(clean.shape)
        noise = 2 * randomness.uniform(draws) - 1 if norm == "linf" else randomness.normal(draws)
        start = jnp.clip(clean + self.eps * unit(noise.astype(clean.dtype), norm), 0, 1)
        if problem.batch.start is not None:
            start = problem.threat.project(problem.batch.start, clean)
        return state_at(start, self.eps)

    def step(self, problem: Problem, state: Any, i: Any, words: Words) -> APGDState | apgd_l1.L1State:
        """Evaluates the iterate and moves on; iteration 0 evaluates the start."""
        gradient, losses, wrong = self._gradient(problem, state.point, i)
        if self.norm == "l1":
            return apgd_l1.advance(problem, state, gradient, losses, wrong, i, self.l1_schedule)
        state = state._replace(faults=state.faults.add(gradient, wrong))
        window = jnp.asarray(np.concatenate([[0], checkpoints(self.steps)]))[i]
        state, gradient = _update(self, state, gradient, losses, wrong, i, window)
        weight = jnp.where(i > 0, 0.75, 1.0).astype(state.step_size.dtype)
        moved = _move(problem.threat, problem.clean, state, gradient, weight)
        return state._replace(point=moved, previous=state.point)

    def _gradient(self, problem: Problem, x: Images, i: Any):
        """Gradient and losses, averaged over the draws of a random model, and misclassification in the last draw.

        The official code takes only the loss of the last draw, which is noisier.
        """
        if self.eot_draws == 1:
            gradient, seen = problem.gradient(x, i, self.loss)
            return gradient, seen.losses, seen.wrong

        def draw(carry, j):
            gradient, seen = problem.gradient(x, i * self.eot_draws + j, self.loss)
            return (carry[0] + gradient, carry[1] + seen.losses), seen.wrong

        zero = (jnp.zeros_like(x), jnp.zeros(len(x), x.dtype))
        (gradient, losses), wrong = jax.lax.scan(draw, zero, jnp.arange(self.eot_draws))
        return gradient / self.eot_draws, losses / self.eot_draws, wrong[-1]

    def recorded_loss(self, state: APGDState | apgd_l1.L1State) -> Array:
        """The loss of the last iterate evaluated."""
        return state.last_loss


register("apgd-dlr", APGD(loss="dlr"))
register("apgd-t", APGD(loss="dlr", targets=9))


def _update(config: APGD, s: APGDState, gradient, losses, wrong, i, window):
    """Keeps the best point, counts increases, and at a checkpoint halves the step size of rows that stall."""
    compared = jnp.zeros_like(losses) if config.wrapped_first_check else s.last_loss
    # i = 0 is the start itself; the first step (i = 1) is the one the official code compares with a row of zeros.
    rose = losses > jnp.where(i == 1, compared, s.last_loss)
    better = losses > s.best_loss
    best = jnp.where(per_image(better), s.point, s.best)
    best_gradient = jnp.where(per_image(better), gradient, s.best_gradient)
    best_loss = jnp.where(better, losses, s.best_loss)
    increases = s.increases + ((i > 0) & rose).astype(jnp.int32)

    check = window > 0
    stalled = ~s.halved & (s.best_at_check >= best_loss)
    halve = check & ((increases.astype(jnp.float32) <= config.rho * window.astype(jnp.float32)) | stalled)
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


def _move(threat: ThreatModel, clean: Images, s: APGDState, gradient: Images, weight: Array) -> Images:
    z = _into_ball(s.point + per_image(s.step_size) * threat.steepest(gradient), clean, threat)
    return _into_ball(s.point + (z - s.point) * weight + (s.point - s.previous) * (1 - weight), clean, threat)


def _into_ball(images: Images, clean: Images, threat: ThreatModel) -> Images:
    """The projection, rounded as in the official code."""
    eps = threat.radius
    if threat.norm == "linf":
        return jnp.clip(jnp.clip(images, clean - eps, clean + eps), 0, 1)
    delta = images - clean
    size = jnp.minimum(eps, per_image(length(delta, "l2")))
    return jnp.clip(clean + unit(delta, "l2") * size, 0, 1)


def apgd(
    logits_fn: LogitsFn,
    variables: Any,
    x: Any,
    y: Any,
    key: Key | int,
    *,
    config: APGD,
    eps: ArrayLike | None = None,
) -> AttackResult:
    """Attacks images by Auto-PGD (Croce and Hein 2020, algorithm 1; 2021 for L1); restarts and targets share one batch.

    Args:
        logits_fn, variables, x, y: as for `pgd`.
        key: a random key or a seed.
        config: settings.
        eps: replaces that of the configuration, with one number or one per image [b]; may be traced.

    Returns:
        An adversarial image where any restart or target found one; elsewhere, of the restarts' points of highest loss,
        the one of largest margin.

    Raises:
        InputError: as `pgd`, and for eps = 0 and too few classes for the loss.
    """
    check_config(config, APGD)
    return run(logits_fn, variables, x, y, key, config=config, eps=eps)
