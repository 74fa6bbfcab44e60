"""The ten zero-mean, +-1 textures of ShapeTex, fine or coarse.

Eight are periodic tiles with a random phase; two are random in each image: binary noise, and camouflage (band-pass
noise thresholded at its median).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt

from mi_jax.data.shapetex.config import IMAGE_SIZE, TEXTURES, TextureScale

TILE = 16  # a multiple of every period
NOISE = TEXTURES.index("noise")
CAMOUFLAGE = TEXTURES.index("camouflage")


@dataclass(frozen=True)
class _Random:
    """The random textures at one scale: noise in blocks of `block` pixels, camouflage of `band` cycles per image."""

    block: int
    band: tuple[float, float]


RANDOM: dict[TextureScale, _Random] = {
    "fine": _Random(block=1, band=(2.5, 4.5)),
    "coarse": _Random(block=4, band=(1.5, 2.5)),
}


def _dot_lattice() -> np.ndarray:
    """One 8 x 8 cell of a staggered lattice of round dots of 16 pixels, which cover half of the area."""
    dot = np.array([[0, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 0]], bool)
    cell = np.zeros((8, 8), bool)
    for top, left in ((0, 0), (4, 4)):
        rows, columns = (top + np.arange(5)) % 8, (left + np.arange(4)) % 8
        cell[np.ix_(rows, columns)] |= dot
    return cell


def tiles(scale: TextureScale) -> np.ndarray:
    """The eight periodic textures as tiles of +-1, float32 [8 16 16], in the order of `TEXTURES`.

    The coarse ones are the fine ones magnified twice, so that no period is below 8 pixels.
    """
    zoom = 1 if scale == "fine" else 2
    y, x = np.mgrid[:TILE, :TILE] // zoom
    patterns = [
        y % 4 < 2,
        x % 4 < 2,
        (x + y) % 4 < 2,
        (x - y) % 4 < 2,
        y % 8 < 4,
        x % 8 < 4,
        (x // 2 + y // 2) % 2 == 0,
        _dot_lattice()[y % 8, x % 8],
    ]
    return np.where(patterns, 1, -1).astype(np.float32)


def _band_pass(noise: Float[Array, "h w"], band: tuple[float, float]) -> Float[Array, "h w"]:
    """The part of `noise` whose radial frequency, in cycles per image, lies in the band."""
    cycles = np.fft.fftfreq(IMAGE_SIZE, 1 / IMAGE_SIZE)
    radius = np.hypot(cycles[:, None], cycles[None, :])
    kept = ((radius >= band[0]) & (radius <= band[1])).astype(np.float32)
    spectrum = jnp.fft.fft2(noise)
    return jnp.fft.ifft2(spectrum * kept.astype(spectrum.dtype)).real


def _upper_half(field: Float[Array, "h w"], tie_break: Int[Array, "h w"]) -> Float[Array, "h w"]:
    """+1 on the upper half of the values and -1 on the lower: exactly half of the pixels each.

    The threshold is found bit by bit over integers in the order of the floats (sorting is slow on CPU); their lowest
    bits are replaced by `tie_break`, in 0..1023, which separates equal values.
    """
    bits = jax.lax.bitcast_convert_type(field.astype(jnp.float32), jnp.uint32)
    top = jnp.uint32(1 << 31)
    ordered = jnp.where(bits >= top, ~bits, bits | top)
    ordered = (ordered & ~jnp.uint32(1023)) | tie_break.astype(jnp.uint32)

    def refine(step: Int[Array, ""], threshold: UInt[Array, ""]) -> UInt[Array, ""]:
        candidate = threshold | (top >> step.astype(jnp.uint32))
        return jnp.where(jnp.sum(ordered >= candidate) >= field.size // 2, candidate, threshold)

    threshold = jax.lax.fori_loop(0, 32, refine, jnp.uint32(0))
    return jnp.where(ordered >= threshold, 1.0, -1.0)


def texture(
    index: Int[Array, ""], *, phase: Int[Array, "2"], white: Float[Array, "h w"], scale: TextureScale
) -> Float[Array, "h w"]:
    """One texture field of +-1 with mean exactly 0.

    Args:
        index: its index in `TEXTURES`.
        phase: displacement of the periodic textures and the blocks of noise in pixels (down, right).
        white: independent values, symmetric about 0, from which the random textures are computed.
        scale: the family of textures.
    """
    y, x = jnp.mgrid[:IMAGE_SIZE, :IMAGE_SIZE] + phase[:, None, None]
    periodic = jnp.asarray(tiles(scale))[jnp.minimum(index, NOISE - 1), y % TILE, x % TILE]

    kind = RANDOM[scale]
    per_side = IMAGE_SIZE // kind.block
    block = (y // kind.block % per_side) * per_side + x // kind.block % per_side
    pixel = jnp.arange(IMAGE_SIZE**2).reshape(IMAGE_SIZE, IMAGE_SIZE)
    is_noise = index == NOISE
    field = jnp.where(is_noise, white.reshape(-1)[block], _band_pass(white, kind.band))
    return jnp.where(index < NOISE, periodic, _upper_half(field, jnp.where(is_noise, block, pixel)))
