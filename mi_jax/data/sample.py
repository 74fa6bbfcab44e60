"""The images on which everything is measured. Knows no network."""

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax.data import to_float
from mi_jax.errors import InputError


def fixed_sample(images: np.ndarray, labels: np.ndarray, count: int, *, seed: int = 0) -> tuple[jax.Array, jax.Array]:
    """`count` different images as float in [0, 1], and their labels: the same for every model, epoch and level.

    Args:
        images: uint8 `[n h w c]`.
        labels: int `[n]`.
        count: how many to draw, without replacement; all of them, in order, if there are no more.
        seed: of the draw.

    Raises:
        InputError: when fewer than two images are asked for.
    """
    if count < 2:
        raise InputError(f"A sample of {count} images measures nothing; ask for at least 2.")
    n = len(labels)
    rows = np.arange(n) if count >= n else np.sort(np.random.default_rng(seed).permutation(n)[:count])
    return to_float(jnp.asarray(images[rows])), jnp.asarray(labels[rows])
