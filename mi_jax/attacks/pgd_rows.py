"""PGD as a procedure on rows, so that an evaluation drops an image as soon as one of its restarts succeeds.

Every iterate counts, not the last alone; otherwise the same moves as `pgd`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mi_jax.attacks.engine import randomness
from mi_jax.attacks.engine.run import AttackStep, Evaluate, Rows
from mi_jax.attacks.losses import loss_of
from mi_jax.attacks.pgd import PGD
from mi_jax.attacks.threat_model import Scalar, per_image, project, project_image, steepest, unit
from mi_jax.typing import Images


class PGDState(NamedTuple):
    """Per-row state: the iterate, and the misclassified iterate of highest loss, else the one of highest loss."""

    point: Images
    images: Images
    loss: Float[Array, " r"]
    found: Bool[Array, " r"]


def begin(config: PGD, rows: Rows, bits: randomness.Bits, eps: Scalar) -> PGDState:
    """State before the first evaluation, at a random start in each row, by the laws of `norms.random_perturbation`."""
    start = rows.images
    if config.random_start and config.steps:
        start = jnp.clip(start + _perturbation(config, bits, start, eps), 0, 1)
    return PGDState(start, start, jnp.full(len(start), -jnp.inf, start.dtype), jnp.zeros(len(start), bool))


def _perturbation(config: PGD, bits: randomness.Bits, images: Images, eps: Scalar) -> Images:
    pixels = bits[:, 1:].reshape(images.shape)
    radius = per_image(randomness.uniform(bits[:, 0]).astype(images.dtype))
    if config.init == "gaussian":
        return project(1e-3 * randomness.normal(pixels).astype(images.dtype), eps, config.norm)
    if config.norm == "linf":
        box = eps * (2 * randomness.uniform(pixels).astype(images.dtype) - 1)
        return box if config.init == "uniform" else radius * box
    power = images[0].size if config.init == "uniform" else 1
    return eps * radius ** (1 / power) * unit(randomness.normal(pixels).astype(images.dtype), "l2")


def advance(evaluate: Evaluate, config: PGD, rows: Rows, state: PGDState, bits, first, count, eps) -> PGDState:
    """Make `count` iterations: evaluate the iterate, keep it if it is worse for the model, and move."""
    del bits
    losses_of = loss_of(config.loss, rows.labels)

    def total(x, i):
        logits = evaluate(x, i)
        losses = losses_of(logits).astype(x.dtype)
        return jnp.sum(losses), (losses, jnp.argmax(logits, axis=1) != rows.labels)

    def iteration(i, s):
        gradient, (losses, wrong) = jax.grad(total, has_aux=True)(s.point, i)
        take = (wrong & ~s.found) | ((wrong == s.found) & (losses > s.loss))
        moved = s.point + config.step_size * steepest(gradient, config.norm)
        return PGDState(
            point=project_image(moved, rows.images, eps, config.norm),
            images=jnp.where(per_image(take), s.point, s.images),
            loss=jnp.where(take, losses, s.loss),
            found=s.found | wrong,
        )

    return jax.lax.fori_loop(first, first + count, iteration, state)


ATTACK_STEP = AttackStep(
    begin=begin,
    advance=advance,
    iterations=lambda config: config.steps + 1,
    start_words=lambda config, shape: 1 + shape[0] * shape[1] * shape[2],
    step_words=lambda config, shape: 0,
)
