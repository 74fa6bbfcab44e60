"""Runs any attack in one compiled call: one row per restart and target, in chunks, and the worst row of each image."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mi_jax import checks
from mi_jax.attacks.attack import Attack, AttackResult, Batch, Outcome, Problem, check_config, reach_warnings
from mi_jax.attacks.engine.input_checks import (
    Model,
    accepts,
    check_batch,
    check_distances,
    check_step,
    check_targets,
    check_unmasked,
    check_variables,
    logits_of,
)
from mi_jax.attacks.engine.randomness import Bits, row_bits, row_keys
from mi_jax.attacks.losses import margin, misclassified, others
from mi_jax.batches import map_batches
from mi_jax.errors import InputError
from mi_jax.typing import Images, Key, Labels, LogitsFn

BLOCK = 250
"""Iterations whose random words are drawn together."""
ROWS_ON_CPU = 128
"""Rows at once on a CPU. More do not fit its caches: a small network then takes a fifth more time per image."""


def run(
    logits_fn: LogitsFn,
    variables: Any,
    x: Any,
    y: Any,
    key: Key | int | None = None,
    *,
    config: Attack,
    eps: ArrayLike | None = None,
    step_size: ArrayLike | None = None,
    targets: Any = None,
    start: Any = None,
    index: Any = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Attacks images by any `Attack`.

    Args:
        logits_fn: as for `pgd`, or `logits_fn(variables, x, key)` for a random model: each iteration draws new noise.
        variables, x, y, targets, start, index, batch_size: as for `pgd`.
        key: a random key or a seed, needed by attacks that draw random numbers and by random models.
        config: settings of the attack.
        eps, step_size: replace those of the configuration, with one number or one per image [b]; may be traced.

    Returns:
        An adversarial image where any restart or target found one.

    Raises:
        InputError: as `pgd`.
    """
    check_config(config, Attack)
    check_variables(variables)
    images, labels = check_batch(x, y)
    model = Model(logits_fn)
    random = getattr(config, "eot_draws", 1) > 1 or not accepts(logits_fn, 2)
    if random and not accepts(logits_fn, 3):
        raise InputError(
            "logits_fn must take (variables, x), or (variables, x, key) for a random model, which eot_draws > 1 needs."
        )
    _refuse_ignored(config, targets=targets, start=start, step_size=step_size)
    shape = images.shape[1:]
    norm, positive = str(config.norm), not config.allows_zero_eps
    check_distances("eps", config.eps if eps is None else eps, norm, len(images), positive=positive)
    if step_size is not None:
        check_distances("step_size", step_size, norm, len(images))
        check_step(step_size, config.eps if eps is None else eps, norm)
    config = config.with_values(eps=eps, **({} if step_size is None else {"step_size": step_size}))
    config.check_shape(shape)
    config = config.as_arrays(images.dtype)
    if targets is not None:
        targets = check_targets(targets, labels)
    if start is not None:
        if getattr(config, "restarts", 1) > 1:
            raise InputError("Restarts from one given start would all be the same; set restarts=1.")
        start = _checked_start(start, images)
    draws = config.start_words(shape) + config.step_words(shape) > 0
    key = checks.key(key) if draws or random or key is not None else jax.random.key(0)
    width = config.rows_per_image
    index = jnp.arange(len(images)) if index is None else checks.labels(index, len(images), name="index")
    if batch_size is not None:
        checks.count("batch_size", batch_size)
    if batch_size is not None and batch_size < len(images):
        each = {"targets": targets, "start": start, "eps": config.eps, "step_size": config.step_size}
        each = {name: value for name, value in each.items() if np.ndim(value)}
        attack = functools.partial(run, model.logits_fn, variables, key=key, config=config)
        return _in_batches(attack, batch_size, images, labels, index, each)
    keys = row_keys(key, jnp.repeat(index, width), jnp.tile(jnp.arange(width), len(images)))
    # Drawn outside of the compiled attack: on a small model the generator takes longer to compile than the attack.
    words = start_bits(config, keys, shape)
    noise = noise_key(key, index[0]) if random else None
    result = _run(config, model, variables, images, labels, targets, start, keys, words, noise)
    checks.logits(result.logits, labels)
    check_unmasked(result.logits, config.loss, config.least_classes)
    if targets is not None:
        checks.class_indices(targets, result.logits.shape[1], name="Targets")
    return dataclasses.replace(result, notes=reach_warnings(config))


def _refuse_ignored(config: Attack, *, targets: Any, start: Any, step_size: Any) -> None:
    """Raises `InputError` for an argument that the attack does not use."""
    name = type(config).__name__
    if step_size is not None and "step_size" not in config.traced:
        raise InputError(f"{name} chooses the lengths of its steps; leave out step_size.")
    if start is not None and not config.takes_start:
        raise InputError(f"{name} chooses the points from which it starts; leave out start.")
    if targets is not None and config.targets:
        raise InputError(f"{name} with targets={config.targets} chooses its target classes; leave out targets.")
    if targets is not None and not config.loss:
        raise InputError(f"{name} has no target classes; leave out targets.")


def _checked_start(value: Any, images: Images) -> Images:
    start = checks.array(value, name="start")
    if start.shape != images.shape or not jnp.issubdtype(start.dtype, jnp.floating):
        got = f"{start.dtype} of shape {tuple(start.shape)}"
        raise InputError(f"start must be floating and have the images' shape {images.shape}; got {got}.")
    if checks.known(start):
        if not np.isfinite(np.asarray(start)).all():
            raise InputError("start holds NaN or infinite values; give points in [0, 1].")
        low, high = float(np.min(np.asarray(start))), float(np.max(np.asarray(start)))
        if low < -checks.ROUNDING or high > 1 + checks.ROUNDING:
            raise InputError(
                f"start must lie in [0, 1]; got values from {low:g} to {high:g}: give points, not perturbations, and "
                "clip them."
            )
    return jnp.asarray(start, images.dtype)


def ranked_targets(logits: jax.Array, labels: Labels, count: int) -> jax.Array:
    """The `count` highest classes other than the label [b, count], highest first. Raises `InputError` for too many.

    The highest also takes the place of classes that are masked by a logit of minus infinity, which no image reaches.
    """
    if count >= logits.shape[1]:
        raise InputError(
            f"targets is {count}, but a model of {logits.shape[1]} classes has {logits.shape[1] - 1} wrong ones; "
            "take fewer."
        )
    values, classes = jax.lax.top_k(others(logits, labels), count)
    return jnp.where(values > -jnp.inf, classes, classes[:, :1])


def noise_key(key: Key, first: Any, salt: int = 0) -> Key:
    """The key of a random model's noise in one batch, whose first image has the index `first`.

    All images of a batch share each draw; batches do not, so that their errors are independent.
    """
    return jax.random.fold_in(jax.random.fold_in(key, 2**31 + salt), first)


@functools.partial(jax.jit, static_argnums=0, inline=True)
def predict(model: Model, variables: Any, images: Images, key: Key | None) -> jax.Array:
    """Logits [b k], jitted so that the gradient, the evaluation and the shape of the logits share one trace."""
    return logits_of(model, variables, images, key)


def problem_of(config: Attack, model: Model, variables: Any, noise: Key | None, batch: Batch) -> Problem:
    """The problem that an attack solves; with a noise key, the model is random and each draw has its own noise."""

    def logits(images, draw):
        return predict(model, variables, images, None if noise is None else jax.random.fold_in(noise, draw))

    return Problem(batch, config.threat, logits)


def _in_batches(attack: Callable[..., AttackResult], batch_size: int, images, labels, index, each) -> AttackResult:
    """The attack on one batch after the other; `each` holds further arguments of one value per image."""

    def batch(x, y, i, *values):
        result = attack(x=x, y=y, index=i, **dict(zip(each, values, strict=True)))
        return _images_first(result)

    return _images_first(map_batches(batch, images, labels, index, *each.values(), batch_size=batch_size))


def _images_first(result: AttackResult) -> AttackResult:
    """The result with the two axes of `step_loss` exchanged."""
    return dataclasses.replace(result, step_loss=None if result.step_loss is None else result.step_loss.T)


@functools.partial(jax.jit, static_argnums=1)
def _run(config: Attack, model, variables, images, labels, targets, start, keys, words, noise) -> AttackResult:
    width, count = config.rows_per_image, len(images)
    clean = problem_of(config, model, variables, noise, Batch(images, labels, None, labels)).logits(images, 0)
    if config.targets:
        ranked = ranked_targets(clean, labels, config.targets)
        targets = jnp.tile(ranked, (1, config.restarts)).reshape(-1)
    elif targets is not None:
        targets = jnp.repeat(targets, width)
    batch = Batch(
        jnp.repeat(images, width, axis=0),
        jnp.repeat(labels, width),
        targets,
        jnp.tile(jnp.arange(width), count) // max(1, config.targets),
        None if start is None else jnp.repeat(start, width, axis=0),
    )

    def attack(config, batch, keys, words):
        problem = problem_of(config, model, variables, noise, batch)
        state, losses = _iterate(config, problem, keys, words)
        outcome = config.outcome(state)
        if outcome.logits is None:
            draws = getattr(config, "eot_draws", 1)  # those of the iterations are not drawn again
            outcome = outcome._replace(logits=problem.logits(outcome.images, config.iterations * draws))
        return outcome, losses

    # All rows share one draw of the noise of a random model, so they stay in one chunk.
    most = None if noise is None else len(keys)
    outcome, losses = chunked_map(attack, config.per_row(count), batch, keys, words, most=most)
    result = _worst_rows(config, outcome, losses, images, labels)
    return dataclasses.replace(result, success=result.success | misclassified(clean, labels))


def _iterate(config: Attack, problem: Problem, keys, words) -> tuple[Any, jax.Array | None]:
    """The last state, and the recorded losses [r, iterations] if there are any."""
    shape, total = problem.clean.shape[1:], config.iterations
    state = config.initial_state(problem, words)
    if config.step_words(shape) == 0:

        def iteration(state, i):
            state = config.step(problem, state, i, None)
            return state, config.recorded_loss(state)

        state, losses = jax.lax.scan(iteration, state, jnp.arange(total))
        return state, None if losses is None else losses.T

    def block(b, state):
        bits = step_bits(config, keys, b, shape)
        return steps(config, problem, state, bits, b * BLOCK, jnp.minimum(BLOCK, total - b * BLOCK))

    return jax.lax.fori_loop(0, -(-total // BLOCK), block, state), None


def steps(config: Attack, problem: Problem, state: Any, bits: Bits | None, first: Any, count: Any) -> Any:
    """Iterations first..first + count - 1, all of one block of random words."""

    def iteration(i, state):
        return config.step(problem, state, i, None if bits is None else bits[:, i % BLOCK])

    return jax.lax.fori_loop(first, first + count, iteration, state)


def start_bits(config: Attack, keys: jax.Array, shape: tuple[int, ...]) -> Bits | None:
    """The random words of each row's start [r, words], or None for an attack that needs none."""
    words = config.start_words(shape)
    return row_bits(keys, jnp.int32(0), words) if words else None


def step_bits(config: Attack, keys: jax.Array, block: Any, shape: tuple[int, ...]) -> Bits | None:
    """The random words of one block of iterations [r, BLOCK, words], or None for an attack that needs none."""
    words = config.step_words(shape)
    if words == 0:
        return None
    return row_bits(keys, jnp.asarray(block, jnp.int32) + 1, BLOCK * words).reshape(len(keys), BLOCK, words)


def _worst_rows(config: Attack, outcome: Outcome, losses, images: Images, labels: Labels) -> AttackResult:
    """For each image the row of highest rank among those that found an adversarial image, or among all if none did."""
    assert outcome.logits is not None
    count, each = len(labels), jnp.arange(len(labels))
    loss = margin(outcome.logits, jnp.repeat(labels, config.rows_per_image)) if outcome.loss is None else outcome.loss
    rank = loss if outcome.rank is None else outcome.rank
    found, rank = outcome.found.reshape(count, -1), rank.reshape(count, -1)
    eligible = found | ~jnp.any(found, axis=1, keepdims=True)
    # An adversarial image may have no finite loss, as where the label is masked: it still counts before all others.
    lowest = jnp.finfo(rank.dtype).min
    winner = jnp.argmax(jnp.where(eligible, jnp.nan_to_num(rank, nan=lowest, neginf=lowest), -jnp.inf), axis=1)

    def chosen(rows: jax.Array) -> jax.Array:
        return rows.reshape((count, -1, *rows.shape[1:]))[each, winner]

    faulty = None
    if outcome.faults is not None:
        zero, nonfinite = (jnp.max(n.reshape(count, -1), axis=1) / max(1, config.gradients) for n in outcome.faults)
        faulty = zero, nonfinite
    logits = chosen(outcome.logits)
    return AttackResult(
        images=chosen(outcome.images),
        success=misclassified(logits, labels),
        loss=chosen(loss),
        step_loss=None if losses is None else chosen(losses).T,
        perturbation_norm=config.threat.distance(chosen(outcome.images), images),
        logits=logits,
        faulty_gradients=faulty,
    )


def chunked_map(attack: Callable[..., Any], *rows: Any, most: int | None = None) -> Any:
    """`attack(*rows)`, on a CPU in equal chunks of at most `ROWS_ON_CPU` rows, one after the other. Traceable.

    The platform is that of lowering.

    Args:
        attack: takes chunks of the rows and returns a pytree of arrays with the chunk's length first; each row's
            results must not depend on the others'.
        *rows: pytrees of arrays of one length, at least 1.
        most: most rows in a chunk; None for `ROWS_ON_CPU` on a CPU, and all rows elsewhere.

    Returns:
        The results of all rows, in their order.
    """
    count = len(jax.tree.leaves(rows)[0])
    if count <= (ROWS_ON_CPU if most is None else most):
        return attack(*rows)
    if most is None:
        in_chunks = functools.partial(chunked_map, attack, most=ROWS_ON_CPU)
        return jax.lax.platform_dependent(*rows, cpu=in_chunks, default=attack)
    chunks = -(-count // most)
    size = -(-count // chunks)
    # The last chunk is padded with the last row.
    places = jnp.minimum(jnp.arange(chunks * size), count - 1)
    parts = jax.tree.map(lambda array: array[places].reshape(chunks, size, *array.shape[1:]), rows)
    results = jax.lax.map(lambda part: attack(*part), parts)
    return jax.tree.map(lambda leaf: leaf.reshape(chunks * size, *leaf.shape[2:])[:count], results)
