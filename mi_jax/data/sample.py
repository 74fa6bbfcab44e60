"""The fixed sample of test images on which every network is measured."""

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax.data import to_float
from mi_jax.errors import InputError
from mi_jax.seeding import sample_rows


def fixed_sample(images: np.ndarray, labels: np.ndarray, count: int, *, seed: int = 0) -> tuple[jax.Array, jax.Array]:
    """A sample of images as floats in [0, 1], and their labels: the same for every network, epoch and distortion.

    Args:
        images: uint8 `[n h w c]`.
        labels: int `[n]`.
        count: how many to draw, without replacement; all of them, in order, if there are no more.
        seed: for the draw.

    Raises:
        InputError: when fewer than two images are asked for.
    """
    if count < 2:
        raise InputError(f"The sample has {count} images; expected at least 2.")
    rows = sample_rows(len(labels), count, seed=seed)
    return to_float(jnp.asarray(images[rows])), jnp.asarray(labels[rows])
