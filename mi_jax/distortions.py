"""Distortions of images that spare shape or texture: saturation, shuffled patches, frequency bands, phase, grey, noise.

All are pure and jittable, take float images [b h w c] in [0, 1] and return images in [0, 1]. They know nothing of
attacks: make the adversarial images first, then distort clean and adversarial ones alike.

Distortions that draw random numbers take a `key` and give image i the i-th draw, whatever the other images are: the
same key and place in the batch mean the same permutation, phases or noise for every model and every level.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Int

from mi_jax.errors import InputError
from mi_jax.typing import Images, Key

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601)."""


def saturate(x: ArrayLike, p: ArrayLike) -> Images:
    """Pixels pushed away from grey: v' = 1/2 + sign(2v - 1) |2v - 1|^(2/p) / 2. Shape stays, texture is flattened.

    p = 2 leaves the image as it is, p = inf makes it black and white (1/2 stays 1/2), and saturating by p and then by q
    is saturating by p q / 2. Source: Zhang and Zhu, Interpreting Adversarially Trained Convolutional Neural Networks
    (2019); Zhang et al. (2022).

    Args:
        x: images [b h w c] in [0, 1].
        p: the level, above 0; may be traced.

    Raises:
        InputError: where x are no images in [0, 1] or p is not above 0.
    """
    images = _images(x, "saturate")
    if not isinstance(p, Tracer) and not np.all(np.asarray(p) > 0):
        raise InputError(f"saturate needs p above 0 (2 changes nothing, larger saturates); got {p!r}.")
    centred = 2 * images - 1
    return 0.5 + jnp.sign(centred) * jnp.abs(centred) ** (2 / jnp.asarray(p, images.dtype)) / 2


def patch_permutations(key: Key, n: int, k: int, *, shared: bool = False) -> Int[Array, "n k2"]:
    """For each of n images a permutation of its k x k patches, drawn evenly from all (k^2)!, the identity included.

    Entry j of a row is the patch, counted row by row, that comes to place j.

    Args:
        key: of the permutations.
        n: how many images.
        k: patches a side.
        shared: one permutation for all images instead of one each.
    """
    if shared:
        return jnp.broadcast_to(jax.random.permutation(key, k * k), (n, k * k))
    return jax.vmap(lambda index: jax.random.permutation(jax.random.fold_in(key, index), k * k))(jnp.arange(n))


def permute_patches(x: ArrayLike, permutations: ArrayLike) -> Images:
    """Images with their k x k patches moved: patch `permutations[i, j]` of image i comes to place j.

    `permute_patches(y, jnp.argsort(permutations, axis=1))` undoes it.

    Args:
        x: images [b h w c] in [0, 1]; k must divide height and width.
        permutations: int [b k^2].

    Raises:
        InputError: where x are no images in [0, 1], k does not divide them, or the permutations do not fit.
    """
    images = _images(x, "permute_patches")
    order = jnp.asarray(permutations)
    k = math.isqrt(order.shape[-1]) if order.ndim == 2 else 0
    if order.ndim != 2 or k * k != order.shape[1] or len(order) != len(images):
        raise InputError(
            f"permute_patches needs one permutation of k x k patches for each of {len(images)} images; got the "
            f"shape {order.shape}."
        )
    if not isinstance(order, Tracer) and not np.array_equal(np.sort(order, axis=1), [range(k * k)] * len(order)):
        raise InputError(f"permute_patches needs each row to hold every number from 0 to {k * k - 1} once.")
    _check_divides(images, k)
    count, height, width, channels = images.shape
    patches = images.reshape(count, k, height // k, k, width // k, channels).transpose(0, 1, 3, 2, 4, 5)
    patches = patches.reshape(count, k * k, -1)
    patches = jnp.take_along_axis(patches, order[:, :, None], axis=1)
    patches = patches.reshape(count, k, k, height // k, width // k, channels).transpose(0, 1, 3, 2, 4, 5)
    return patches.reshape(images.shape)


def patch_shuffle(x: ArrayLike, k: int, key: Key, *, shared: bool = False) -> Images:
    """Images cut into k x k patches that change places at random: texture stays within a patch, shape is destroyed.

    k = 1 changes nothing. Which permutation an image gets depends on the key and its place in the batch alone (see
    `patch_permutations`). Source: Zhang and Zhu (2019).

    Args:
        x: images [b h w c] in [0, 1].
        k: patches a side; must divide height and width.
        key: of the permutations.
        shared: one permutation for all images instead of one each.

    Raises:
        InputError: where x are no images in [0, 1] or k does not divide height and width.
    """
    images = _images(x, "patch_shuffle")
    _check_divides(images, k)
    return permute_patches(images, patch_permutations(key, len(images), k, shared=shared))


def low_pass(x: ArrayLike, cutoff: ArrayLike) -> Images:
    """Only the frequencies up to a radius, the mean included, clipped to [0, 1].

    The filter is ideal and isotropic (so doing it twice is doing it once, but for clipping), and periodic at the
    borders. Source: Wang et al., High-frequency Component Helps Explain the Generalization of CNNs (2020).

    Args:
        x: images [b h w c] in [0, 1].
        cutoff: largest radial frequency that passes, in cycles per image height; 0 leaves the mean colour alone, and
            sqrt(2) height / 2 passes everything in a square image. May be traced.

    Raises:
        InputError: where x are no images in [0, 1] or the cutoff is negative.
    """
    images = _images(x, "low_pass")
    _check_not_negative("low_pass cutoff", cutoff)
    return jnp.clip(_filtered(images, _radius(images) <= jnp.asarray(cutoff)), 0.0, 1.0)


def high_pass(x: ArrayLike, cutoff: ArrayLike) -> Images:
    """The mean of each channel and only the frequencies above a radius, clipped to [0, 1].

    The counterpart of `low_pass`: but for clipping, low_pass + high_pass - mean is the image. The mean is kept so that
    the image stays within range.

    Args:
        x: images [b h w c] in [0, 1].
        cutoff: largest radial frequency that is removed, in cycles per image height; 0 changes nothing. May be traced.

    Raises:
        InputError: where x are no images in [0, 1] or the cutoff is negative.
    """
    images = _images(x, "high_pass")
    _check_not_negative("high_pass cutoff", cutoff)
    radius = _radius(images)
    return jnp.clip(_filtered(images, (radius > jnp.asarray(cutoff)) | (radius == 0)), 0.0, 1.0)


def phase_scramble(x: ArrayLike, strength: ArrayLike, key: Key) -> Images:
    """Random angles added to the phase of every frequency: the spectrum of amplitudes stays, arrangement is lost.

    Each frequency of each image is turned by an angle drawn evenly from [-strength pi, strength pi], opposite for
    opposite frequencies and the same in all channels; frequencies that are their own opposite, the mean among them,
    stay as they are. The amplitudes are kept exactly up to the final clip to [0, 1]. Source: Geirhos et al.,
    Generalisation in Humans and Deep Neural Networks (2018), phase noise.

    Args:
        x: images [b h w c] in [0, 1].
        strength: 0 changes nothing, 1 makes the phases uniformly random. May be traced.
        key: of the angles.

    Raises:
        InputError: where x are no images in [0, 1] or the strength is not in [0, 1].
    """
    images = _images(x, "phase_scramble")
    if not isinstance(strength, Tracer) and not np.all((np.asarray(strength) >= 0) & (np.asarray(strength) <= 1)):
        raise InputError(f"phase_scramble strength must lie in [0, 1] (1 is fully random); got {strength!r}.")
    count, height, width, _ = images.shape
    index = np.arange(height * width).reshape(height, width)
    opposite = np.roll(index[::-1, ::-1], (1, 1), axis=(0, 1))
    drawn = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), (height * width,), minval=-1.0))
    angles = jnp.pi * jnp.asarray(strength, jnp.float32) * drawn(jnp.arange(count))
    angles = jnp.sign(opposite - index) * angles[:, np.minimum(index, opposite)]
    spectrum = jnp.fft.fft2(images, axes=(1, 2)) * jnp.exp(1j * angles)[..., None]
    return jnp.clip(jnp.fft.ifft2(spectrum, axes=(1, 2)).real, 0.0, 1.0).astype(images.dtype)


def greyscale(x: ArrayLike) -> Images:
    """Images without colour, 0.299 R + 0.587 G + 0.114 B in every channel; those of one channel come back as they are.

    Raises:
        InputError: where x are no images in [0, 1] of 1 or 3 channels.
    """
    images = _images(x, "greyscale")
    if images.shape[-1] == 1:
        return images
    if images.shape[-1] != 3:
        raise InputError(f"greyscale needs images of 1 or 3 channels; got {images.shape[-1]}.")
    luminance = jnp.sum(images * jnp.asarray(LUMINANCE, images.dtype), axis=-1, keepdims=True)
    return jnp.clip(jnp.broadcast_to(luminance, images.shape), 0.0, 1.0)


def gaussian_noise(x: ArrayLike, std: ArrayLike, key: Key) -> Images:
    """Independent normal noise on every pixel and channel, clipped to [0, 1].

    Args:
        x: images [b h w c] in [0, 1].
        std: standard deviation before clipping. May be traced.
        key: of the noise.

    Raises:
        InputError: where x are no images in [0, 1] or the standard deviation is negative.
    """
    images = _images(x, "gaussian_noise")
    _check_not_negative("gaussian_noise std", std)
    drawn = jax.vmap(lambda index: jax.random.normal(jax.random.fold_in(key, index), images.shape[1:], images.dtype))
    return jnp.clip(images + jnp.asarray(std, images.dtype) * drawn(jnp.arange(len(images))), 0.0, 1.0)


def _radius(images: Any) -> np.ndarray:
    """Radial frequency of every coefficient of `rfft2`, in cycles per image height, [h, w // 2 + 1]."""
    height, width = images.shape[1:3]
    down = (np.arange(height) + height // 2) % height - height // 2
    right = np.arange(width // 2 + 1) * (height / width)
    return np.hypot(down[:, None], right[None, :])


def _filtered(images: Any, passes: Any) -> Any:
    wide = images.astype(jnp.promote_types(images.dtype, jnp.float32))  # there is no transform of half precision
    spectrum = jnp.fft.rfft2(wide, axes=(1, 2)) * passes[None, :, :, None]
    return jnp.fft.irfft2(spectrum, s=images.shape[1:3], axes=(1, 2)).astype(images.dtype)


def _check_divides(images: Any, k: int) -> None:
    height, width = images.shape[1:3]
    if k < 1 or height % k or width % k:
        fitting = [side for side in range(1, min(height, width) + 1) if height % side == 0 and width % side == 0]
        raise InputError(
            f"Images of {height} x {width} cannot be cut into {k} x {k} equal patches; "
            f"k may be {', '.join(str(side) for side in fitting)}."
        )


def _check_not_negative(what: str, value: Any) -> None:
    if not isinstance(value, Tracer) and not np.all(np.asarray(value) >= 0):
        raise InputError(f"{what} must not be negative; got {value!r}.")


def _images(x: Any, name: str) -> Any:
    """The images as a float array; the range is looked at where values are known, outside of jit."""
    images = jnp.asarray(x)
    if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(
            f"{name} expects float images [b h w c] in [0, 1]; got {images.dtype} of the shape {images.shape}."
        )
    if not isinstance(images, Tracer) and images.size:
        low, high = float(images.min()), float(images.max())
        if not (low >= 0 and high <= 1):
            raise InputError(f"{name} expects images in [0, 1]; got values from {low:g} to {high:g}.")
    return images
