"""Maps a function over many rows in batches of one shape, so that it compiles once."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

BATCH_SIZE = 250
"""Images per call in evaluation, attack and measurement: one shape, so that all of these share compiled programs."""
DEVICE_BYTES = 4 * 2**30
"""Larger results are gathered on the host: the activations of wide layers would fill the device's memory."""


def map_batches(function: Callable[..., Any], *arrays: Any, batch_size: int = BATCH_SIZE) -> Any:
    """`function` over slices of the arrays' first axis, its results joined along theirs.

    The last slice is padded with its own last row and the surplus cut off: every call has `batch_size` rows.

    Args:
        function: takes one slice of each array, returns a pytree of arrays with the slice's length first.
        arrays: of one length n, at least 1.
        batch_size: rows a slice.

    Returns:
        The pytree with n rows in each leaf: on the device, or NumPy arrays where they are `DEVICE_BYTES` or more.

    Examples:
        >>> [int(v) for v in map_batches(lambda x: 2 * x, jnp.arange(5), batch_size=2)]
        [0, 2, 4, 6, 8]
    """
    n = len(arrays[0])

    def part(start: int) -> Any:
        rows = np.minimum(np.arange(start, start + batch_size), n - 1)
        return function(*(array[rows] for array in arrays))

    starts, first = range(0, n, batch_size), part(0)
    if n / batch_size * sum(leaf.nbytes for leaf in jax.tree.leaves(first)) < DEVICE_BYTES:
        return _joined([first, *map(part, starts[1:])], n)
    gathered = jax.tree.map(lambda leaf: np.empty((n, *leaf.shape[1:]), leaf.dtype), first)
    for start in starts:
        made = part(start) if start else first
        jax.tree.map(lambda whole, leaf, start=start: _fill(whole, leaf, start), gathered, made)
    return gathered


@functools.partial(jax.jit, static_argnums=1)
def _joined(parts: list[Any], n: int) -> Any:
    """The first n rows of the parts together, leaf by leaf, in one compiled program."""
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[:n], *parts)


def _fill(whole: np.ndarray, part: jax.Array, start: int) -> None:
    rows = whole[start : start + len(part)]
    rows[:] = np.asarray(part)[: len(rows)]
