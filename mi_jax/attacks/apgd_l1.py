"""Auto-PGD in the L1 ball (Croce and Hein 2021): sparse steps, whose sparsity and length adapt, and larger radii first.

The settings and the registry entries are those of `apgd.APGD`.
"""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mi_jax.attacks.attack import Faults, Problem, Words
from mi_jax.attacks.engine import randomness
from mi_jax.attacks.projections import threshold
from mi_jax.attacks.threat_model import ThreatModel, flat, length, per_image
from mi_jax.typing import Flags, Images

FIRST_SHARE = 0.2
"""Share of the pixels that the first steps change."""
SHARE_DECAY, STEP_DECAY, SMALLEST_STEP = 1.5, 1.5, 0.1


class L1State(NamedTuple):
    """Per-row state: the iterate, the best point of the current radius, and the sparsity and length of the next step.

    `pixels` is the number of pixels that the best point had changed at the last checkpoint.
    """

    point: Images
    best: Images
    best_gradient: Images
    best_loss: Float[Array, " r"]
    last_loss: Float[Array, " r"]
    share: Float[Array, " r"]
    pixels: Float[Array, " r"]
    step_size: Float[Array, " r"]
    adversarial: Images
    found: Bool[Array, " r"]
    faults: Faults

    @property
    def images(self) -> Images:
        """The last misclassified iterate within eps, else the iterate of highest loss."""
        return jnp.where(per_image(self.found), self.adversarial, self.best)


class Schedule(NamedTuple):
    """For each iteration the radius in units of eps, and whether a radius begins, is left, or has a checkpoint [i]."""

    radius: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    check: np.ndarray

    @classmethod
    def of(cls, steps: int, decreasing: bool) -> "Schedule":
        """30 % of the steps each at 3 and 2 eps and the rest at eps, or all at eps; a checkpoint every 4 %.

        Each radius takes one more iteration than steps, as its start is evaluated too.
        """
        early = min(-(-3 * steps // 10), (steps - 1) // 2) if decreasing else 0
        phases = [(3, early), (2, early), (1, steps - 2 * early)] if early else [(1, steps)]
        columns = []
        for radius, count in phases:
            window = max(int(0.04 * count), 1)
            for j in range(count + 1):
                columns.append((radius, j == 0, j == count and radius > 1, j > 0 and j % window == 0))
        return cls(*map(np.asarray, zip(*columns, strict=True)))


def changed_pixels(images: Images, clean: Images) -> Array:
    """Number of pixels and channels in which each image differs from the clean one [r]."""
    return jnp.sum(images != clean, axis=(1, 2, 3)).astype(clean.dtype)


def initial_state(problem: Problem, words: Words, schedule: Schedule) -> L1State:
    """State at the given start, else at a standard normal perturbation projected into the first ball."""
    assert words is not None
    clean, start = problem.clean, problem.batch.start
    if start is None:
        start = clean + randomness.normal(words.reshape(clean.shape)).astype(clean.dtype)
    point = _scaled(problem.threat, schedule.radius[0]).project(start, clean)
    rows = len(clean)
    least, size = jnp.full(rows, -jnp.inf, clean.dtype), float(clean[0].size)
    pixels = changed_pixels(point, clean)
    # As in the official code, where a start is given, and so at all radii of a schedule.
    known = problem.batch.start is not None or schedule.radius[0] > 1
    return L1State(
        point=point,
        best=point,
        best_gradient=jnp.zeros_like(clean),
        best_loss=least,
        last_loss=least,
        share=pixels / size / SHARE_DECAY if known else jnp.full(rows, FIRST_SHARE, clean.dtype),
        pixels=pixels if known else jnp.full(rows, size, clean.dtype),
        step_size=jnp.broadcast_to(_scaled(problem.threat, schedule.radius[0]).radii, rows).astype(clean.dtype),
        adversarial=clean,
        found=jnp.zeros(rows, bool),
        faults=Faults.none(rows),
    )


def advance(
    problem: Problem, s: L1State, gradient: Images, losses: Float[Array, " b"], wrong: Flags, i: Any, schedule: Schedule
) -> L1State:
    """Keeps the evaluated iterate if it is the best of its radius, and moves on."""
    clean, size, faults = problem.clean, float(problem.clean[0].size), s.faults.add(gradient, wrong)
    radius, begins, ends, check = (jnp.asarray(column)[i] for column in schedule)
    longest = _scaled(problem.threat, radius).radii
    better = begins | (losses > s.best_loss)
    best = jnp.where(per_image(better), s.point, s.best)
    best_gradient = jnp.where(per_image(better), gradient, s.best_gradient)

    pixels = changed_pixels(best, clean)
    sparser = check & (pixels < 0.95 * s.pixels)
    shorter = jnp.maximum(s.step_size / STEP_DECAY, SMALLEST_STEP * longest)
    share = jnp.where(check, pixels / size / SHARE_DECAY, s.share)
    step_size = jnp.where(check, jnp.where(sparser, longest, shorter), s.step_size)
    point = jnp.where(per_image(sparser), best, s.point)
    gradient = jnp.where(per_image(sparser), best_gradient, gradient)
    moved = _scaled(problem.threat, radius).project(point + per_image(step_size) * sparse_sign(gradient, share), clean)

    following = jnp.asarray(schedule.radius)[jnp.minimum(i + 1, len(schedule.radius) - 1)]
    restarted = _scaled(problem.threat, following).project(best, clean)
    left = changed_pixels(restarted, clean)
    hit = wrong & (radius == 1)
    return L1State(
        point=jnp.where(ends, restarted, moved),
        best=best,
        best_gradient=best_gradient,
        best_loss=jnp.where(better, losses, s.best_loss),
        last_loss=losses,
        share=jnp.where(ends, left / size / SHARE_DECAY, share),
        pixels=jnp.where(ends, left, jnp.where(check, pixels, s.pixels)),
        step_size=jnp.where(ends, _scaled(problem.threat, following).radii, step_size),
        adversarial=jnp.where(per_image(hit), s.point, s.adversarial),
        found=s.found | hit,
        faults=faults,
    )


def sparse_sign(gradient: Images, share: Float[Array, " r"]) -> Images:
    """The signs of the given share of the pixels with the largest gradient, scaled to L1 length 1."""
    gradient = jnp.where(jnp.isfinite(gradient), gradient, 0)
    size = flat(jnp.abs(gradient))
    count = size.shape[1]
    kept = count - jnp.clip((1 - share) * count, 0, count - 1).astype(jnp.int32)
    least = threshold(size, jnp.ones((), jnp.int32), kept)
    signs = jnp.where(jnp.abs(gradient) >= per_image(least), jnp.sign(gradient), 0)
    return signs / (per_image(length(signs, "l1")) + 1e-10)


def _scaled(threat: ThreatModel, factor: Any) -> ThreatModel:
    return dataclasses.replace(threat, eps=jnp.asarray(factor, threat.radii.dtype) * threat.radii)
