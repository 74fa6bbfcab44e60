"""Kernel sums at noisy points: for every row i and noise z, sum_j exp(-(|x_i + z - x_j|^2 - |z|^2) / 2 s2) over j != i.

The exponent is -d_ij / 2 s2 - h_ij / s with h_ij = g.(x_i - x_j) and z = s g, so one product per draw serves every
noise level, and -g costs nothing more. It is at most (g.u)^2 / 2 for a unit vector u: the largest over all pairs stays
near log n^2, so float32 cannot overflow and no running maximum is needed. The term j = i, exactly 1, is left to the
caller, as in `_pairwise`. Sums are kept by blocks of j for the delete-block jackknife.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from mi_jax.information import _tiles
from mi_jax.information._products import Precision, dot, is_float64, rounded
from mi_jax.information._tiles import CentredRows, Centres, Rows


@functools.partial(jax.jit, static_argnames=("shape", "dtype"))
def _draw(key: jax.Array, source: Rows, *, shape: tuple[int, int], dtype: Any) -> jax.Array:
    """Return noise [rows, width] for a feature chunk.

    `source` holds the original index of each row, whose noise is the same whatever labels the rows are sorted by.
    """
    return jax.random.normal(key, shape, dtype)[source]


@functools.partial(jax.jit, static_argnames="precision")
def _project(
    g: jax.Array, a: jax.Array, centres: Centres, *, precision: Precision
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return noise g as a factor, g_i . a_i, and g_i . m_l [rows, classes].

    Noise is rounded as the rows are, the same in all products. With precision "direct" the products are of differences
    of rows, and both terms are 0.
    """
    if precision == "direct":
        return g, jnp.zeros(len(g), g.dtype), jnp.zeros((len(g), len(centres.means)), g.dtype)
    factor = rounded(g, precision)
    g = factor.astype(g.dtype)
    return factor, jnp.sum(g * a.astype(g.dtype), axis=1), dot(g, centres.positions, "float32")


@functools.lru_cache
def _sum_step(tile: int, blocks: int, mesh: Mesh | None) -> Callable[..., jax.Array]:
    """Return the compiled step that adds sums [tiles, levels, sign, total | own, tile, blocks]."""

    def add(sums: jax.Array, products: jax.Array, ahead: jax.Array, behind: jax.Array, terms: tuple[jax.Array, ...],
            noise: tuple[jax.Array, jax.Array], block: jax.Array, pairs: jax.Array,
            deviation: jax.Array) -> jax.Array:  # fmt: skip
        norms, w, labels = terms
        self_product, along = noise
        part = functools.partial(lax.dynamic_slice_in_dim, slice_size=tile)
        by_tile = labels.reshape(-1, tile)
        member = jax.nn.one_hot(block, blocks, dtype=norms.dtype)

        def one_side(i: jax.Array, j: jax.Array, d: jax.Array, cross: jax.Array) -> jax.Array:
            """Sums for the rows of tile i over the rows of tile j: [levels, sign, total | own, tile, blocks]."""
            h = part(self_product, i * tile)[:, None] - cross
            if w.shape[1] > 1:
                hot_i, hot_j = (jax.nn.one_hot(by_tile[k], w.shape[1], dtype=d.dtype) for k in (i, j))
                v = part(along, i * tile)
                v = jnp.sum(v * hot_i, axis=1, keepdims=True) - v
                h = h + jnp.where(by_tile[i][:, None] == by_tile[j][None, :], 0, dot(v, hot_j, "float32"))
            members = part(member, j * tile)

            def level(s: jax.Array, d: jax.Array) -> jax.Array:
                near = -d / (2 * s * s)
                return jnp.stack([dot(jnp.exp(near + sign * h / s), members.T, "float32") for sign in (1, -1)])

            total = own = lax.map(lambda s: level(s, d), deviation)
            if w.shape[1] > 1:
                same = by_tile[i][:, None] == by_tile[j][None, :]
                own = lax.cond(
                    (by_tile[i, -1] >= by_tile[j, 0]) & (by_tile[j, -1] >= by_tile[i, 0]),
                    lambda: lax.map(lambda s: level(s, jnp.where(same, d, jnp.inf)), deviation),
                    lambda: jnp.zeros_like(total),
                )
            return jnp.stack([total, own], axis=2)

        def one(p: jax.Array, sums: jax.Array) -> jax.Array:
            i, j = jnp.maximum(pairs[p], 0)
            d = _tiles.distances(i, j, products[p], norms, w, labels)
            real = pairs[p, 0] >= 0
            sums = sums.at[i].add(jnp.where(real, one_side(i, j, d, ahead[p]), 0))
            return sums.at[j].add(jnp.where(real & (i != j), one_side(j, i, d.T, behind[p]), 0))

        return lax.fori_loop(0, pairs.shape[0], one, sums)

    return _tiles.spread(add, mesh, (False, True, True, True, False, False, False, True, False), total=True)


def mixture_sums(
    t: Rows,
    y: np.ndarray,
    block: np.ndarray,
    deviation: Rows,
    key: jax.Array,
    *,
    num_classes: int,
    precision: Precision = "float32",
    tile: int | None = None,
    mesh: Mesh | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Sum the kernels at one antithetic pair of noises per row.

    Args:
        t: float [n, d].
        y: int [n] in 0..num_classes-1, on the host.
        block: int [n], the jackknife block of each row, on the host.
        deviation: [levels], standard deviation of the noise.
        key: JAX random key of the noise.
        num_classes: number of classes.
        precision: of the arithmetic; "float64" and "direct" need `jax.enable_x64`.
        tile: rows of a tile; by default `tile_height(n)`.
        mesh: devices among which the tile pairs are shared.

    Returns:
        Sums [levels, sign, total | own, n, blocks], what `_rounding.KernelSums` takes as `largest`, and the largest
        distance between two class centres.
    """
    n = t.shape[0]
    dtype = jnp.float64 if is_float64(precision) else jnp.float32
    tile, width = tile or _tiles.tile_height(n), _tiles.chunk_width()
    tiles = -(-n // tile)
    rows = tile * tiles
    layout, blocks = _tiles.sort_rows(np.asarray(y), num_classes), int(block.max()) + 1
    source = np.append(layout.order, np.arange(n, rows, dtype=np.int32))
    sorted_block = np.pad(block[layout.order], (0, rows - n))
    gram, add = _tiles.gram_step(tile, precision, mesh), _sum_step(tile, blocks, mesh)
    noisy_gram = _tiles.gram_step(tile, precision, mesh, squared=False) if precision == "direct" else gram
    deviation = jnp.asarray(deviation, dtype)
    shape = (len(deviation), 2, 2, tile, blocks)
    sums, padded = jnp.zeros((tiles, *shape), dtype), None
    groups = _tiles.tile_groups(tiles, tile, np.dtype(dtype).itemsize, 3, mesh)
    centred = CentredRows(t, layout, groups, tile=tile, width=width, dtype=dtype, precision=precision)
    keep = len(groups) > 1 and rows * t.shape[1] * np.dtype(dtype).itemsize <= _tiles.KEPT_BYTES
    kept: dict[int, jax.Array] = {}

    def noise_of(c: int, columns: int, places: np.ndarray) -> jax.Array:
        draw = functools.partial(_draw, jax.random.fold_in(key, c), shape=(rows, columns), dtype=dtype)
        if not keep:
            return draw(source[places])
        if c not in kept:
            kept[c] = draw(source)
        return _tiles.taken(kept[c], places)

    for group in groups:
        places, noise = group.rows(tile), None
        products, ahead, behind = (jnp.zeros((len(group.pairs), tile, tile), dtype) for _ in range(3))
        for c, (a, centres) in enumerate(centred.chunks_of(group)):
            g, *projected = _project(noise_of(c, a.shape[1], places), a, centres, precision=precision)
            products = gram(products, a, a, group.pairs)
            ahead, behind = noisy_gram(ahead, g, a, group.pairs), noisy_gram(behind, g, a, group.pairs[:, ::-1])
            noise = tuple(projected) if noise is None else _tiles.accumulated(noise, tuple(projected))
        assert centred.terms is not None
        padded = padded or _tiles.cross_terms(centred.terms, layout, rows=rows)
        needed = padded if len(groups) == 1 else _tiles.taken(padded, places)
        zeros = jnp.zeros((len(group.tiles), *shape), dtype)
        added = add(zeros, products, ahead, behind, needed, noise, sorted_block[places], group.pairs, deviation)
        sums = _tiles.added_tiles(sums, added, group.tiles)
    assert centred.terms is not None
    sums = jnp.moveaxis(sums, 0, 3).reshape(*sums.shape[1:4], rows, blocks)
    apart = jnp.sqrt(centred.terms.centres.max())
    return sums[..., np.argsort(layout.order), :], *_tiles.largest(centred.terms, layout), apart
