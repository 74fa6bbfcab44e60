"""Random crops and flips of whole batches on the device, inside jit, and the change from bytes to floats.

Nothing here reads data; the order of images is in `order`.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float32, Shaped

from mi_jax.errors import InputError
from mi_jax.typing import Key


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied: zero padding before a random crop (pixels a side), and random mirroring."""

    pad: int = 0
    flip: bool = False

    def __post_init__(self):
        if self.pad < 0:
            raise InputError(f"Augmentation pad is a number of pixels from 0; got {self.pad!r}.")


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

    Source: Zhang et al. (2022), set-up, for MNIST, CIFAR-10 and STL-10. The name may carry a configuration or a version
    ("cifar10:3.0.2").
    """
    return _CUSTOM.get(dataset_name.split(":")[0].split("/")[0], _NONE)


def to_float(images: ArrayLike) -> Float32[Array, "..."]:
    """uint8 pixels as float32 in [0, 1]: value / 255.

    Raises:
        InputError: where the pixels are not uint8 (floats would be divided a second time).
    """
    images = jnp.asarray(images)
    if images.dtype != jnp.uint8:
        raise InputError(f"to_float expects uint8 pixels; got {images.dtype}, which it would scale a second time.")
    return images.astype(jnp.float32) / 255


def augment(images: ArrayLike, key: Key, *, pad: int, flip: bool) -> Shaped[Array, "b h w c"]:
    """Each image cropped at random from its zero-padded self and mirrored with probability 1/2.

    Pure and jittable; `pad` and `flip` are static. With `pad=0` and `flip=False` the images come back untouched.

    Args:
        images: [b h w c], uint8 or float; the dtype is kept.
        key: of the offsets (uniform over the (2 pad + 1)^2 crops) and of the mirroring, drawn for each image.
        pad: zero pixels on each side.
        flip: whether to mirror left and right.

    Raises:
        InputError: where the images have no batch of height, width and channels, or `pad` is negative.
    """
    batch = jnp.asarray(images)
    if batch.ndim != 4:
        raise InputError(f"augment expects a batch [b h w c]; got the shape {batch.shape}.")
    if pad < 0:
        raise InputError(f"augment pad is a number of pixels from 0; got {pad!r}.")
    crop_key, flip_key = jax.random.split(key)
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
