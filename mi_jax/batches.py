"""Maps a function over many rows in batches of few shapes, so that it is compiled rarely."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax import parallel

BATCH_SIZE = 250
"""Images per call in evaluation, attack and measurement: one shape, so that all of these share compiled programs."""
DEVICE_BYTES = 4 * 2**30
"""Larger results are gathered on the host: the activations of wide layers would fill the device's memory."""


def map_batches(
    function: Callable[..., Any], *arrays: Any, batch_size: int | None = None, mesh: parallel.Mesh | None = None
) -> Any:
    """`function` over slices of the arrays' first axis, its results joined along theirs.

    The last slice is padded with its own last row and the surplus cut off: all slices have one length.

    Args:
        function: takes one slice of each array, returns a pytree of arrays with the slice's length first; each row of
            its results must depend on that row alone.
        arrays: arrays of one length n, at least 1.
        batch_size: rows a slice; None for `BATCH_SIZE`, and on a mesh for as many on each device as there are rows for.
        mesh: devices that share each slice; None for one device. What else `function` reads must be on them, or on no
            device in particular.

    Returns:
        The pytree with n rows in each leaf: on the device, or NumPy arrays where they are `DEVICE_BYTES` or more on
        each device.

    Examples:
        >>> [int(v) for v in map_batches(lambda x: 2 * x, jnp.arange(5), batch_size=2)]
        [0, 2, 4, 6, 8]
    """
    n, devices = len(arrays[0]), mesh.size if mesh else 1
    if batch_size is None:
        batch_size = min(BATCH_SIZE * devices, BATCH_SIZE << (-(-n // BATCH_SIZE) - 1).bit_length())
    padded = -(-batch_size // devices) * devices

    def part(start: int) -> Any:
        rows = np.minimum(np.arange(start, start + padded), n - 1)
        return function(*(parallel.sharded(mesh, array[rows]) if mesh else array[rows] for array in arrays))

    starts, first = range(0, n, batch_size), part(0)
    if n / batch_size * sum(leaf.nbytes for leaf in jax.tree.leaves(first)) < DEVICE_BYTES * devices:
        return _joined([first, *map(part, starts[1:])], batch_size, n, mesh)
    gathered = jax.tree.map(lambda leaf: np.empty((n, *leaf.shape[1:]), leaf.dtype), first)
    for start in starts:
        made = part(start) if start else first
        jax.tree.map(lambda whole, leaf: _fill(whole[start : start + batch_size], leaf), gathered, made)  # noqa: B023
    return gathered


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _joined(parts: list[Any], batch_size: int, n: int, mesh: parallel.Mesh | None) -> Any:
    """The first n rows of the parts together, leaf by leaf, compiled; spread over the mesh if there is one."""
    whole = jax.tree.map(lambda *leaves: jnp.concatenate([leaf[:batch_size] for leaf in leaves])[:n], *parts)
    return parallel.spread(mesh, whole)


def _fill(rows: np.ndarray, part: jax.Array) -> None:
    rows[:] = parallel.on_host(part)[: len(rows)]
