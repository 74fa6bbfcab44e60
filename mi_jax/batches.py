"""Running a function over many rows in batches of one shape, so that it compiles once. Knows no network."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

BATCH_SIZE = 250
"""Images a call in evaluation, attack and measurement: one shape, so that all of these share compiled programs."""


def map_batches(function: Callable[..., Any], *arrays: Any, batch_size: int = BATCH_SIZE) -> Any:
    """`function` over slices of the arrays' first axis, its results joined along theirs.

    The last slice is filled up with its own last row and the surplus cut off: every call has `batch_size` rows.

    Args:
        function: takes one slice of each array, returns a pytree of arrays with the slice's length first.
        arrays: of one length n, at least 1.
        batch_size: rows a slice.

    Returns:
        The pytree with n rows in each leaf.

    Examples:
        >>> [int(v) for v in map_batches(lambda x: 2 * x, jnp.arange(5), batch_size=2)]
        [0, 2, 4, 6, 8]
    """
    n = len(arrays[0])
    parts = []
    for start in range(0, n, batch_size):
        rows = np.minimum(np.arange(start, start + batch_size), n - 1)
        parts.append(function(*(array[rows] for array in arrays)))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[:n], *parts)
