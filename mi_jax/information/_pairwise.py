"""Sums of Gaussian kernels over all pairs of rows: every noise level and the own-class part, each pair visited once.

This is the only place where distances are computed. It knows nothing of entropies or of what the sums are for.

Distances come from centred Gram products. Row i of class k is stored as a_i = x_i - m_k; its distance to row j of class
l is |a_i|^2 + |a_j|^2 - 2 a_i.a_j + W[i, l] + W[j, k] with W[i, l] = 2 a_i.(m_k - m_l) + |m_k - m_l|^2 / 2, which is
exactly 0 for k = l. A far-off mean, of the layer or of a class, so never enters a difference of large numbers. The
diagonal is set to exactly 0, hence the largest exponent of a row is known to be 0 and the streaming logsumexp needs no
running maximum. All parts are sums over features, so features are taken in chunks of one fixed width: a wide layer need
not be resident, and layers of different width share one compiled function.
"""

import functools
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Precision = Literal["float64", "float32", "tf32", "bfloat16"]
Rows = np.ndarray | jax.Array
_DOT = {
    "float64": lax.Precision.HIGHEST,
    "float32": lax.Precision.HIGHEST,
    "tf32": lax.Precision.HIGH,
    "bfloat16": lax.Precision.DEFAULT,
}
_CHUNKS = (128, 2048)
"""Widths of a feature chunk, for narrow and wide layers: two compiled functions for a whole network."""

_GRAM_BYTES = 2**28
"""Memory for the products of tile pairs that are under way."""


class PairSums(NamedTuple):
    """Kernel sums over pairs, diagonal included, in the row order of the input."""

    total: Any
    """[levels, n]: the sum over all j of exp(-d_ij / c)."""
    own: Any
    """[levels, n]: the part of it from rows of i's class."""
    max_norm: Any
    """Largest squared distance of a row from its class centre."""
    max_cross: Any
    """Largest product of a row's distance from its centre and the distance between two centres."""


class _Layout(NamedTuple):
    """Rows sorted by label, and where each class begins in that order."""

    order: jax.Array
    labels: jax.Array
    first: jax.Array
    counts: jax.Array


class _Terms(NamedTuple):
    """What distances need beside the Gram products; every field is a sum over features."""

    norms: jax.Array
    """[rows]: |a_i|^2."""
    cross: jax.Array
    """[rows, classes]: a_i . m_l."""
    centres: jax.Array
    """[classes, classes]: |m_k - m_l|^2."""


def tiling(n: int) -> int:
    """Return the tile height for n rows: large enough for the matrix product, small enough to profit from symmetry."""
    target = 2048 if jax.default_backend() != "cpu" else (256 if n <= 2048 else 512)
    count = -(-n // target)
    return -(-n // count // 8) * 8


def _dot(a: jax.Array, b: jax.Array, precision: Precision) -> jax.Array:
    wide = jnp.float64 if a.dtype == jnp.float64 else jnp.float32
    dims = (((a.ndim - 1,), (b.ndim - 1,)), ((), ()))
    return lax.dot_general(a, b, dims, precision=_DOT[precision], preferred_element_type=wide)


def _round(a: jax.Array, precision: Precision) -> jax.Array:
    """Round rows to what the matrix unit will read, so that norms and products are of the same numbers."""
    if precision == "tf32":
        return lax.reduce_precision(a, exponent_bits=8, mantissa_bits=10)
    return a.astype(jnp.bfloat16) if precision == "bfloat16" else a


@functools.partial(jax.jit, static_argnames="num_classes")
def _sort(y: jax.Array, *, num_classes: int) -> _Layout:
    order = jnp.argsort(y, stable=True)
    labels = y[order]
    classes = jnp.arange(num_classes, dtype=labels.dtype)
    first = jnp.searchsorted(labels, classes)
    counts = jnp.searchsorted(labels, classes, side="right") - first
    return _Layout(order, labels, jnp.minimum(first, len(y) - 1), counts)


@functools.partial(jax.jit, static_argnames=("rows", "precision"))
def _centre(x: jax.Array, layout: _Layout, *, rows: int, precision: Precision) -> tuple[jax.Array, _Terms]:
    """Sort and centre one feature chunk; pad it to `rows`.

    The first row of a class is subtracted before its mean is taken: a constant class then gives exact zeros.
    """
    onehot = jax.nn.one_hot(layout.labels, layout.first.shape[0], dtype=x.dtype)
    x = x[layout.order]
    firsts = x[layout.first]
    a = x - firsts[layout.labels]
    means = lax.dot_general(onehot, a, (((0,), (0,)), ((), ())), precision=lax.Precision.HIGHEST)
    means = means / jnp.maximum(layout.counts, 1).astype(x.dtype)[:, None]
    a = _round(a - means[layout.labels], precision)
    centres = (firsts - firsts[0]) + means
    wide = a.astype(x.dtype)
    cross = lax.dot_general(wide, centres, (((1,), (1,)), ((), ())), precision=lax.Precision.HIGHEST)
    apart = lax.map(lambda m: jnp.sum((m - centres) ** 2, axis=1), centres)
    pad = ((0, rows - x.shape[0]), (0, 0))
    return jnp.pad(a, pad), _Terms(jnp.sum(wide * wide, axis=1), cross, apart)


@functools.partial(jax.jit, static_argnames=("tile", "precision"), donate_argnums=0)
def _add_gram(gram: jax.Array, a: jax.Array, pairs: jax.Array, *, tile: int, precision: Precision) -> jax.Array:
    """Add one chunk's products of the tile pairs [p, 2] to gram [p, tile, tile]."""

    def add(p: jax.Array, gram: jax.Array) -> jax.Array:
        left = lax.dynamic_slice_in_dim(a, pairs[p, 0] * tile, tile)
        right = lax.dynamic_slice_in_dim(a, pairs[p, 1] * tile, tile)
        return gram.at[p].add(_dot(left, right, precision))

    return lax.fori_loop(0, pairs.shape[0], add, gram)


@functools.partial(jax.jit, static_argnames="rows")
def _cross_terms(terms: _Terms, layout: _Layout, *, rows: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return norms [rows], W [rows, classes] and labels [rows], padded with infinity, 0 and a class of its own."""
    n, classes = terms.cross.shape
    apart = terms.centres[layout.labels]
    along = jnp.take_along_axis(terms.cross, layout.labels[:, None], axis=1) - terms.cross
    other = layout.labels[:, None] != jnp.arange(classes)
    w = jnp.where(other, 2 * along + 0.5 * apart, 0)
    norms = jnp.pad(terms.norms, (0, rows - n), constant_values=jnp.inf)
    labels = jnp.pad(layout.labels, (0, rows - n), constant_values=classes)
    return norms, jnp.pad(w, ((0, rows - n), (0, 0))), labels


def _kernel_sums(d: jax.Array, inverse: jax.Array, powers: tuple[int, ...]) -> jax.Array:
    """Return row and column sums [bases, powers, 2, tile] of exp(-d * inverse)^power."""

    def one(scale: jax.Array) -> jax.Array:
        k, reached, sums = jnp.exp(-d * scale), 1, []
        for power in powers:
            while reached < power:
                k, reached = k * k, 2 * reached
            sums.append(jnp.stack([k.sum(axis=1), k.sum(axis=0)]))
        return jnp.stack(sums)

    return lax.map(one, inverse)


@functools.partial(jax.jit, static_argnames=("tile", "powers"), donate_argnums=0)
def _add_sums(
    sums: jax.Array,
    gram: jax.Array,
    norms: jax.Array,
    w: jax.Array,
    labels: jax.Array,
    pairs: jax.Array,
    inverse: jax.Array,
    *,
    tile: int,
    powers: tuple[int, ...],
) -> jax.Array:
    """Add the kernel sums of the tile pairs to sums [tiles, total | own, bases, powers, tile].

    Rows are sorted, so only tiles whose label ranges touch pay for the own-class part.
    """
    classes = w.shape[1]
    onehot = jax.nn.one_hot(labels, classes, dtype=w.dtype)
    norms, labels = norms.reshape(-1, tile), labels.reshape(-1, tile)
    left = jnp.concatenate([w, onehot], axis=1).reshape(-1, tile, 2 * classes)
    right = jnp.concatenate([onehot, w], axis=1).reshape(-1, tile, 2 * classes)
    diagonal = jnp.eye(tile, dtype=bool)

    def add(p: jax.Array, sums: jax.Array) -> jax.Array:
        i, j = pairs[p, 0], pairs[p, 1]
        d = norms[i][:, None] + norms[j][None, :] - 2 * gram[p]
        if classes > 1:
            d = d + _dot(left[i], right[j], "float32")
        d = jnp.where(diagonal & (i == j), 0, jnp.maximum(d, 0))
        total = own = _kernel_sums(d, inverse, powers)
        if classes > 1:
            same = labels[i][:, None] == labels[j][None, :]
            own = lax.cond(
                labels[i, -1] >= labels[j, 0],
                lambda: _kernel_sums(jnp.where(same, d, jnp.inf), inverse, powers),
                lambda: jnp.zeros_like(total),
            )
        both = jnp.stack([total, own])
        sums = sums.at[i].add(both[..., 0, :])
        return sums.at[j].add(jnp.where(i == j, 0, both[..., 1, :]))

    return lax.fori_loop(0, pairs.shape[0], add, sums)


@jax.jit
def _unsort(sums: jax.Array, terms: _Terms, layout: _Layout) -> PairSums:
    n = len(layout.order)
    flat = jnp.moveaxis(sums, 0, 3).reshape(2, -1, sums.shape[0] * sums.shape[-1])[..., :n]
    total, own = jnp.zeros_like(flat).at[..., layout.order].set(flat)
    apart = jnp.where(layout.counts > 0, terms.centres, 0).max(axis=1)
    return PairSums(total, own, terms.norms.max(), jnp.sqrt(terms.norms * apart[layout.labels]).max())


@functools.partial(jax.jit, static_argnames="width")
def _slice(t: jax.Array, start: jax.Array, *, width: int) -> jax.Array:
    return lax.dynamic_slice_in_dim(t, start, width, axis=1)


def _chunks(t: Rows, width: int, dtype: Any) -> Iterator[jax.Array]:
    """Yield [n, width] pieces of t on the device, the last one filled up with zeros; numpy arrays stay on the host."""
    full = t.shape[1] // width * width
    for start in range(0, full, width):
        piece = t[:, start : start + width] if isinstance(t, np.ndarray) else _slice(t, start, width=width)
        yield jnp.asarray(piece, dtype)
    if full < t.shape[1]:
        xp = np if isinstance(t, np.ndarray) else jnp
        yield jnp.asarray(xp.pad(t[:, full:], ((0, 0), (0, width - t.shape[1] + full))), dtype)


def pair_sums(
    t: Rows,
    y: Rows,
    inverse: Rows,
    *,
    num_classes: int,
    powers: tuple[int, ...] = (1, 4),
    precision: Precision = "float32",
    tile: int | None = None,
    chunk: int | None = None,
) -> PairSums:
    """Sum exp(-d_ij * inverse)^power over j, for every row i, scale and power: fields [len(inverse) * len(powers), n].

    t float [n, d]; y int [n] in 0..num_classes-1 (zeros and num_classes=1 when there are no labels). Pure: it may be
    traced and vmapped. Memory is O(n d) for t, O(n (classes + levels)) for the sums and a bounded block of tiles.
    With precision "float64" call it under `jax.enable_x64`.
    """
    n, d = t.shape
    dtype = jnp.float64 if precision == "float64" else jnp.float32
    tile = tile or tiling(n)
    tiles = -(-n // tile)
    rows = tile * tiles
    width = chunk or (_CHUNKS[0] if d <= _CHUNKS[0] else _CHUNKS[1])
    layout = _sort(jnp.asarray(y, jnp.int32), num_classes=num_classes)
    inverse = jnp.asarray(inverse, dtype)
    pairs = np.stack(np.triu_indices(tiles), axis=1).astype(np.int32)
    group = max(1, _GRAM_BYTES // (tile * tile * np.dtype(dtype).itemsize))
    sums = jnp.zeros((tiles, 2, len(inverse), len(powers), tile), dtype)
    for begin in range(0, len(pairs), group):
        some = jnp.asarray(pairs[begin : begin + group])
        gram, terms = jnp.zeros((len(some), tile, tile), dtype), None
        for x in _chunks(t, width, dtype):
            a, part = _centre(x, layout, rows=rows, precision=precision)
            gram = _add_gram(gram, a, some, tile=tile, precision=precision)
            terms = part if terms is None else jax.tree.map(jnp.add, terms, part)
        assert terms is not None
        norms, w, labels = _cross_terms(terms, layout, rows=rows)
        sums = _add_sums(sums, gram, norms, w, labels, some, inverse, tile=tile, powers=powers)
    return _unsort(sums, terms, layout)
