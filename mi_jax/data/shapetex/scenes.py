"""Cue fields of given factors, and images composed of cue fields at any amplitude; `sets` chooses the factors."""

import functools
import math
from dataclasses import dataclass
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax import checks
from mi_jax.data.shapetex.config import IMAGE_SIZE, NUM_CLASSES, Placement, TextureScale
from mi_jax.data.shapetex.shapes import mask
from mi_jax.data.shapetex.textures import TILE, texture
from mi_jax.typing import Images, Key

BLOCK = 500  # images per compiled call: one compilation serves splits of every size


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["mask", "texture", "hue", "noise", "factors"],
    meta_fields=[],
)
@dataclass(frozen=True, eq=False)
class Scene:
    """Cue fields of a set of images, from which `compose` makes images at any amplitude.

    Attributes:
        mask: m_S in [0, 1], how much of each pixel the shape covers, [n h w].
        texture: t_T, +-1 with mean 0, [n h w].
        hue: u_C, orthogonal to (1, 1, 1) and of L-infinity norm 1, [n 3].
        noise: standard normal, [n h w 3].
        factors: index of the "shape", "texture" and "colour" of each image, int32 [n], 0..9.
    """

    mask: Any
    texture: Any
    hue: Any
    noise: Any
    factors: dict[str, Any]

    @property
    def shape(self) -> Any:
        """The shape field 2 m_S - 1 in [-1, 1], [n h w]."""
        return 2 * self.mask - 1

    def __len__(self) -> int:
        return len(self.mask)


def hues() -> np.ndarray:
    """The ten hues as float32 [10 3]: evenly around the grey axis, orthogonal to it, with L-infinity norm 1."""
    angle = 2 * np.pi * np.arange(NUM_CLASSES)[:, None] / NUM_CLASSES
    first, second = np.array([2, -1, -1]) / math.sqrt(6), np.array([0, 1, -1]) / math.sqrt(2)
    hue = np.cos(angle) * first + np.sin(angle) * second
    return (hue / np.abs(hue).max(axis=1, keepdims=True)).astype(np.float32)


@functools.partial(jax.jit, static_argnames="scale")
def _draw_block(key: Key, shape: Any, texture_index: Any, *, scale: TextureScale) -> tuple[Any, Any, Any]:
    """Masks, textures and noise of one block: translation +-3 px, rotation +-15 degrees, scale +-12 %.

    All come from one uniform draw on (-1, 1), as every further draw adds more than a second of compilation.
    """
    pixels = IMAGE_SIZE**2
    above_minus_one = np.nextafter(np.float32(-1), np.float32(0))
    uniform = jax.random.uniform(key, (BLOCK, 6 + 4 * pixels), minval=above_minus_one)
    pose, phase, white, noise = jnp.split(uniform, (4, 6, 6 + pixels), axis=1)

    masks = jax.vmap(lambda index, shift, angle, size: mask(index, shift=shift, angle=angle, scale=size))(
        shape, 3.0 * pose[:, :2], jnp.deg2rad(15.0) * pose[:, 2], 1 + 0.12 * pose[:, 3]
    )
    textures = jax.vmap(lambda index, moved, field: texture(index, phase=moved, white=field, scale=scale))(
        texture_index,
        jnp.floor((phase + 1) * (TILE / 2)).astype(jnp.int32),
        white.reshape(BLOCK, IMAGE_SIZE, IMAGE_SIZE),
    )
    normal = math.sqrt(2) * jax.lax.erf_inv(noise)
    return masks, textures, normal.reshape(BLOCK, IMAGE_SIZE, IMAGE_SIZE, 3)


def draw(factors: dict[str, np.ndarray], key: Key | int, *, scale: TextureScale = "fine") -> Scene:
    """Generate the cue fields of images with the given factors.

    Image i depends only on `key`, i and its own factors, so a longer set begins with a shorter one.

    Args:
        factors: index of the "shape", "texture" and "colour" of each image, int32 [n], 0..9.
        key: a random key or a seed, of poses, phases, random textures and noise.
        scale: the family of textures.

    Raises:
        InputError: for no image, factors of another form or range, and what is no key.
    """
    key, count = checks.key(key), len(factors["shape"])
    checks.count("number of images", count)
    factors = {
        cue: np.asarray(checks.labels(values, count, classes=NUM_CLASSES, name=f"The factors {cue!r}"))
        for cue, values in factors.items()
    }
    parts = []
    for first in range(0, count, BLOCK):
        rows = {name: factors[name][first : first + BLOCK] for name in ("shape", "texture")}
        padded = {name: np.pad(values, (0, BLOCK - len(values))) for name, values in rows.items()}
        block_key = jax.random.fold_in(key, first // BLOCK)
        drawn = _draw_block(block_key, padded["shape"], padded["texture"], scale=scale)
        parts.append([np.asarray(part)[: len(rows["shape"])] for part in drawn])
    masks, textures, noise = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Scene(mask=masks, texture=textures, hue=hues()[factors["colour"]], noise=noise, factors=factors)


def compose(
    scene: Scene,
    *,
    shape_amplitude: Any,
    texture_amplitude: Any,
    colour_amplitude: Any = 0.0,
    noise: Any = 2 / 255,
    placement: Placement = "global",
) -> Images:
    """Float images x = clip(1/2 + a_S (2 m_S - 1) + a_T w t_T + a_C u_C + sigma n, 0, 1), not quantised.

    Pure and jittable; amplitudes may be traced.

    Args:
        scene: the cue fields.
        shape_amplitude: a_S, in pixel units of [0, 1].
        texture_amplitude: a_T.
        colour_amplitude: a_C.
        noise: sigma.
        placement: chooses w: 1 ("global"), m_S ("foreground") or 1 - m_S ("background").

    Raises:
        InputError: for another placement.
    """
    checks.one_of("placement", placement, get_args(Placement))
    where = {"global": 1.0, "foreground": scene.mask, "background": 1 - scene.mask}[placement]
    luminance = 0.5 + shape_amplitude * scene.shape + texture_amplitude * where * scene.texture
    colour = colour_amplitude * scene.hue[:, None, None, :]
    return jnp.clip(luminance[..., None] + colour + noise * scene.noise, 0.0, 1.0)


@functools.partial(jax.jit, static_argnames="placement")
def _quantised_block(scene: Scene, amplitudes: dict[str, Any], *, placement: Placement) -> Any:
    return jnp.round(compose(scene, **amplitudes, placement=placement) * 255).astype(jnp.uint8)


def quantised(scene: Scene, *, placement: Placement, **amplitudes: float) -> np.ndarray:
    """The images of `compose` rounded to uint8 on the host, [n h w c]."""
    parts = []
    for first in range(0, len(scene), BLOCK):
        count = min(BLOCK, len(scene) - first)
        rows = np.minimum(first + np.arange(BLOCK), len(scene) - 1)
        block = jax.tree.map(lambda values, rows=rows: np.asarray(values)[rows], scene)
        parts.append(np.asarray(_quantised_block(block, amplitudes, placement=placement))[:count])
    return np.concatenate(parts)
