"""Nearest point of a hyperplane within the pixel box, in Linf and L2: the step of FAB.

Solved without sorting: the reach towards the plane is concave and piecewise linear in the step length, so
Newton's method from zero climbs to the exact root in a few passes.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Rows2D = Float[Array, "r d"]
MAX_PASSES = 60


def onto_hyperplane(point: Rows2D, normal: Rows2D, offset: Float[Array, " r"], norm: str) -> Rows2D:
    """Smallest move [r d] from `point` in [0, 1]^d to the plane normal . x = offset that stays in [0, 1]^d.

    Where the plane misses the box: the move to the corner nearest to the plane along the normal. `norm` measures
    the move (`linf` or `l2`). Coordinates that the normal ignores do not move. (Croce and Hein 2020, FAB, eq. 4-6.)
    """
    above = jnp.sum(normal * point, axis=1) - offset
    # Turn each problem so that normal . x must fall by |above|.
    direction = jnp.where(above >= 0, 1, -1).astype(point.dtype)[:, None] * normal
    target = jnp.abs(above)
    gain = jnp.abs(normal)
    ignored = gain < 1e-8 if norm == "l2" else gain == 0
    speed = jnp.where(ignored, 0, jnp.ones_like(gain) if norm == "linf" else gain)
    room = jnp.where(ignored, 0, jnp.where(direction > 0, point, 1 - point))
    move = jnp.minimum(_water_level(gain, speed, room, target)[:, None] * speed, room)
    return -jnp.sign(direction) * move


def _water_level(gain: Rows2D, speed: Rows2D, room: Rows2D, target: Float[Array, " r"]) -> Float[Array, " r"]:
    """The least level L with sum_i gain_i min(L speed_i, room_i) = target, or infinity where none reaches it."""

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
