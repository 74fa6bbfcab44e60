"""Sums of Gaussian kernels over all pairs of rows, at several scales and within classes; each pair is visited once.

A row's kernel with itself, exactly 1, is left out of the sums and added by the caller in float64, so that small sums
over the other rows keep their digits. No distance is negative, so the streaming logsumexp needs no running maximum.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from mi_jax.information import _tiles
from mi_jax.information._products import Precision, dot, is_float64
from mi_jax.information._tiles import CentredRows, Layer, Layout, Rows, Terms


class PairSums(NamedTuple):
    """Kernel sums over pairs of different rows, in the row order of the input."""

    total: Any
    """[levels, n]: the sum over all j != i of exp(-d_ij / c); [levels, n, blocks] by the block of j where these are
    given."""
    own: Any
    """The part of it from rows of i's class."""
    max_norm: Any
    """Largest squared distance of a row from its class centre; 0 with precision "direct"."""
    max_cross: Any
    """Largest product of a row's distance from its centre and the distance between two centres."""


class KernelScales(NamedTuple):
    """Scales base / power whose kernels share exponentials: exp(-d / c)^2 is the kernel at c / 2."""

    bases: np.ndarray
    powers: tuple[int, ...]
    """The same for all bases, so that one compiled function serves all."""
    index: np.ndarray
    """Position of each requested scale in the flattened table [base, power]."""


def kernel_scales(scales: np.ndarray) -> KernelScales:
    """Cover the given scales with few exponentials.

    A bound at noise variance v needs c = 8 v and c = 2 v, two squarings apart. A grid of variances in factors of two
    needs one exponential for every five scales: each squaring doubles the relative error of a kernel value, and four
    in a row keep it near 1e-6 in float32.
    """
    wanted = np.unique(scales)[::-1]
    octaves = np.log2(wanted[0] / wanted)
    if len(wanted) > 4 and np.abs(octaves - np.round(octaves)).max() < 1e-9 and octaves[-1] < 1.5 * len(wanted):
        powers = (1, 2, 4, 8, 16)
        bases = wanted[0] / 32.0 ** np.arange(int(np.round(octaves[-1])) // 5 + 1)
    else:
        powers, chosen = (1, 4), []
        for c in wanted:
            if not any(np.isclose(c, b / 4, rtol=1e-12, atol=0) for b in chosen):
                chosen.append(c)
        bases = np.array(chosen)
    table = (bases[:, None] / np.array(powers)).ravel()
    index = np.argmin(np.abs(np.log(table[None, :] / scales[:, None])), axis=1)
    return KernelScales(bases, powers, index)


Members = tuple[jax.Array, jax.Array] | None
"""Which block each row of a tile pair's two tiles is of, one-hot [tile, blocks]."""


def _kernel_sums(d: jax.Array, inverse: jax.Array, powers: tuple[int, ...], members: Members) -> jax.Array:
    """Return row and column sums [bases, powers, 2, tile] of exp(-d * inverse)^power, [..., blocks] with members."""

    def both(k: jax.Array) -> jax.Array:
        if members is None:
            return jnp.stack([k.sum(axis=1), k.sum(axis=0)])
        first, second = members
        return jnp.stack([dot(k, second.T, "float32"), dot(k.T, first.T, "float32")])

    def one(scale: jax.Array) -> jax.Array:
        k, reached, sums = jnp.exp(-d * scale), 1, []
        for power in powers:
            while reached < power:
                k, reached = k * k, 2 * reached
            sums.append(both(k))
        return jnp.stack(sums)

    return lax.map(one, inverse)


@functools.lru_cache
def _sum_step(tile: int, powers: tuple[int, ...], mesh: Mesh | None) -> Callable[..., jax.Array]:
    """Return the compiled step (sums, products, norms, w, labels, pairs, inverse, member) -> their kernel sums.

    sums [tiles, total | own, bases, powers, tile], or with blocks [..., tile, blocks]. Rows are sorted, so only tiles
    whose label ranges touch pay for the own-class part.
    """

    def add(sums: jax.Array, products: jax.Array, norms: jax.Array, w: jax.Array, labels: jax.Array,
            pairs: jax.Array, inverse: jax.Array, member: jax.Array | None) -> jax.Array:  # fmt: skip
        by_tile = labels.reshape(-1, tile)
        rows = (slice(None),) * 3

        def one(p: jax.Array, sums: jax.Array) -> jax.Array:
            i, j = jnp.maximum(pairs[p], 0)
            d = _tiles.distances(i, j, products[p], norms, w, labels)
            members = None if member is None else (member[i], member[j])
            total = own = _kernel_sums(d, inverse, powers, members)
            if w.shape[1] > 1:
                same = by_tile[i][:, None] == by_tile[j][None, :]
                own = lax.cond(
                    by_tile[i, -1] >= by_tile[j, 0],
                    lambda: _kernel_sums(jnp.where(same, d, jnp.inf), inverse, powers, members),
                    lambda: jnp.zeros_like(total),
                )
            both = jnp.stack([total, own]) * (pairs[p, 0] >= 0).astype(total.dtype)
            sums = sums.at[i].add(both[*rows, 0])
            return sums.at[j].add(jnp.where(i == j, 0, both[*rows, 1]))

        return lax.fori_loop(0, pairs.shape[0], one, sums)

    return _tiles.spread(add, mesh, (False, True, False, False, False, True, False, False), total=True)


@jax.jit
def _unsort(sums: jax.Array, terms: Terms, layout: Layout, place: Rows) -> PairSums:
    tiles, _, bases, powers, tile = sums.shape[:5]
    flat = jnp.moveaxis(sums, 0, 3).reshape(2, bases * powers, tiles * tile, *sums.shape[5:])
    total, own = jnp.take(flat, place, axis=2)
    return PairSums(total, own, *_tiles.largest(terms, layout))


def pair_sums(
    t: Layer,
    y: np.ndarray,
    inverse: Rows,
    *,
    num_classes: int,
    powers: tuple[int, ...] = (1, 4),
    block: np.ndarray | None = None,
    precision: Precision = "float32",
    tile: int | None = None,
    chunk: int | None = None,
    mesh: Mesh | None = None,
) -> PairSums:
    """Sum exp(-d_ij * inverse)^power over j != i for every row i, scale and power.

    Pure in t and inverse, which may be traced. Memory is O(n d) for t, O(n (classes + levels)) for the sums, a bounded
    block of tiles, and, where not all tile products fit in it, at most `KEPT_BYTES` of centred rows. With precision
    "float64" or "direct" call it under `jax.enable_x64`.

    Args:
        t: float [n, d]; lazy activations are computed for the tiles of a group of pairs at a time.
        y: int [n] in 0..num_classes-1 on the host; zeros and num_classes=1 when there are no labels.
        inverse: [scales], 1 / c.
        num_classes: number of classes.
        powers: of the kernel at each scale, rising.
        block: int [n], the block of each row, on the host, for sums by block; None for sums over all rows.
        precision: of the arithmetic.
        tile: rows of a tile; by default `tile_height(n)`.
        chunk: features of a chunk; by default `chunk_width()`.
        mesh: devices among which the tile pairs are shared.

    Returns:
        PairSums with fields [scales * powers, n] or [scales * powers, n, blocks].
    """
    n = t.shape[0]
    dtype = jnp.float64 if is_float64(precision) else jnp.float32
    tile, width = tile or _tiles.tile_height(n), chunk or _tiles.chunk_width()
    tiles = -(-n // tile)
    layout = _tiles.sort_rows(np.asarray(y), num_classes)
    inverse = jnp.asarray(inverse, dtype)
    member = None if block is None else _members(block[np.asarray(layout.order)], tile, tiles, dtype)
    shape = (2, len(inverse), len(powers), tile, *(() if member is None else member.shape[2:]))
    sums, padded = jnp.zeros((tiles, *shape), dtype), None
    gram, add = _tiles.gram_step(tile, precision, mesh), _sum_step(tile, powers, mesh)
    itemsize = np.dtype(dtype).itemsize
    groups = _tiles.tile_groups(tiles, tile, itemsize, 1, mesh, row_bytes=_tiles.row_bytes(t))
    centred = CentredRows(t, layout, groups, tile=tile, width=width, dtype=dtype, precision=precision)
    for group in groups:
        products = jnp.zeros((len(group.pairs), tile, tile), dtype)
        for a, _ in centred.chunks_of(group):
            products = gram(products, a, a, group.pairs)
        assert centred.terms is not None
        padded = padded or _tiles.cross_terms(centred.terms, layout, rows=tile * tiles)
        needed = padded if len(groups) == 1 else _tiles.taken(padded, group.rows(tile))
        members = None if member is None else member[group.tiles]
        added = add(jnp.zeros((len(group.tiles), *shape), dtype), products, *needed, group.pairs, inverse, members)
        sums = _tiles.added_tiles(sums, added, group.tiles)
    assert centred.terms is not None
    return _unsort(sums, centred.terms, layout, np.argsort(np.asarray(layout.order)))


def _members(block: np.ndarray, tile: int, tiles: int, dtype: Any) -> jax.Array:
    """Return the blocks of sorted rows, one-hot [tiles, tile, blocks]; 0 for padding."""
    padded = np.pad(block, (0, tile * tiles - len(block)), constant_values=-1)
    return jax.nn.one_hot(padded.reshape(tiles, tile), int(block.max()) + 1, dtype=dtype)
