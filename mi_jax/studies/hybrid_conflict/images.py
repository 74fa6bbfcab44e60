"""Images that combine a cue of one test image with a cue of another, and each cue by itself.

`hybrid`: the low spatial frequencies of one image and the high ones of another (Oliva et al. 2006). `patches`: the
outline of one image, two-tone, and the shuffled patches of another.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from mi_jax import distortions
from mi_jax.data import Dataset
from mi_jax.typing import Images, Key

CUES = {"hybrid": ("low", "high"), "patches": ("outline", "patch")}
"""Kind of conflict to the names of its two cues, the one that carries the global arrangement first."""
_CUTOFFS = (1 / 16, 1 / 8, 3 / 16, 1 / 4)
_PATCHES = (4, 2)
_OUTLINE_BLUR = 1 / 8
_OUTLINE, _PATCH_CONTRAST = (0.3, 0.7), 0.5
_LEAST_SIDE = 8


class Pairs(NamedTuple):
    """Which two images are combined, and their classes: all pairs of classes as equally often as the number allows."""

    first: np.ndarray
    second: np.ndarray
    classes: tuple[np.ndarray, np.ndarray]


class CueImages(NamedTuple):
    """Combined images, and the images of each cue by itself, `[n h w c]` in [0, 1]."""

    combined: Images
    alone: tuple[Images, Images]


def unsupported_reason(dataset: Dataset) -> str | None:
    """Why no conflict images can be made of a data set, or None where they can."""
    if min(dataset.input_shape[:2]) < _LEAST_SIDE:
        return f"its images are smaller than {_LEAST_SIDE} x {_LEAST_SIDE}"
    return None


def levels(kind: str, height: int, width: int) -> tuple[float, ...]:
    """Strengths of a kind of conflict: cut-offs in cycles per image height; patches per side.

    Examples:
        >>> levels("hybrid", 32, 32), levels("patches", 32, 32)
        ((2.0, 4.0, 6.0, 8.0), (4.0,))
    """
    if kind == "hybrid":
        return tuple(sorted({float(max(round(height * share), 1)) for share in _CUTOFFS}))
    sides = [k for k in _PATCHES if height % k == 0 and width % k == 0]
    return tuple(map(float, sides[:1]))


def pairs(labels: np.ndarray, count: int, *, seed: int = 0) -> Pairs:
    """A fixed draw of about `count` pairs of images, balanced over the classes of both.

    Pair m has the classes a and a + s, where a runs through all classes before the shift s changes: every class is as
    often first as second, and after k^2 pairs of k classes every pair of classes was there once.

    Args:
        labels: int `[n]`; classes without images are left out.
        count: pairs; rounded down to a multiple of the number of classes, at least one of each.
        seed: seed of the draw.
    """
    rng = np.random.default_rng(seed)
    classes = np.unique(labels)
    k = len(classes)
    m = np.arange(max(count // k, 1) * k)
    shifts = np.concatenate([rng.permutation(k) for _ in range(len(m) // k // k + 1)])
    places = m % k, (m % k + shifts[m // k]) % k
    chosen = tuple(_cycled(labels, classes, place, rng) for place in places)
    order = rng.permutation(len(m))  # any part of the pairs, such as those that a probe is fitted on, is a fair sample
    return Pairs(chosen[0][order], chosen[1][order], (classes[places[0]][order], classes[places[1]][order]))


def _cycled(labels: np.ndarray, classes: np.ndarray, places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each entry an image of its class, all images of a class in turn."""
    members = [rng.permutation(np.flatnonzero(labels == label)) for label in classes]
    turn = np.zeros(len(places), int)
    for place in range(len(classes)):
        own = places == place
        turn[own] = np.arange(own.sum())
    return np.array([members[p][t % len(members[p])] for p, t in zip(places, turn, strict=True)])


def make(kind: str, first: Images, second: Images, level: float, key: Key) -> CueImages:
    """Conflict images of one kind and strength.

    Args:
        kind: `hybrid` or `patches`.
        first: gives low frequencies or the outline, in [0, 1], `[n h w c]`.
        second: gives high frequencies or patches.
        level: one of `levels`.
        key: random key for the permutations of patches.
    """
    if kind == "hybrid":
        alone, other, contrast = distortions.low_pass(first, level), distortions.high_pass(second, level), 1.0
    else:
        alone, other = outlines(first), distortions.patch_shuffle(second, int(level), key)
        contrast = _PATCH_CONTRAST
    added = contrast * (other - other.mean((1, 2), keepdims=True))
    return CueImages(jnp.clip(alone + added, 0, 1), (alone, jnp.clip(0.5 + added, 0, 1)))


def outlines(images: Images) -> Images:
    """Two-tone images: light where the blurred luminance is above its median, dark elsewhere."""
    grey = distortions.greyscale(images) if images.shape[-1] == 3 else images.mean(-1, keepdims=True)
    blurred = distortions.low_pass(grey, images.shape[1] * _OUTLINE_BLUR)[..., :1]
    light = blurred > jnp.median(blurred, axis=(1, 2), keepdims=True)
    return jnp.broadcast_to(jnp.where(light, _OUTLINE[1], _OUTLINE[0]), images.shape).astype(images.dtype)
