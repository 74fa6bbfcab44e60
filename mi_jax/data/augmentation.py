"""What happens to training images on the device: their order in an epoch, scaling to floats, random crops and flips."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float32, Int32, Shaped

from mi_jax import checks
from mi_jax.errors import InputError
from mi_jax.typing import Key


@dataclass(frozen=True)
class Augmentation:
    """Random crops and flips of training images.

    Attributes:
        pad: zero pixels on each side before a crop to the original size; 0 for no crop.
        flip: whether to mirror images left to right with probability 1/2.

    Raises:
        InputError: for a negative `pad`, or a `flip` that is neither True nor False.
    """

    pad: int = 0
    flip: bool = False

    def __post_init__(self):
        checks.count("augmentation.pad", self.pad, 0)
        checks.flag("augmentation.flip", self.flip)


_NONE = Augmentation()
_CROP = Augmentation(pad=4)
_CROP_AND_FLIP = Augmentation(pad=4, flip=True)
_CUSTOM = {
    "cifar10": _CROP_AND_FLIP,
    "cifar100": _CROP_AND_FLIP,
    "stl10": _CROP_AND_FLIP,
    "svhn_cropped": _CROP,  # a mirrored digit is another digit or none
}


def augmentation_for(dataset_name: str) -> Augmentation:
    """The customary augmentation of a data set: crop of 4 and flip for CIFAR and STL-10, crop for SVHN, else none.

    Args:
        dataset_name: may include a configuration or a version ("cifar10:3.0.2").

    Raises:
        InputError: for a name that is no string.

    References:
        Zhang et al. (2022), set-up, for MNIST, CIFAR-10 and STL-10.
    """
    checks.string("dataset_name", dataset_name, usual="cifar10")
    return _CUSTOM.get(dataset_name.split(":")[0].split("/")[0], _NONE)


def epoch_order(key: Key | int, epoch: Any, n: int) -> Int32[Array, " n"]:
    """The order in which an epoch visits `n` images: a permutation that depends on its arguments alone.

    Traceable in `key` and `epoch`.

    Args:
        key: random key or seed of the training; the same for every epoch.
        epoch: from 0.
        n: number of images, a Python integer.

    Raises:
        InputError: for numbers that are not whole or are negative, and what is no key.
    """
    if not isinstance(epoch, jax.Array | np.ndarray):
        checks.count("epoch", epoch, 0)
    checks.count("n", n, 0)
    return jax.random.permutation(jax.random.fold_in(checks.key(key), epoch), n)


def to_float(images: ArrayLike) -> Float32[Array, "..."]:
    """Scales uint8 pixels to float32 in [0, 1]: value / 255.

    Args:
        images: uint8, of any shape.

    Returns:
        float32 in [0, 1], of the same shape, on the device.

    Raises:
        InputError: when the pixels are not uint8, since floats would be scaled twice.

    Examples:
        >>> to_float(jnp.array([0, 255], jnp.uint8)).tolist()
        [0.0, 1.0]
    """
    pixels = checks.array(images, name="Pixels")
    if pixels.dtype != jnp.uint8:
        raise InputError(f"Pixels must be uint8 to be scaled to [0, 1]; got {pixels.dtype}.")
    return jnp.asarray(pixels).astype(jnp.float32) / 255


def augment(images: ArrayLike, key: Key | int, *, pad: int, flip: bool) -> Shaped[Array, "b h w c"]:
    """Crops each zero-padded image at random and mirrors it with probability 1/2.

    Pure and jittable; `pad` and `flip` are static. With `pad=0` and `flip=False` the images are unchanged.

    Args:
        images: [b h w c], uint8 or float; the dtype is kept.
        key: a random key or a seed, of the offsets (uniform over the (2 pad + 1)^2 crops) and of the mirroring, drawn
            for each image.
        pad: zero pixels on each side.
        flip: whether to mirror left and right.

    Raises:
        InputError: where the images have no batch of height, width and channels, `pad` is negative, or `flip` neither
            True nor False.
    """
    batch = jnp.asarray(checks.array(images, name="Images"))
    if batch.ndim != 4:
        raise InputError(f"Images must have shape [b, h, w, c]; got {batch.shape}.")
    checks.count("pad", pad, 0)
    checks.flag("flip", flip)
    crop_key, flip_key = jax.random.split(checks.key(key))
    if pad:
        batch = _random_crop(batch, crop_key, pad)
    if flip:
        mirrored = jax.random.bernoulli(flip_key, 0.5, (len(batch), 1, 1, 1))
        batch = jnp.where(mirrored, batch[:, :, ::-1], batch)
    return batch


def _random_crop(images: Any, key: Key, pad: int) -> Any:
    count, height, width, channels = images.shape
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    offsets = jax.random.randint(key, (count, 2), 0, 2 * pad + 1)

    def crop(image: Any, offset: Any) -> Any:
        return jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), (height, width, channels))

    return jax.vmap(crop)(padded, offsets)
