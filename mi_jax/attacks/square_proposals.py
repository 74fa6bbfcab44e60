"""Starts and proposals of the Square attack: stripes and constant windows in Linf, tiles and bumps in L2 and L1.

Windows are masks computed from coordinates, not slices, so that one compiled loop handles all sizes.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mi_jax.attacks.engine import randomness
from mi_jax.attacks.threat_model import TINY, ThreatModel, length, per_image, unit
from mi_jax.errors import InputError
from mi_jax.typing import Images

TILES_A_SIDE = 5


class Draw(NamedTuple):
    """Random choices of one proposal.

    Attributes:
        corner: upper left corner of the window [r 2].
        second: upper left corner of the window that is set to zero, to free its norm [r 2]; not in Linf.
        signs: for each channel [r c].
        turned: whether the bump is transposed [r]; not in Linf.
    """

    corner: Int[Array, "r 2"]
    second: Int[Array, "r 2"]
    signs: Float[Array, "r c"]
    turned: Array


class StartDraw(NamedTuple):
    """Random choices of the start: in Linf signs [r w c], else signs [r t c] and `turned` [r t] for each tile."""

    signs: Float[Array, "r n c"]
    turned: Array


class Schedule(NamedTuple):
    """Window side at each iteration, and the bump of every side that occurs [kinds, S, S] (empty for Linf)."""

    sides: Array
    kinds: Array
    bumps: Array

    @classmethod
    def of(cls, sides: tuple[int, ...], norm: str) -> "Schedule":
        """The schedule of the given sides."""
        distinct = sorted(set(sides))
        largest = max(distinct)
        bumps = np.zeros((len(distinct), largest, largest), np.float32)
        if norm != "linf":
            for kind, side in enumerate(distinct):
                bumps[kind, :side, :side] = bump(side, norm)
        kinds = np.searchsorted(distinct, sides)
        return cls(
            jnp.asarray(sides, jnp.int32), jnp.asarray(kinds), jnp.asarray(bumps[:0] if norm == "linf" else bumps)
        )

    def side(self, i: Array) -> Array:
        """Side of the window at iteration i."""
        return self.sides[i]


def sign_words(channels: int) -> int:
    """Number of random words for one sign per channel."""
    return -(-channels // 32)


def step_words(shape: tuple[int, ...], norm: str) -> int:
    """Number of random words per row and iteration, for images of shape [h w c]."""
    return (2 if norm == "linf" else 5) + sign_words(shape[2])


def start_words(shape: tuple[int, ...], norm: str) -> int:
    """Number of random words per row for the start. Raises `InputError` where tiles do not fit into an image."""
    if norm == "linf":
        return sign_words(shape[1] * shape[2])
    side = tile_side(shape[0], shape[1])
    return (shape[0] // side) * (shape[1] // side) * (1 + sign_words(shape[2]))


def step_draw(words: Array, side: Array, shape: tuple[int, ...], norm: str) -> Draw:
    """The choices of a proposal, from random words; corners are uniform over all positions inside the image."""
    room = jnp.stack([shape[1] - side + 1, shape[2] - side + 1])[None]
    corner = randomness.integer(words[:, :2], room)
    if norm == "linf":
        return Draw(corner, corner, randomness.signs(words[:, 2:], shape[3]), jnp.zeros(len(words), bool))
    second = randomness.integer(words[:, 2:4], room)
    return Draw(corner, second, randomness.signs(words[:, 5:], shape[3]), words[:, 4] >> 31 == 1)


def start_draw(words: Array, shape: tuple[int, ...], norm: str) -> StartDraw:
    """The choices of the start, from random words."""
    rows, height, width, channels = shape
    if norm == "linf":
        signs = randomness.signs(words, width * channels).reshape(rows, width, channels)
        return StartDraw(signs, jnp.zeros((rows, 0), bool))
    side = tile_side(height, width)
    words = words.reshape(rows, (height // side) * (width // side), -1)
    return StartDraw(randomness.signs(words[..., 1:], channels), words[..., 0] >> 31 == 1)


def stripes(clean: Images, draw: StartDraw, threat: ThreatModel) -> Images:
    """Each image plus vertical stripes of +eps and -eps."""
    return jnp.clip(clean + threat.radius * draw.signs[:, None].astype(clean.dtype), 0, 1)


def tiles(clean: Images, draw: StartDraw, threat: ThreatModel) -> Images:
    """Each image plus a grid of bumps of random sign, scaled to L2 norm eps, or projected into the L1 ball."""
    rows, height, width, channels = clean.shape
    side = tile_side(height, width)
    down, across = height // side, width // side
    shape = jnp.asarray(bump(side, threat.norm), clean.dtype)
    turned = jnp.where(draw.turned[..., None, None], shape.T, shape)
    each = turned[..., None] * draw.signs[:, :, None, None, :].astype(clean.dtype)
    grid = each.reshape(rows, down, across, side, side, channels).transpose(0, 1, 3, 2, 4, 5)
    grid = grid.reshape(rows, down * side, across * side, channels)
    # As in the official code on square images, except on tiny ones where a sixth tile fits: there the official grid
    # extends beyond the edge, while this one is centred.
    top, left = ((total - side * count) // 2 for total, count in ((height, down), (width, across)))
    pads = ((0, 0), (top, height - down * side - top), (left, width - across * side - left), (0, 0))
    return _on_the_ball(clean, jnp.pad(grid, pads), threat)


def _on_the_ball(clean: Images, delta: Images, threat: ThreatModel) -> Images:
    """The image with a perturbation scaled to the radius, then clipped (L2), or projected into ball and box (L1)."""
    if threat.norm == "l2":
        return jnp.clip(clean + threat.radius * unit(delta, "l2"), 0, 1)
    # As in the official code, a little inside the ball.
    return dataclasses.replace(threat, eps=threat.radii * (1 - 1e-6)).project(clean + delta, clean)


def propose(best: Images, clean: Images, draw: Draw, schedule: Schedule, i: Array, threat: ThreatModel) -> Images:
    """The best image with one window changed: shifted by 2 eps (Linf), or with a bump of the norm left over."""
    side, eps = schedule.side(i), threat.radius
    if len(schedule.bumps) == 0:
        shift = 2 * eps * draw.signs[:, None, None, :].astype(best.dtype)
        moved = jnp.where(window(draw.corner, side, best.shape), best + shift, best)
        return jnp.clip(jnp.clip(moved, clean - eps, clean + eps), 0, 1)
    return _propose_bump(best, clean, draw, schedule.bumps[schedule.kinds[i]], side, threat)


def window(corner: Int[Array, "r 2"], side: Array, shape: tuple[int, ...]) -> Array:
    """True inside each row's square window [r h w 1]."""
    down, across = (jnp.arange(n, dtype=corner.dtype)[None] for n in shape[1:3])
    side = jnp.asarray(side, corner.dtype)
    top, left = corner[:, :1], corner[:, 1:]
    rows = (down >= top) & (down < top + side)
    columns = (across >= left) & (across < left + side)
    return (rows[:, :, None] & columns[:, None, :])[..., None]


def _propose_bump(best: Images, clean: Images, draw: Draw, shape: Array, side: Array, threat: ThreatModel) -> Images:
    delta = best - clean
    inside, second = (window(corner, side, best.shape) for corner in (draw.corner, draw.second))

    def norms(values):
        if threat.norm == "l1":
            return jnp.sum(jnp.abs(values), axis=(1, 2), keepdims=True)
        return jnp.sqrt(jnp.sum(jnp.square(values), axis=(1, 2), keepdims=True))

    def power(size):
        return size if threat.norm == "l1" else jnp.square(size)

    spare = jnp.maximum(power(threat.radius) - power(per_image(length(delta, threat.norm))), 0)
    freed = power(norms(jnp.where(inside | second, delta, 0)))
    size = spare / best.shape[3] + freed
    # The official code gives a bump in L1 as many times this length as there are channels; the projection shortens it.
    size = size * best.shape[3] if threat.norm == "l1" else jnp.sqrt(size)
    down, across = (jnp.arange(n, dtype=draw.corner.dtype)[None] for n in best.shape[1:3])
    at_row = jnp.clip(down - draw.corner[:, :1], 0, len(shape) - 1)[:, :, None]
    at_column = jnp.clip(across - draw.corner[:, 1:], 0, len(shape) - 1)[:, None, :]
    turned = draw.turned[:, None, None]
    placed = jnp.where(turned, shape[at_column, at_row], shape[at_row, at_column])[..., None].astype(best.dtype)

    kept = jnp.where(inside, delta, 0)
    new = jnp.where(inside, placed * draw.signs[:, None, None, :], 0) + kept / (TINY + norms(kept))
    new = new / (TINY + norms(new)) * size
    return _on_the_ball(clean, jnp.where(inside, new, jnp.where(second, 0, delta)), threat)


def tile_side(height: int, width: int) -> int:
    """Side of the tiles of the L2 and L1 starts: a fifth of the shorter side. Raises `InputError` below 5 pixels."""
    side = min(height, width) // TILES_A_SIDE
    if side == 0:
        raise InputError(
            f"The Square attack in L2 and L1 needs images of at least {TILES_A_SIDE} x {TILES_A_SIDE} pixels; "
            f"got {height} x {width}."
        )
    return side


@functools.lru_cache(maxsize=256)
def bump(side: int, norm: str = "l2") -> np.ndarray:
    """A positive upper and a negative lower pyramid in a square of norm one [side side].

    Within each half, a pixel at Chebyshev distance d from the centre is the sum of 1 / (k + 1)^2 over k >= d (the
    paper's eta), and in L1 of 1 / (k + 1)^4.
    """
    upper = side // 2
    square = np.concatenate([_pyramid(upper, side, norm), -_pyramid(side - upper, side, norm)])
    return square / _norm(square, norm)


def _norm(values: np.ndarray, norm: str) -> float:
    return float(np.linalg.norm(values.ravel(), {"l2": 2, "l1": 1}[norm]))


def _pyramid(height: int, width: int, norm: str) -> np.ndarray:
    rings = max(height // 2 + 1, width // 2 + 1)
    tails = np.cumsum((1.0 / np.arange(1, rings + 1) ** {"l2": 2, "l1": 4}[norm])[::-1])[::-1]
    distance = np.maximum(*np.abs(np.indices((height, width)) - np.array([height // 2, width // 2])[:, None, None]))
    values = tails[distance]
    return values / max(_norm(values, norm), TINY)
