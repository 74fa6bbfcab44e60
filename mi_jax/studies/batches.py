"""Running a function over many images in batches of one shape, so that it compiles once. Knows no network."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax.data import to_float
from mi_jax.errors import InputError


def map_batches(function: Callable[..., Any], *arrays: Any, batch_size: int) -> Any:
    """`function` over slices of the arrays' first axis, its results joined along theirs.

    The last slice is filled up with its own last row and the surplus cut off, so every call has the same shapes.

    Args:
        function: takes one slice of each array, returns a pytree of arrays with the slice's length first.
        arrays: of one length n.
        batch_size: rows a slice; all of them if there are fewer.

    Returns:
        The pytree with n rows in each leaf.
    """
    n = len(arrays[0])
    size = min(batch_size, n)
    parts = []
    for start in range(0, n, size):
        rows = np.minimum(np.arange(start, start + size), n - 1)
        parts.append(function(*(array[rows] for array in arrays)))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[:n], *parts)


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
