"""Distortions of images that preserve shape or texture: saturation, shuffled patches, frequency bands, phase, noise.

All are pure and jittable, take floating images [b h w c] in [0, 1] and return images in [0, 1].

Distortions that draw random numbers take a `key` and give image i the i-th draw, whatever the other images are: the
same key and index mean the same permutation, phases or noise for every model and level.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Int

from mi_jax import checks
from mi_jax.errors import InputError
from mi_jax.typing import Images, Key

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601)."""


def saturate(x: ArrayLike, p: ArrayLike) -> Images:
    """Moves pixels away from grey: v' = 1/2 + sign(2v - 1) |2v - 1|^(2/p) / 2. Keeps shape, flattens texture.

    p = 2 is the identity, p = inf makes the image black and white (1/2 stays 1/2), and saturating by p and then by q is
    saturating by p q / 2. The gradient at a pixel of exactly 1/2 is taken as 0.

    Args:
        x: images [b h w c] in [0, 1].
        p: the level, above 0. May be traced.

    Returns:
        The distorted images [b h w c].

    Raises:
        InputError: when x are not images in [0, 1] or p is not above 0.

    References:
        Zhang and Zhu, Interpreting Adversarially Trained Convolutional Neural Networks (2019); Zhang et al. (2022).

    Examples:
        >>> x = jnp.array([0.0, 0.4, 0.5, 1.0]).reshape(1, 1, 4, 1)
        >>> saturate(x, 2.0).ravel().round(3).tolist() == x.ravel().round(3).tolist()
        True
        >>> saturate(x, jnp.inf).ravel().tolist()
        [0.0, 0.0, 0.5, 1.0]
    """
    images = checks.images(x)
    p = _level("p", p, lambda v: v > 0, "a number above 0; 2 is the identity, larger values saturate")
    centred = 2 * images - 1
    contrast = jnp.where(centred == 0, 1, jnp.abs(centred))  # a power of 0 has no finite derivative
    return 0.5 + jnp.sign(centred) * contrast ** (2 / jnp.asarray(p, images.dtype)) / 2


def patch_permutations(key: Key | int, n: int, k: int, *, shared: bool = False) -> Int[Array, "n k2"]:
    """For each of n images a permutation of its k x k patches, uniform over all (k^2)!, the identity included.

    Entry j of a row is the index of the patch, counted row by row, that moves to position j.

    Args:
        key: a random key or a seed, for the permutations.
        n: how many images.
        k: patches per side.
        shared: one permutation for all images instead of one each.

    Returns:
        int [n k^2].

    Raises:
        InputError: when n or k is no whole number of at least 1.
    """
    checks.count("n", n)
    checks.count("k", k)
    checks.flag("shared", shared)
    key = checks.key(key)
    if shared:
        return jnp.broadcast_to(jax.random.permutation(key, k * k), (n, k * k))
    return jax.vmap(lambda index: jax.random.permutation(jax.random.fold_in(key, index), k * k))(jnp.arange(n))


def permute_patches(x: ArrayLike, permutations: ArrayLike) -> Images:
    """Images with permuted k x k patches: patch `permutations[i, j]` of image i moves to position j.

    `permute_patches(y, jnp.argsort(permutations, axis=1))` is the inverse.

    Args:
        x: images [b h w c] in [0, 1]; k must divide height and width.
        permutations: int [b k^2].

    Returns:
        The images [b h w c].

    Raises:
        InputError: when x are not images in [0, 1], k does not divide them, or the permutations do not fit.
    """
    images = checks.images(x)
    order = checks.array(permutations, name="Permutations")
    k = math.isqrt(order.shape[-1]) if order.ndim == 2 else 0
    if not k or k * k != order.shape[1] or len(order) != len(images):
        raise InputError(f"Permutations must have shape [{len(images)}, k * k], one per image; got {order.shape}.")
    if not jnp.issubdtype(order.dtype, jnp.integer):
        raise InputError(f"Permutations must be integers, not {order.dtype}.")
    if checks.known(order) and not np.array_equal(np.sort(order, axis=1), [range(k * k)] * len(order)):
        raise InputError(f"Each permutation must hold every number from 0 to {k * k - 1} once.")
    _check_divides(images, k)
    count, height, width, channels = images.shape
    patches = images.reshape(count, k, height // k, k, width // k, channels).transpose(0, 1, 3, 2, 4, 5)
    patches = patches.reshape(count, k * k, -1)
    patches = jnp.take_along_axis(patches, order[:, :, None], axis=1)
    patches = patches.reshape(count, k, k, height // k, width // k, channels).transpose(0, 1, 3, 2, 4, 5)
    return patches.reshape(images.shape)


def patch_shuffle(x: ArrayLike, k: int, key: Key | int, *, shared: bool = False) -> Images:
    """Permutes the k x k patches of each image at random: destroys shape, keeps the texture within a patch.

    k = 1 is the identity. The permutation of an image depends on the key and its index alone (see
    `patch_permutations`).

    Args:
        x: images [b h w c] in [0, 1].
        k: patches per side; must divide height and width.
        key: random key for the permutations.
        shared: one permutation for all images instead of one each.

    Returns:
        The distorted images [b h w c].

    Raises:
        InputError: when x are not images in [0, 1] or k does not divide height and width.

    References:
        Zhang and Zhu (2019).

    Examples:
        >>> x = jnp.arange(16).reshape(1, 4, 4, 1) / 15
        >>> shuffled = patch_shuffle(x, 2, jax.random.key(0))
        >>> bool((jnp.sort(shuffled.ravel()) == x.ravel()).all())
        True
    """
    images = checks.images(x)
    _check_divides(images, k)
    return permute_patches(images, patch_permutations(key, len(images), k, shared=shared))


def low_pass(x: ArrayLike, cutoff: ArrayLike) -> Images:
    """Keeps the frequencies up to a radius, the mean included, and clips to [0, 1].

    The filter is ideal (idempotent up to clipping), isotropic, and periodic at the borders.

    Args:
        x: images [b h w c] in [0, 1].
        cutoff: largest radial frequency that passes, in cycles per image height; 0 leaves the mean colour, and
            sqrt(2) height / 2 passes everything in a square image. May be traced.

    Returns:
        The distorted images [b h w c].

    Raises:
        InputError: when x are not images in [0, 1] or the cutoff is negative.

    References:
        Wang et al., High-frequency Component Helps Explain the Generalization of CNNs (2020).

    Examples:
        >>> x = jnp.array([[0.0, 1.0], [1.0, 0.0]]).reshape(1, 2, 2, 1)
        >>> low_pass(x, 0.0).ravel().tolist()
        [0.5, 0.5, 0.5, 0.5]
    """
    images = checks.images(x)
    cutoff = _level("cutoff", cutoff, lambda v: v >= 0, "a number of at least 0")
    return jnp.clip(_filtered(images, _radius(images) <= jnp.asarray(cutoff)), 0.0, 1.0)


def high_pass(x: ArrayLike, cutoff: ArrayLike) -> Images:
    """Keeps the mean of each channel and the frequencies above a radius, and clips to [0, 1].

    The complement of `low_pass`: up to clipping, low_pass + high_pass - mean is the image. The mean is kept so that
    pixels stay in range.

    Args:
        x: images [b h w c] in [0, 1].
        cutoff: largest radial frequency that is removed, in cycles per image height; 0 is the identity. May be traced.

    Returns:
        The distorted images [b h w c].

    Raises:
        InputError: when x are not images in [0, 1] or the cutoff is negative.

    References:
        Wang et al. (2020), as for `low_pass`.

    Examples:
        >>> x = jnp.array([[0.0, 1.0], [1.0, 0.0]]).reshape(1, 2, 2, 1)
        >>> high_pass(x, 1.0).ravel().tolist(), high_pass(x, 2.0).ravel().tolist()
        ([0.0, 1.0, 1.0, 0.0], [0.5, 0.5, 0.5, 0.5])
    """
    images = checks.images(x)
    cutoff = _level("cutoff", cutoff, lambda v: v >= 0, "a number of at least 0")
    radius = _radius(images)
    return jnp.clip(_filtered(images, (radius > jnp.asarray(cutoff)) | (radius == 0)), 0.0, 1.0)


def phase_scramble(x: ArrayLike, strength: ArrayLike, key: Key | int) -> Images:
    """Adds random angles to the phase of every frequency: keeps the amplitude spectrum, destroys the arrangement.

    Each frequency of each image is rotated by an angle drawn uniformly from [-strength pi, strength pi], opposite for
    opposite frequencies and the same in all channels; frequencies that are their own opposite, such as the mean, are
    unchanged. The amplitudes are kept exactly up to the final clip to [0, 1].

    Args:
        x: images [b h w c] in [0, 1].
        strength: 0 is the identity, 1 makes the phases uniformly random. May be traced.
        key: a random key or a seed, for the angles.

    Returns:
        The distorted images [b h w c].

    Raises:
        InputError: when x are not images in [0, 1] or the strength is not in [0, 1].

    References:
        Geirhos et al., Generalisation in Humans and Deep Neural Networks (2018), phase noise.
    """
    images = checks.images(x)
    strength = _level("strength", strength, lambda v: 0 <= v <= 1, "a number in [0, 1]")
    key = checks.key(key)
    count, height, width, _ = images.shape
    index = np.arange(height * width).reshape(height, width)
    opposite = np.roll(index[::-1, ::-1], (1, 1), axis=(0, 1))
    drawn = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), (height * width,), minval=-1.0))
    angles = jnp.pi * jnp.asarray(strength, jnp.float32) * drawn(jnp.arange(count))
    angles = np.sign(opposite - index).astype(np.float32)[None] * angles[:, np.minimum(index, opposite)]
    spectrum = jnp.fft.fft2(images, axes=(1, 2))
    spectrum = spectrum * jnp.exp(1j * angles.astype(spectrum.dtype))[..., None]
    return jnp.clip(jnp.fft.ifft2(spectrum, axes=(1, 2)).real, 0.0, 1.0).astype(images.dtype)


def greyscale(x: ArrayLike) -> Images:
    """Removes colour: 0.299 R + 0.587 G + 0.114 B in every channel; images of one channel are unchanged.

    Args:
        x: images [b h w c] in [0, 1], c = 1 or 3.

    Returns:
        The distorted images [b h w c].

    Raises:
        InputError: when x are not images in [0, 1] of 1 or 3 channels.
    """
    images = checks.images(x)
    if images.shape[-1] == 1:
        return images
    if images.shape[-1] != 3:
        raise InputError(f"Images must have 1 or 3 channels for greyscale; got {images.shape[-1]}.")
    luminance = jnp.sum(images * jnp.asarray(LUMINANCE, images.dtype).reshape(1, 1, 1, 3), axis=-1, keepdims=True)
    return jnp.clip(jnp.broadcast_to(luminance, images.shape), 0.0, 1.0)


def gaussian_noise(x: ArrayLike, std: ArrayLike, key: Key | int) -> Images:
    """Adds independent normal noise to every pixel and channel and clips to [0, 1].

    Args:
        x: images [b h w c] in [0, 1].
        std: standard deviation before clipping, pixel units, at most 1. May be traced.
        key: a random key or a seed, for the noise.

    Returns:
        The distorted images [b h w c].

    Raises:
        InputError: when x are not images in [0, 1] or the standard deviation is not in [0, 1].
    """
    images = checks.images(x)
    std = _level("std", std, lambda v: 0 <= v <= 1, "a number in [0, 1], such as 8/255")
    key = checks.key(key)
    wide = _widened(images)
    drawn = jax.vmap(lambda index: jax.random.normal(jax.random.fold_in(key, index), wide.shape[1:], wide.dtype))
    noisy = wide + jnp.asarray(std, wide.dtype) * drawn(jnp.arange(len(wide)))
    return jnp.clip(noisy, 0.0, 1.0).astype(images.dtype)


def _radius(images: Any) -> np.ndarray:
    """Radial frequency of every coefficient of `rfft2`, in cycles per image height, [h, w // 2 + 1]."""
    height, width = images.shape[1:3]
    down = (np.arange(height) + height // 2) % height - height // 2
    right = np.arange(width // 2 + 1) * (height / width)
    return np.hypot(down[:, None], right[None, :])


def _widened(images: Any) -> Any:
    """Images of half precision in float32, in which there are transforms and finer normal deviates; others as given."""
    return images.astype(np.promote_types(images.dtype, jnp.float32))


def _filtered(images: Any, passes: Any) -> Any:
    spectrum = jnp.fft.rfft2(_widened(images), axes=(1, 2))
    spectrum = spectrum * jnp.asarray(passes, spectrum.dtype)[None, :, :, None]
    return jnp.fft.irfft2(spectrum, s=images.shape[1:3], axes=(1, 2)).astype(images.dtype)


def _check_divides(images: Any, k: int) -> None:
    checks.count("k", k)
    height, width = images.shape[1:3]
    if height % k or width % k:
        fitting = [side for side in range(1, min(height, width) + 1) if height % side == 0 and width % side == 0]
        raise InputError(
            f"Images of {height} x {width} cannot be cut into {k} x {k} equal patches; "
            f"k may be {', '.join(str(side) for side in fitting)}."
        )


def _level(name: str, value: Any, holds: Callable[[Any], bool], expected: str) -> Any:
    """A level, which may be traced, in a dtype of JAX.

    Raises `InputError` unless it is one real number for which `holds`, where it is known.
    """
    level = checks.array(value, name=name) if isinstance(value, np.ndarray | np.generic) else value
    number: Any = np.asarray(level) if isinstance(level, int | float) else level
    one = isinstance(number, jax.Array | np.ndarray) and number.ndim == 0
    real = one and (jnp.issubdtype(number.dtype, jnp.integer) or jnp.issubdtype(number.dtype, jnp.floating))
    if not real or (checks.known(number) and not holds(number)):
        got = f"of shape {number.shape}" if getattr(number, "ndim", 0) else repr(value)
        raise InputError(f"Invalid {name} {got}: expected {expected}.")
    return level
