"""How many rows an attack works on at once inside a compiled call. Knows no attack."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mi_jax.parallel import backend

ROWS_ON_CPU = 128
"""More rows leave a CPU's caches between two steps: a small network then takes a fifth more time for an image."""


def chunked_map(attack: Callable[..., Any], *rows: jax.Array, most: int | None = None) -> Any:
    """`attack(*rows)`, on a CPU made of even slices of at most `ROWS_ON_CPU` rows, one after the other. Traceable.

    Args:
        attack: takes slices of the rows and returns a pytree of arrays with the slice's length first; each row's
            results must not depend on the others'.
        *rows: arrays of one length, at least 1.
        most: rows at once; by default all of them on an accelerator.

    Returns:
        The results of all rows, in their order.
    """
    count = len(rows[0])
    if most is None:
        most = ROWS_ON_CPU if backend() == "cpu" else count
    slices = -(-count // most)
    if slices == 1:
        return attack(*rows)
    size = -(-count // slices)
    # The last slice is filled up with the last row.
    places = jnp.minimum(jnp.arange(slices * size), count - 1)
    parts = [array[places].reshape(slices, size, *array.shape[1:]) for array in rows]
    results = jax.lax.map(lambda part: attack(*part), tuple(parts))
    return jax.tree.map(lambda leaf: leaf.reshape(slices * size, *leaf.shape[2:])[:count], results)
