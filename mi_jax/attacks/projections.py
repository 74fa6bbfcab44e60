"""Projections within the box [0, 1]^d: onto an L1 ball, and onto a hyperplane in the L1, L2 and Linf norms.

None of them sorts, which is slow on CPU; all are exact up to rounding.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

Rows2D = Float[Array, "r d"]
Level = Float[Array, " r"]
MAX_PASSES = 60


def l1_length(values: Rows2D) -> Level:
    """Sum of absolute values [r]."""
    return jnp.sum(jnp.abs(values), axis=1)


def onto_l1_ball(delta: Rows2D, clean: Rows2D, eps: ArrayLike) -> Rows2D:
    """The nearest perturbation in L2 of those of L1 length at most eps that keep `clean` within [0, 1].

    Croce and Hein 2021, proposition 2.2: each coordinate shrinks by one level lambda, to at least zero and at most
    its room in the box. The length is monotone and piecewise linear in lambda: Newton's method, safeguarded by
    bisection, reaches the exact root in a few passes.

    Args:
        delta: perturbations [r d], which may leave the box.
        clean: points in [0, 1] [r d].
        eps: radius, one number or [r].

    Examples:
        >>> onto_l1_ball(jnp.array([[3.0, -1.0, 0.5]]), jnp.array([[0.0, 1.0, 0.0]]), 1.5)
        Array([[ 1. , -0.5,  0. ]], dtype=float32)
    """
    size, room = jnp.abs(delta), jnp.where(delta > 0, 1 - clean, clean)
    rounding = 8 * float(jnp.finfo(delta.dtype).eps)
    eps = jnp.broadcast_to(jnp.asarray(eps, delta.dtype), size.shape[:1])

    def shrunk(level):
        return jnp.clip(size - level[:, None], 0, room)

    def excess(level):
        return jnp.sum(shrunk(level), axis=1) - eps

    def unsettled(carry):
        _, _, _, moving, passes = carry
        return jnp.any(moving) & (passes < MAX_PASSES)

    def again(carry):
        level, low, high, moving, passes = carry
        over = excess(level)
        low, high = jnp.where(over > 0, level, low), jnp.where(over > 0, high, level)
        left = size - level[:, None]
        falling = jnp.sum((left > 0) & (left <= room), axis=1)
        root = level + over / jnp.maximum(falling, 1).astype(over.dtype)
        inside = (falling > 0) & (root > low) & (root < high)
        following = jnp.where(inside, root, (low + high) / 2)
        moving = moving & (jnp.abs(over) > rounding * eps) & (following != level)
        return jnp.where(moving, following, level), low, high, moving, passes + 1

    zero = jnp.zeros_like(eps)
    start = (zero, zero, jnp.max(size, axis=1), excess(zero) > 0, 0)
    level = jax.lax.while_loop(unsettled, again, start)[0]
    return jnp.sign(delta) * shrunk(level)


def onto_hyperplane(point: Rows2D, normal: Rows2D, offset: Level, norm: str) -> Rows2D:
    """Smallest move [r d] from `point` in [0, 1]^d onto the plane normal . x = offset within [0, 1]^d.

    Croce and Hein 2020b, eq. 4-6. Where the plane misses the box, the move to the corner that comes nearest to it.
    `norm` (`linf`, `l2` or `l1`) measures the move. Coordinates in which the normal is zero do not move.

    In Linf and L2 the distance covered towards the plane is concave and piecewise linear in the step length, so
    Newton's method from zero reaches the exact root in a few passes. In L1, the coordinates with the steepest normal
    move as far as the box allows.
    """
    above = jnp.sum(normal * point, axis=1) - offset
    # Flip signs so that normal . x must decrease by |above|.
    direction = jnp.where(above >= 0, 1, -1).astype(point.dtype)[:, None] * normal
    target = jnp.abs(above)
    gain = jnp.abs(normal)
    ignored = gain == 0 if norm == "linf" else gain < 1e-8
    room = jnp.where(ignored, 0, jnp.where(direction > 0, point, 1 - point))
    if norm == "l1":
        return -jnp.sign(direction) * _steepest_first(gain, room, target)
    speed = jnp.where(ignored, 0, jnp.ones_like(gain) if norm == "linf" else gain)
    move = jnp.minimum(_water_level(gain, speed, room, target)[:, None] * speed, room)
    return -jnp.sign(direction) * move


def _water_level(gain: Rows2D, speed: Rows2D, room: Rows2D, target: Level) -> Level:
    """The smallest L with sum_i gain_i min(L speed_i, room_i) = target, or the largest float where there is none."""

    def better(level):
        free = level[:, None] * speed < room
        stuck = jnp.sum(jnp.where(free, 0, gain * room), axis=1)
        slope = jnp.sum(jnp.where(free, gain * speed, 0), axis=1)
        root = jnp.where(slope > 0, (target - stuck) / jnp.where(slope > 0, slope, 1), jnp.inf)
        return jnp.maximum(root, level)

    def unsettled(carry):
        level, before, passes = carry
        return jnp.any(level > before) & (passes < MAX_PASSES)

    def again(carry):
        level, _, passes = carry
        # An infinite level times a still coordinate would be NaN; any finite level beyond all rooms is the same.
        return better(jnp.minimum(level, jnp.finfo(level.dtype).max)), level, passes + 1

    zero = jnp.zeros_like(target)
    level, _, _ = jax.lax.while_loop(unsettled, again, (better(zero), zero, 0))
    return jnp.minimum(level, jnp.finfo(level.dtype).max)


def _steepest_first(gain: Rows2D, room: Rows2D, target: Level) -> Rows2D:
    """Moves of at most `room` that cover the target along the coordinates of largest gain; equal gains share."""
    covered = gain * room
    last = threshold(gain, covered, target)[:, None]
    whole, shared = gain > last, gain == last
    missing = jnp.maximum(target - jnp.sum(jnp.where(whole, covered, 0), axis=1), 0)
    available = jnp.sum(jnp.where(shared, covered, 0), axis=1)
    share = jnp.where(available > 0, jnp.minimum(missing / jnp.where(available > 0, available, 1), 1), 0)
    return jnp.where(whole, room, jnp.where(shared, share[:, None] * room, 0))


def threshold(values: Rows2D, weights: ArrayLike, target: Shaped[Array, " r"]) -> Level:
    """The largest t at which the weights of all values >= t sum to at least the target, or 0 where none do.

    With weights 1 and target k, the k-th largest value. Bisects the bits of the floats, whose order is theirs.

    Args:
        values: [r d], not negative.
        weights: [r d] or one number, not negative.
        target: [r].

    Examples:
        >>> threshold(jnp.array([[0.1, 0.7, 0.3]]), 1.0, jnp.array([2.0]))
        Array([0.3], dtype=float32)
    """
    word = jnp.int32 if values.dtype == jnp.float32 else jnp.int64
    bits = jax.lax.bitcast_convert_type(values, word)

    def again(_, bounds):
        low, high = bounds
        middle = low + (high - low) // 2
        enough = jnp.sum(jnp.where(bits >= middle[:, None], weights, 0), axis=1, dtype=target.dtype) >= target
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    low, high = jnp.zeros(len(values), word), jnp.max(bits, axis=1) + 1
    low, _ = jax.lax.fori_loop(0, jnp.iinfo(word).bits, again, (low, high))
    return jax.lax.bitcast_convert_type(low, values.dtype)
