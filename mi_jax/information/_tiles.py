"""Squared distances between rows, tile by tile: rows sorted by label, features in chunks, products by class centres.

`_pairwise` and `_mixture` turn the distances into kernel sums.

Row i of class k is stored as a_i = x_i - m_k; its distance to row j of class l is
|a_i|^2 + |a_j|^2 - 2 a_i.a_j + W[i, l] + W[j, k] with W[i, l] = 2 a_i.(m_k - m_l) + |m_k - m_l|^2 / 2, which is exactly
0 for k = l. A large mean, of the layer or of a class, thus never enters a difference of large numbers. All parts are
sums over features, taken in chunks of one fixed width: a wide layer need not be resident, and layers of different width
share one compiled function.

Rounding then costs a distance about eps |a|^2, which matters where the noise variance is smaller. Precision "direct"
sums squared differences of the uncentred rows in float64 instead: slower, but its rounding error is relative to the
distance itself.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from mi_jax.information._products import Precision, dot, rounded
from mi_jax.information.lazy import LazyActivations
from mi_jax.parallel import backend

Rows = np.ndarray | jax.Array
Layer = Rows | LazyActivations


BLOCK_BYTES = 2**28
"""Memory on one device for tile products; four times as much on an accelerator."""
KEPT_BYTES = 2**31
"""Most memory for centred rows, and for noise, that are kept until all groups of tile pairs have used them."""
_NARROWEST = 128
"""Smallest width of a feature chunk."""


class Layout(NamedTuple):
    """Rows sorted by label, and where each class begins in that order."""

    order: Rows
    labels: Rows
    first: Rows
    counts: Rows


class Terms(NamedTuple):
    """The terms of the distances other than the tile products; every field is a sum over features."""

    norms: jax.Array
    """[n]: |a_i|^2."""
    cross: jax.Array
    """[n, classes]: a_i . m_l."""
    centres: jax.Array
    """[classes, classes]: |m_k - m_l|^2."""


def sort_rows(y: np.ndarray, num_classes: int) -> Layout:
    """Sort rows by label, on the host: labels are never traced."""
    order = np.argsort(y, kind="stable")
    labels = y[order]
    first, last = (np.searchsorted(labels, np.arange(num_classes), side=side) for side in ("left", "right"))
    parts = (order, labels, np.minimum(first, len(y) - 1), last - first)
    return Layout(*(part.astype(np.int32) for part in parts))


def tile_height(n: int) -> int:
    """Return the tile height for n rows: large enough for the matrix product, small enough to profit from symmetry."""
    target = 2048 if backend() != "cpu" else (256 if n <= 2048 else 512)
    count = -(-n // target)
    return -(-n // count // 8) * 8


def chunk_width() -> int:
    """Return the largest width of a feature chunk."""
    return 1024 if backend() == "cpu" else 8192


@jax.jit
def largest(terms: Terms, layout: Layout) -> tuple[jax.Array, jax.Array]:
    """Return the largest |a_i|^2, and the largest product of |a_i| and the distance of i's class centre to another."""
    norms, centres = (lax.stop_gradient(term) for term in (terms.norms, terms.centres))
    apart = jnp.where(layout.counts > 0, centres, 0).max(axis=1)
    return norms.max(), jnp.sqrt(norms * apart[layout.labels]).max()


class Group(NamedTuple):
    """Pairs of tiles whose products fit in memory, and the tiles that they need."""

    tiles: np.ndarray
    """int32, rising, the same number in each group."""
    pairs: np.ndarray
    """int32 [p, 2], positions i <= j in `tiles`; (-1, -1) for padding to a multiple of the devices."""

    def rows(self, tile: int) -> np.ndarray:
        """Return the places of its rows, and of padding, among all sorted rows."""
        return (self.tiles[:, None] * tile + np.arange(tile, dtype=np.int32)).ravel()


def row_bytes(t: Layer) -> int:
    """Return the memory for a row of t beyond t itself."""
    return t.shape[1] * t.dtype.itemsize if isinstance(t, LazyActivations) else 0


def tile_groups(
    tiles: int, tile: int, itemsize: int, products: int, mesh: Mesh | None, *, row_bytes: int = 0
) -> list[Group]:
    """Return all pairs i <= j of tiles in groups of one size, the last one smaller.

    `products` tile products are held for each pair, and rows of `row_bytes` for each tile. Pairs are ordered by squares
    of that size in a winding order, those of the diagonal and the margin last, so that a group needs few tiles.
    """
    devices = mesh.size if mesh is not None else 1
    factor = 1 if backend() == "cpu" else 4
    size = devices * max(1, factor * BLOCK_BYTES // (tile * tile * itemsize * products))
    if row_bytes and tiles * tile * row_bytes > factor * KEPT_BYTES:
        size = min(size, max(1, factor * KEPT_BYTES // (3 * tile * row_bytes)) ** 2)  # three sides of a square of pairs
    pairs = np.stack(np.triu_indices(tiles), axis=1).astype(np.int32)
    if len(pairs) > size:
        side = math.isqrt(size)
        size, (i, j) = side * side, (pairs // side).T
        whole = (i != j) & (j < tiles // side)
        pairs = pairs[np.lexsort((np.where(i % 2, -j, j), i, ~whole))]
    parts = [pairs[begin : begin + size] for begin in range(0, len(pairs), size)]
    most = max(len(np.unique(part)) for part in parts)
    groups = []
    for part in parts:
        needed = np.unique(part)
        others = np.setdiff1d(np.arange(tiles, dtype=np.int32), needed)  # one number of tiles: one compiled function
        own = np.union1d(needed, others[: most - len(needed)])
        places = np.searchsorted(own, part).astype(np.int32)
        groups.append(Group(own, np.pad(places, ((0, -len(part) % devices), (0, 0)), constant_values=-1)))
    return groups


def spread(
    step: Callable[..., Any], mesh: Mesh | None, sharded: tuple[bool, ...], *, total: bool
) -> Callable[..., Any]:
    """Compile a step over tile pairs; with a mesh each device gets its part of the arguments marked as sharded.

    The result is added over devices when `total`, and stays sharded otherwise. The first argument is donated.
    """
    if mesh is None:
        return jax.jit(step, donate_argnums=0)
    names = mesh.axis_names
    split, whole = PartitionSpec(names), PartitionSpec()
    body = (lambda *args: lax.psum(step(*args), names)) if total else step
    specs = tuple(split if s else whole for s in sharded)
    mapped = jax.shard_map(body, mesh=mesh, in_specs=specs, out_specs=whole if total else split, check_vma=False)
    return jax.jit(mapped)


class Centres(NamedTuple):
    """What is subtracted from the rows of each class in a feature chunk: first `firsts`, then `means`."""

    firsts: jax.Array
    """[classes, width]: the first row of each class."""
    means: jax.Array
    """[classes, width]: the means of rows less the first row."""
    positions: jax.Array
    """[classes, width]: the class centres, up to one vector that all share."""


@functools.partial(jax.jit, static_argnames=("rows", "precision"))
def centre(x: jax.Array, layout: Layout, *, rows: int, precision: Precision) -> tuple[jax.Array, Centres, Terms]:
    """Centre one feature chunk of sorted rows: rows [rows, width] padded with zeros, class centres, and the terms.

    The first row of a class is subtracted before its mean is taken: a constant class then gives exact zeros. With
    precision "direct" the rows stay as they are and all terms are 0.
    """
    n, classes = x.shape[0], layout.first.shape[0]
    if precision == "direct":
        zeros = jnp.zeros((classes, x.shape[1]), x.dtype)
        padded = jnp.pad(x, ((0, rows - n), (0, 0)))
        return padded, Centres(zeros, zeros, zeros), _zero_terms(n, classes, x.dtype)
    onehot = jax.nn.one_hot(layout.labels, classes, dtype=x.dtype)
    firsts = x[layout.first]
    a = x - firsts[layout.labels]
    means = lax.dot_general(onehot, a, (((0,), (0,)), ((), ())), precision=lax.Precision.HIGHEST)
    means = means / jnp.maximum(layout.counts, 1).astype(x.dtype)[:, None]
    a = rounded(a - means[layout.labels], precision)
    centres = Centres(firsts, means, (firsts - firsts[:1]) + means)
    return jnp.pad(a, ((0, rows - n), (0, 0))), centres, _terms(a.astype(x.dtype), centres)


def _terms(a: jax.Array, centres: Centres) -> Terms:
    """Return the terms of centred rows; from `positions`, far from the first class, near classes would lose digits."""

    def distances_of(centre: tuple[jax.Array, jax.Array]) -> jax.Array:
        first, mean = centre
        return jnp.sum(((first[None] - centres.firsts) + (mean[None] - centres.means)) ** 2, axis=1)

    apart = lax.map(distances_of, (centres.firsts, centres.means))
    return Terms(jnp.sum(a * a, axis=1), dot(a, centres.positions, "float32"), apart)


def _zero_terms(n: int, classes: int, dtype: Any) -> Terms:
    return Terms(*(jnp.zeros(shape, dtype) for shape in ((n,), (n, classes), (classes, classes))))


@functools.partial(jax.jit, static_argnames=("rows", "precision"))
def centred_again(x: jax.Array, labels: Rows, centres: Centres, *, rows: int, precision: Precision) -> jax.Array:
    """Centre a feature chunk of sorted rows about centres that are known."""
    a = rounded(x - centres.firsts[labels] - centres.means[labels], precision)
    return jnp.pad(a, ((0, rows - x.shape[0]), (0, 0)))


@functools.partial(jax.jit, static_argnames="precision")
def _terms_again(x: jax.Array, labels: Rows, centres: Centres, *, precision: Precision) -> Terms:
    """Return the terms of sorted rows about centres that are known."""
    if precision == "direct":
        return _zero_terms(len(x), len(centres.means), x.dtype)
    a = centred_again(x, labels, centres, rows=len(x), precision=precision)
    return _terms(a.astype(x.dtype), centres)


@functools.partial(jax.jit, donate_argnums=0)
def _class_sums(sums: jax.Array, x: jax.Array, labels: Rows, firsts: jax.Array) -> jax.Array:
    """Return sums [classes, width] with those of more rows, less the first row of their class, added."""
    onehot = jax.nn.one_hot(labels, len(firsts), dtype=x.dtype)
    a = x - firsts[labels]
    return sums + lax.dot_general(onehot, a, (((0,), (0,)), ((), ())), precision=lax.Precision.HIGHEST)


@functools.partial(jax.jit, static_argnames="precision")
def _centres(firsts: jax.Array, sums: jax.Array, counts: Rows, *, precision: Precision) -> Centres:
    if precision == "direct":
        zeros = jnp.zeros_like(firsts)
        return Centres(zeros, zeros, zeros)
    means = sums / jnp.maximum(counts, 1).astype(sums.dtype)[:, None]
    return Centres(firsts, means, (firsts - firsts[:1]) + means)


@jax.jit
def taken(tree: Any, rows: Rows) -> Any:
    """Return some rows of each array."""
    return jax.tree.map(lambda a: a[rows], tree)


class CentredRows:
    """The centred rows of a layer for one group of tile pairs after another, a feature chunk at a time.

    All rows are centred once, for the first group. For later groups they are kept if they fit in memory; else those
    that a group needs are centred again, without their means and terms.

    Attributes:
        terms: of all rows, once the chunks of the first group have been taken.
    """

    def __init__(
        self, t: Layer, layout: Layout, groups: list[Group], *, tile: int, width: int, dtype: Any, precision: Precision
    ):
        self._t, self._layout, self._width, self._dtype, self._precision = t, layout, width, dtype, precision
        self._tile, self._padded = tile, -(-t.shape[0] // tile) * tile
        self._single = len(groups) == 1
        self._keep = not self._single and self._padded * t.shape[1] * np.dtype(dtype).itemsize <= KEPT_BYTES
        self._kept: list[jax.Array] = []
        self._centres: list[Centres] = []
        self.terms: Terms | None = None
        if isinstance(t, LazyActivations):
            self._keep = False
            self._survey(t, tile * len(groups[0].tiles))

    def chunks_of(self, group: Group) -> Iterator[tuple[jax.Array, Centres]]:
        """Yield the rows [tiles * tile, width] of the group's tiles, and the centres of all classes."""
        rows = group.rows(self._tile)
        if self.terms is None:
            for a, centres in self._first():
                yield (a if self._single else taken(a, rows)), centres
        elif self._keep:
            for a, centres in zip(self._kept, self._centres, strict=True):
                yield taken(a, rows), centres
        else:
            real = rows[rows < len(self._layout.order)]
            order, labels = self._layout.order[real], self._layout.labels[real]
            pieces = chunks(self._t, self._width, self._dtype, order)
            for x, centres in zip(pieces, self._centres, strict=True):
                yield centred_again(x, labels, centres, rows=len(rows), precision=self._precision), centres

    def _survey(self, t: LazyActivations, rows: int) -> None:
        """Find the centres in one pass over the rows, so many at a time, and the terms in another."""
        layout, options = self._layout, {"precision": self._precision}
        blocks = [slice(begin, begin + rows) for begin in range(0, len(layout.order), rows)]
        firsts = list(chunks(t, self._width, self._dtype, layout.order[layout.first]))
        sums = [jnp.zeros_like(first) for first in firsts]
        for block in blocks:
            pieces = chunks(t, self._width, self._dtype, layout.order[block])
            sums = [_class_sums(s, x, layout.labels[block], f) for s, x, f in zip(sums, pieces, firsts, strict=True)]
        self._centres = [_centres(f, s, layout.counts, **options) for f, s in zip(firsts, sums, strict=True)]
        found = []
        for block in blocks:
            labels, terms = layout.labels[block], None
            pieces = chunks(t, self._width, self._dtype, layout.order[block])
            for x, centres in zip(pieces, self._centres, strict=True):
                part = _terms_again(x, labels, centres, **options)
                terms = part if terms is None else accumulated(terms, part)
            found.append(terms)
        norms, cross, centres = zip(*found, strict=True)
        self.terms = Terms(jnp.concatenate(norms), jnp.concatenate(cross), centres[0])

    def _first(self) -> Iterator[tuple[jax.Array, Centres]]:
        terms = None
        for x in chunks(self._t, self._width, self._dtype, self._layout.order):
            a, centres, part = centre(x, self._layout, rows=self._padded, precision=self._precision)
            terms = part if terms is None else accumulated(terms, part)
            if not self._single:
                self._centres.append(centres)
            if self._keep:
                self._kept.append(a)
            yield a, centres
        self.terms = terms


@functools.partial(jax.jit, donate_argnums=0)
def accumulated(sums: Any, part: Any) -> Any:
    """Return two pytrees of one structure added leaf by leaf, in one compiled call for all leaves."""
    return jax.tree.map(jnp.add, sums, part)


@functools.partial(jax.jit, donate_argnums=0)
def added_tiles(sums: jax.Array, part: jax.Array, tiles: Rows) -> jax.Array:
    """Return sums [tiles, ...] with those of some tiles added."""
    return sums.at[tiles].add(part)


@functools.lru_cache
def gram_step(tile: int, precision: Precision, mesh: Mesh | None, *, squared: bool = True) -> Callable[..., jax.Array]:
    """Return the compiled step (products [p, tile, tile], a, b, pairs) -> products + a_i b_j^T for each tile pair.

    With precision "direct" it adds -|b_i - b_j|^2 / 2 when `squared`, else a_i (b_j - b_i)^T, which are the products up
    to terms that are 0 there.
    """

    def product(a: jax.Array, b: jax.Array, i: jax.Array, j: jax.Array) -> jax.Array:
        left, right = lax.dynamic_slice_in_dim(a, i, tile), lax.dynamic_slice_in_dim(b, j, tile)
        if precision != "direct":
            return dot(left, right, precision)
        columns = right.T  # sums over the first axis are vectorised over the second

        def row(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
            weight, origin = pair
            difference = columns - origin[:, None]
            return jnp.sum(-0.5 * difference * difference if squared else weight[:, None] * difference, axis=0)

        return lax.map(row, (left, lax.dynamic_slice_in_dim(b, i, tile)))

    def add(products: jax.Array, a: jax.Array, b: jax.Array, pairs: jax.Array) -> jax.Array:
        def one(p: jax.Array, products: jax.Array) -> jax.Array:
            i, j = jnp.maximum(pairs[p], 0) * tile
            return products.at[p].add(product(a, b, i, j))

        return lax.fori_loop(0, pairs.shape[0], one, products)

    return spread(add, mesh, (True, False, False, True), total=False)


@functools.partial(jax.jit, static_argnames="rows")
def cross_terms(terms: Terms, layout: Layout, *, rows: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return norms [rows], W [rows, classes] and labels [rows], padded with infinity, 0 and an extra class."""
    n, classes = terms.cross.shape
    apart = terms.centres[layout.labels]
    along = jnp.take_along_axis(terms.cross, layout.labels[:, None], axis=1) - terms.cross
    other = layout.labels[:, None] != jnp.arange(classes, dtype=layout.labels.dtype)[None]
    w = jnp.where(other, 2 * along + 0.5 * apart, 0)
    norms = jnp.pad(terms.norms, (0, rows - n), constant_values=jnp.inf)
    labels = jnp.pad(layout.labels, (0, rows - n), constant_values=classes)
    return norms, jnp.pad(w, ((0, rows - n), (0, 0))), labels


def distances(
    i: jax.Array, j: jax.Array, product: jax.Array, norms: jax.Array, w: jax.Array, labels: jax.Array
) -> jax.Array:
    """Return the squared distances [tile, tile] of tiles i and j; infinite for padding and on the diagonal."""
    tile, classes = product.shape[0], w.shape[1]
    part = functools.partial(lax.dynamic_slice_in_dim, slice_size=tile)
    d = part(norms, i * tile)[:, None] + part(norms, j * tile)[None, :] - 2 * product
    if classes > 1:
        hot_i, hot_j = (jax.nn.one_hot(part(labels, k * tile), classes, dtype=w.dtype) for k in (i, j))
        left = jnp.concatenate([part(w, i * tile), hot_i], axis=1)
        right = jnp.concatenate([hot_j, part(w, j * tile)], axis=1)
        d = d + dot(left, right, "float32")
    return jnp.where(jnp.eye(tile, dtype=bool) & (i == j), jnp.inf, jnp.maximum(d, 0))


@functools.partial(jax.jit, static_argnames="width")
def _slice(t: jax.Array, start: jax.typing.ArrayLike, rows: Rows | None, *, width: int) -> jax.Array:
    piece = lax.dynamic_slice_in_dim(t, start, width, axis=1)
    return piece if rows is None else piece[rows]


def chunks(t: Layer, width: int, dtype: Any, rows: Rows | None = None) -> Iterator[jax.Array]:
    """Yield pieces of t, or of some of its rows, on the device, [n, width] each; numpy arrays stay on the host.

    The last piece is padded with zeros to a power of two, so that layers of many widths share few compiled
    functions and no product is twice as wide as its layer.
    """
    if isinstance(t, LazyActivations):
        t, rows = t[slice(None) if rows is None else rows], None
    full = t.shape[1] // width * width
    for start in range(0, full, width):
        if isinstance(t, np.ndarray):
            piece = t[:, start : start + width]
            yield jnp.asarray(piece if rows is None else piece[rows], dtype)
        else:
            yield jnp.asarray(_slice(t, start, rows, width=width), dtype)
    if left := t.shape[1] - full:
        padded = min(width, max(_NARROWEST, 1 << (left - 1).bit_length()))
        xp = np if isinstance(t, np.ndarray) else jnp
        piece = t[:, full:] if rows is None else t[:, full:][rows]
        yield jnp.asarray(xp.pad(piece, ((0, 0), (0, padded - left))), dtype)


def sum_of_squares(t: LazyActivations, dtype: Any) -> float:
    """Return the sum of squares about the mean row."""
    tile, layout = tile_height(len(t)), sort_rows(np.zeros(len(t), np.int32), 1)
    groups = tile_groups(-(-len(t) // tile), tile, 4, 1, None, row_bytes=row_bytes(t))
    precision = "float64" if dtype == jnp.float64 else "float32"
    rows = CentredRows(t, layout, groups, tile=tile, width=chunk_width(), dtype=dtype, precision=precision)
    assert rows.terms is not None
    return float(rows.terms.norms.sum())
