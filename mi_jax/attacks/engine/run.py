"""One row of work: an image with its label and, for a targeted attack, a target; and how every attack works on rows.

An attack here is a `AttackStep`: it begins a state of arrays with one row each, and advances it by some
iterations. `autoattack` drives procedures from the host; `run` drives one inside a single compiled call.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mi_jax.attacks.engine.chunks import chunked_map
from mi_jax.attacks.engine.input_checks import (
    accepts,
    check_batch,
    check_eps,
    check_key,
    check_logits,
    check_model,
    logits_of,
)
from mi_jax.attacks.engine.randomness import Bits, row_bits, row_keys
from mi_jax.attacks.losses import at, best_other
from mi_jax.attacks.results import AttackResult
from mi_jax.attacks.threat_model import length
from mi_jax.errors import InputError
from mi_jax.typing import Images, Key, Labels, LogitsFn

BLOCK = 250
"""Iterations that share one draw of random words."""


class Rows(NamedTuple):
    """Clean images [r h w c], labels [r], target classes [r] (0 where untargeted) and which restart each row is [r]."""

    images: Images
    labels: Labels
    targets: Labels
    restarts: Labels


Evaluate = Callable[[Images, Any], jax.Array]
"""`evaluate(images, iteration) -> logits [r k]`."""


class AttackStep(NamedTuple):
    """An attack on rows.

    `begin(config, rows, bits, eps) -> state`, without the model. `advance(evaluate, config, rows, state, bits,
    first, count, eps) -> state` makes iterations first..first + count - 1; `evaluate(images, i)` gives logits.
    `iterations(config)` counts all of them. `start_words` and `step_words` (config, image shape) say how many
    random words a row needs at the start, bits [r, words], and at each iteration, bits [r, BLOCK, words].
    A state has `found` [r], true where an adversarial image within eps is known, and `images` [r h w c], the best
    image so far: adversarial where found, always inside the ball.
    """

    begin: Callable[..., Any]
    advance: Callable[..., Any]
    iterations: Callable[[Any], int]
    start_words: Callable[[Any, tuple[int, ...]], int]
    step_words: Callable[[Any, tuple[int, ...]], int]


def folds(config: Any) -> int:
    """Rows an image needs: restarts times targets."""
    return config.restarts * max(1, getattr(config, "targets", 0))


def ranked_targets(logits: jax.Array, labels: Labels, count: int) -> jax.Array:
    """The `count` highest classes other than the label [b, count], best first. Raises `InputError` for too many."""
    if count >= logits.shape[1]:
        raise InputError(
            f"targets is {count}, but a model of {logits.shape[1]} classes has {logits.shape[1] - 1} wrong ones; "
            "take fewer."
        )
    own = jnp.arange(logits.shape[1]) == labels[:, None]
    return jax.lax.top_k(jnp.where(own, -jnp.inf, logits), count)[1]


def evaluator(logits_fn: Callable[..., Any], variables: Any, key: Key | None) -> Evaluate:
    """The model as a procedure sees it; with a key, a random model with fresh noise at every iteration."""
    if key is None:
        return lambda images, i: logits_of(logits_fn, variables, images)
    return lambda images, i: logits_of(logits_fn, variables, images, jax.random.fold_in(key, i))


def run(
    procedure: AttackStep,
    config: Any,
    logits_fn: LogitsFn,
    variables: Any,
    x: ArrayLike,
    y: ArrayLike,
    key: Key,
    eps: ArrayLike | None,
) -> AttackResult:
    """Run one procedure on whole images in one compiled call, restarts and targets folded into the batch.

    The returned image is adversarial where any row found one, else the one with the highest margin. `loss` is
    the margin max_{i != y} z_i - z_y there. A model that needs a key, `logits_fn(variables, x, key)`, is random: each
    iteration draws its noise anew. Traceable. Raises `InputError` as `pgd` does, and for a model of neither form.
    """
    images, labels = check_batch(x, y)
    check_model(logits_fn)
    check_key(key)
    radius = config.eps if eps is None else eps
    check_eps(radius, config.norm, least="positive")
    random = getattr(config, "eot_draws", 1) > 1 or not accepts(logits_fn, 2)
    if random and not accepts(logits_fn, 3):
        raise InputError(
            "logits_fn must take (variables, x), or (variables, x, key) for a random model, which eot_draws > 1 needs."
        )
    plain, radius = dataclasses.replace(config, eps=1.0), jnp.asarray(radius, images.dtype)
    result = _run(procedure, plain, logits_fn, random, variables, images, labels, key, radius)
    check_logits(result.logits, labels)
    return result


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _run(procedure: AttackStep, config, logits_fn, random, variables, images, labels, key, eps) -> AttackResult:
    width, count = folds(config), len(images)
    image, fold = jnp.repeat(jnp.arange(count), width), jnp.tile(jnp.arange(width), count)
    # The noise of a random model must not repeat the bits of the starts.
    evaluate = evaluator(logits_fn, variables, jax.random.fold_in(key, 2**31) if random else None)
    targets = jnp.zeros((count, 1), labels.dtype)
    if getattr(config, "targets", 0):
        targets = ranked_targets(evaluate(images, 0), labels, config.targets)
    rows = Rows(
        jnp.repeat(images, width, axis=0),
        jnp.repeat(labels, width),
        jnp.tile(targets, (1, config.restarts)).reshape(-1),
        fold // targets.shape[1],
    )
    total = procedure.iterations(config)

    def attack(keys, images, labels, targets, restarts):
        rows = Rows(images, labels, targets, restarts)
        state = procedure.begin(config, rows, start_bits(procedure, config, keys, images.shape[1:]), eps)

        def block(b, state):
            bits = step_bits(procedure, config, keys, b, images.shape[1:])
            return procedure.advance(
                evaluate, config, rows, state, bits, b * BLOCK, jnp.minimum(BLOCK, total - b * BLOCK), eps
            )

        state = jax.lax.fori_loop(0, -(-total // BLOCK), block, state)
        return state.images, state.found, evaluate(state.images, total)

    # The noise of a random model is one draw for all rows.
    most = len(image) if random else None
    candidates, found, logits = chunked_map(attack, row_keys(key, image, fold), *rows, most=most)
    return _best_rows(candidates, found, logits, images, labels, config.norm)


def start_bits(procedure: AttackStep, config: Any, keys: jax.Array, shape: tuple[int, ...]) -> Bits:
    """The random words of each row's start [r, words]."""
    return row_bits(keys, jnp.int32(0), procedure.start_words(config, shape))


def step_bits(procedure: AttackStep, config: Any, keys: jax.Array, block: Any, shape: tuple[int, ...]) -> Bits | None:
    """The random words of one block of iterations [r, BLOCK, words], or None for an attack that needs none."""
    words = procedure.step_words(config, shape)
    if words == 0:
        return None
    return row_bits(keys, jnp.asarray(block, jnp.int32) + 1, BLOCK * words).reshape(len(keys), BLOCK, words)


def _best_rows(candidates, found, logits, images: Images, labels: Labels, norm: str) -> AttackResult:
    count = len(labels)
    candidates, found, logits = (a.reshape((count, -1, *a.shape[1:])) for a in (candidates, found, logits))
    y = jnp.broadcast_to(labels[:, None], found.shape)
    margin = jax.vmap(lambda z, t: best_other(z, t) - at(z, t))(logits, y)
    eligible = found | ~jnp.any(found, axis=1, keepdims=True)
    winner = jnp.argmax(jnp.where(eligible, margin, -jnp.inf), axis=1)
    each = jnp.arange(count)
    chosen, logits = candidates[each, winner], logits[each, winner]
    return AttackResult(
        images=chosen,
        success=jnp.argmax(logits, axis=1) != labels,
        loss=margin[each, winner],
        step_loss=None,
        perturbation_norm=length(chosen - images, norm),
        logits=logits,
    )
