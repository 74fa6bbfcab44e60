"""Sparse-RS (Croce et al. 2022): random search over at most k pixels of any colour (L0), without gradients.

The number of pixels is no ball of `ThreatModel`, so this is no registered `Attack`, and AutoAttack does not run it.
"""

import bisect
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mi_jax import checks
from mi_jax.attacks.attack import AttackResult, check_config
from mi_jax.attacks.engine import randomness
from mi_jax.attacks.engine.input_checks import Model, check_batch, check_variables
from mi_jax.attacks.engine.run import chunked_map, predict
from mi_jax.attacks.losses import margin, misclassified
from mi_jax.errors import InputError
from mi_jax.typing import Flags, Images, Key, Labels, LogitsFn

MARKS = (50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries, of 10,000, after which fewer pixels move."""
DIVISORS = (2, 4, 5, 6, 8, 10, 12, 15, 20)
"""Of `alpha_init`, up to each mark and after the last."""

Pixels = Float[Array, "r n c"]
Colours = Float[Array, "r m c"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SparseRS:
    """Settings of Sparse-RS on the margin (Croce et al. 2022, the L0 attack).

    Attributes:
        pixels: number of pixels k that may change, each in all channels.
        queries: proposals tried after the start.
        alpha_init: share of the k pixels that a proposal moves, before the schedule divides it by 2 to 20.
        rescale_schedule: scale the schedule, which the paper gives for 10,000 queries, to `queries`.

    Raises:
        InputError: for values outside these.
    """

    pixels: int
    queries: int = 10_000
    alpha_init: float = 0.3
    rescale_schedule: bool = True

    def __post_init__(self):
        checks.count("pixels", self.pixels)
        checks.count("queries", self.queries)
        checks.portion("alpha_init", self.alpha_init, usual="0.3")
        checks.flag("rescale_schedule", self.rescale_schedule)


class SparseState(NamedTuple):
    """Per-row state: the image of smallest margin so far, which pixels it may change, that margin, and success."""

    images: Pixels
    chosen: Bool[Array, "r n"]
    margin: Float[Array, " r"]
    found: Flags
    query: Int[Array, ""]


def sparse_rs(logits_fn: LogitsFn, variables: Any, x: Any, y: Any, key: Key | int, *, config: SparseRS) -> AttackResult:
    """Attacks images by random search over k pixels (Croce et al. 2022), with logits but no gradients.

    Each proposal restores some of the k pixels and gives as many others colours at corners of the colour cube; it is
    kept where the margin falls. A colour equal to that of the clean pixel is inverted.

    Args:
        logits_fn, variables, x, y: as for `pgd`.
        key: a random key or a seed.
        config: settings.

    Returns:
        A misclassified image where a query found one, else the image of smallest margin; clean errors stay as they are.
        `perturbation_norm` is the number of pixels that differ.

    Raises:
        InputError: as `pgd`, and where `pixels` are not fewer than those of an image.

    Examples:
        >>> weights = jnp.zeros((4, 2)).at[3].set(jnp.array([1.0, -1.0]))  # only the last pixel counts
        >>> model = lambda weights, x: (x.reshape(len(x), -1) - 0.5) @ weights
        >>> images = jnp.full((1, 2, 2, 1), 0.75, jnp.float32)
        >>> result = sparse_rs(model, weights, images, jnp.array([0]), 0, config=SparseRS(pixels=1, queries=100))
        >>> result.success.item(), result.images.ravel()
        (True, Array([0.75, 0.75, 0.75, 0.  ], dtype=float32))
    """
    check_config(config, SparseRS)
    check_variables(variables)
    images, labels = check_batch(x, y)
    count = images.shape[1] * images.shape[2]
    if config.pixels >= count:
        height, width = images.shape[1:3]
        raise InputError(f"pixels is {config.pixels}, but images of {height} x {width} have {count}; take fewer.")
    model, numbers = Model(logits_fn), jnp.arange(len(images))
    keys = randomness.row_keys(checks.key(key), numbers, jnp.zeros_like(numbers))
    result = _run(config, model, variables, images, labels, keys)
    checks.logits(result.logits, labels)
    return result


def move_sizes(config: SparseRS) -> tuple[int, ...]:
    """Pixels that the proposal of each query moves [queries + 1], at least 1; entry 0 is not used."""
    scale = 10_000 / config.queries if config.rescale_schedule else 1
    alphas = [
        config.alpha_init / DIVISORS[bisect.bisect_left(MARKS, int(query * scale))]
        for query in range(config.queries + 1)
    ]
    return tuple(max(int(alpha * config.pixels), 1) for alpha in alphas)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run(config: SparseRS, model: Model, variables: Any, images: Images, labels: Labels, keys: Array) -> AttackResult:
    def attack(images, labels, keys):
        found = _search(config, functools.partial(predict, model, variables), images, labels, keys)
        return found, predict(model, variables, found, None)

    adversarial, logits = chunked_map(attack, images, labels, keys)
    return AttackResult(
        images=adversarial,
        success=misclassified(logits, labels),
        loss=margin(logits, labels),
        step_loss=None,
        perturbation_norm=jnp.sum(jnp.any(adversarial != images, axis=3), axis=(1, 2)).astype(images.dtype),
        logits=logits,
    )


def _search(config: SparseRS, logits_of: Any, images: Images, labels: Labels, keys: Array) -> Images:
    """The best image of each row, after all queries or when all rows are misclassified."""
    rows, height, width, channels = images.shape
    clean = images.reshape(rows, height * width, channels)
    count, budget = clean.shape[1], config.pixels
    sizes = jnp.asarray(move_sizes(config), jnp.int32)
    most = min(int(np.max(move_sizes(config))), count - budget)

    def evaluate(pixels: Pixels) -> tuple[Array, Flags]:
        logits = logits_of(pixels.reshape(images.shape), None)
        lead = jnp.where(jnp.isfinite(jnp.max(logits, axis=1)), -margin(logits, labels), jnp.inf)
        return lead.astype(images.dtype), misclassified(logits, labels)

    def start() -> SparseState:
        order, colours = _draw(keys, 0, clean.shape, budget)
        places = jax.lax.top_k(order, budget)[1]
        pixels = _recoloured(clean, clean, places, colours)
        lead, wrong = evaluate(pixels)
        before = evaluate(clean)[1]
        kept = jnp.where(before[:, None, None], clean, pixels)
        return SparseState(kept, _marked(places, count), lead, wrong | before, jnp.ones((), jnp.int32))

    def propose(s: SparseState) -> SparseState:
        order, colours = _draw(keys, s.query, clean.shape, most)
        moved = jnp.arange(most) < jnp.minimum(sizes[s.query], most)
        restored, added = (
            jnp.where(moved[None], jax.lax.top_k(jnp.where(allowed, order, -1), most)[1], count)
            for allowed in (s.chosen, ~s.chosen)
        )
        removed = _marked(restored, count)
        pixels = _recoloured(jnp.where(removed[..., None], clean, s.images), clean, added, colours)
        lead, wrong = evaluate(pixels)
        take = ((lead < s.margin) | wrong) & ~s.found
        return SparseState(
            images=jnp.where(take[:, None, None], pixels, s.images),
            chosen=jnp.where(take[:, None], (s.chosen & ~removed) | _marked(added, count), s.chosen),
            margin=jnp.where(take, lead, s.margin),
            found=s.found | (take & wrong),
            query=s.query + 1,
        )

    def unfinished(s: SparseState) -> Array:
        return (s.query <= config.queries) & ~jnp.all(s.found)

    return jax.lax.while_loop(unfinished, propose, start()).images.reshape(images.shape)


def _draw(keys: Array, query: Any, shape: tuple[int, ...], count: int) -> tuple[Array, Colours]:
    """A random number for each pixel [r n], and `count` random corners of the colour cube [r count c]."""
    rows, pixels, channels = shape
    words = randomness.row_bits(keys, jnp.asarray(query, jnp.int32), pixels + -(-count * channels // 32))
    signs = randomness.signs(words[:, pixels:], count * channels)
    return randomness.uniform(words[:, :pixels]), ((signs + 1) / 2).reshape(rows, count, channels)


def _marked(places: Int[Array, "r m"], count: int) -> Bool[Array, "r n"]:
    """Whether a pixel is one of the places; a place beyond the last pixel is none."""
    rows = jnp.arange(len(places))[:, None]
    return jnp.zeros((len(places), count), bool).at[rows, places].set(True, mode="drop")


def _recoloured(pixels: Pixels, clean: Pixels, places: Int[Array, "r m"], colours: Colours) -> Pixels:
    """The pixels with other colours at the places, inverted where they are those of the clean image."""
    rows, colours = jnp.arange(len(places))[:, None], colours.astype(pixels.dtype)
    same = jnp.all(colours == clean.at[rows, places].get(mode="clip"), axis=2, keepdims=True)
    return pixels.at[rows, places].set(jnp.where(same, 1 - colours, colours), mode="drop")
