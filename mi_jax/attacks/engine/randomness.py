"""Random numbers for each image and restart, whatever its place in a batch.

The result of an attack then does not depend on how images are split into batches, dropped or resumed.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from mi_jax.typing import Key

Bits = UInt32[Array, "..."]


@jax.jit
def row_keys(key: Key, image: Int[Array, " r"], fold: Int[Array, " r"]) -> Array:
    """A key for each row, from the index of its image in the data and of its restart or target."""
    return jax.vmap(lambda i, f: jax.random.fold_in(jax.random.fold_in(key, i), f))(image, fold)


@functools.partial(jax.jit, static_argnums=2)
def row_bits(keys: Array, block: Int[Array, ""], words: int) -> UInt32[Array, "r w"]:
    """`words` random words for each row; block 0 is for starts."""
    return jax.vmap(lambda k: jax.random.bits(jax.random.fold_in(k, block), (words,), jnp.uint32))(keys)


def uniform(bits: Bits) -> Float[Array, "..."]:
    """Uniform in [0, 1) from the upper 24 bits of each word."""
    return (bits >> 8).astype(jnp.float32) * jnp.float32(2**-24)


def normal(bits: Bits) -> Float[Array, "..."]:
    """Standard normal by inversion of the distribution function, within 5.3 standard deviations.

    Quantiles of the midpoints of 2^23 equal cells, which float32 represents exactly: with one bit more, the last
    midpoint would round to 1, whose quantile is infinite.
    """
    return jax.scipy.special.ndtri(((bits >> 9).astype(jnp.float32) + 0.5) * jnp.float32(2**-23))


def integer(bits: Bits, count: Int[Array, "..."]) -> Int[Array, "..."]:
    """Uniform integer in 0..count - 1; count below 2^24."""
    return jnp.minimum(jnp.floor(uniform(bits) * count.astype(jnp.float32)).astype(jnp.int32), count - 1)


def signs(bits: Bits, count: int) -> Float[Array, "... c"]:
    """`count` signs (+1 or -1) from the bits of the words on the last axis, 32 per word."""
    places = jnp.arange(count, dtype=jnp.uint32)
    chosen = jnp.take(bits, places // 32, axis=-1)
    return 2 * ((chosen >> jnp.broadcast_to(places % 32, chosen.shape)) & 1).astype(jnp.float32) - 1
