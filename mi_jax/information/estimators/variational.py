"""Variational lower bounds with a trained critic: InfoNCE, NWJ and SMILE, in JAX.

Trained on one half of the rows and read off on the other. InfoNCE cannot exceed the log of the batch; SMILE is clipped
and so no strict bound.
"""

import functools
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from mi_jax.errors import InputError
from mi_jax.information._input import as_activations, as_labels, check_finite
from mi_jax.information.estimator import Estimate, host_generator, register, target_of

Objective = Literal["infonce", "nwj", "smile"]


class _Schedule(NamedTuple):
    """What a compiled training run is made for."""

    objective: Objective
    steps: int
    learning_rate: float
    noisy: bool


def objective_value(name: Objective, scores: jax.Array) -> jax.Array:
    """Return the bound in nats from critic scores [b, b], pairs (i, i) joint and (i, j) independent.

    Sources: van den Oord et al. 2018 (InfoNCE); Nguyen, Wainwright & Jordan 2010; Song & Ermon 2020 (SMILE, clip 5).
    """
    b = scores.shape[0]
    joint = jnp.mean(jnp.diagonal(scores))
    apart = jnp.where(jnp.eye(b, dtype=bool), -jnp.inf, scores)
    log_pairs = math.log(b * (b - 1))
    if name == "infonce":
        return joint - jnp.mean(jax.nn.logsumexp(scores, axis=1)) + math.log(b)
    if name == "nwj":
        return joint - jnp.exp(jax.nn.logsumexp(apart - 1) - log_pairs)
    clipped = jnp.where(jnp.isfinite(apart), jnp.clip(scores, -5, 5), -jnp.inf)
    return joint - (jax.nn.logsumexp(clipped) - log_pairs)


def _loss(name: Objective, scores: jax.Array) -> jax.Array:
    """What is minimised; SMILE trains its critic by the Jensen-Shannon objective, as its authors do."""
    if name != "smile":
        return -objective_value(name, scores)
    b = scores.shape[0]
    off = 1 - jnp.eye(b, dtype=scores.dtype)
    return jnp.mean(jax.nn.softplus(-jnp.diagonal(scores))) + jnp.sum(jax.nn.softplus(scores) * off) / (b * (b - 1))


Critic = dict[str, jax.Array]


def _init(rng: np.random.Generator, left: int, right: int, hidden: int) -> Critic:
    """Draw He-normal weights on the host: a program for so few numbers takes longer to compile than to run."""
    shapes = {"left": (left, hidden), "right": (right, hidden), "middle": (hidden, hidden), "out": (hidden, 1)}
    fan_in = {"left": left + right, "right": left + right, "middle": hidden, "out": hidden}
    weights = {name: rng.standard_normal(shape) * math.sqrt(2 / fan_in[name]) for name, shape in shapes.items()}
    weights |= {"first_bias": np.zeros(hidden), "middle_bias": np.zeros(hidden)}
    return {name: jnp.asarray(w, jnp.float32) for name, w in weights.items()}


def _scores(critic: Critic, x: jax.Array, z: jax.Array) -> jax.Array:
    """Score all pairs of a batch by an MLP on concatenated inputs: entry [i, j] is f(x_i, z_j).

    The first layer is linear in the two sides, so it is applied to each before they are paired.
    """
    h = jax.nn.relu((x @ critic["left"])[:, None] + (z @ critic["right"])[None] + critic["first_bias"])
    h = jax.nn.relu(h @ critic["middle"] + critic["middle_bias"])
    return (h @ critic["out"])[..., 0]


@functools.partial(jax.jit, static_argnames="schedule")
def _train_and_read(
    key: jax.Array, critic: Critic, x: jax.Array, z: jax.Array, rows: tuple[jax.Array, jax.Array],
    deviation: jax.Array, *, schedule: _Schedule,
) -> jax.Array:  # fmt: skip
    """Train on the batches of rows in the first table [steps, batch]; return the bound on each batch of the second."""
    optimiser = optax.adam(optax.cosine_decay_schedule(schedule.learning_rate, schedule.steps))

    def batch_of(key: jax.Array, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        if not schedule.noisy:
            return x[rows], z[rows]
        return x[rows], z[rows] + deviation * jax.random.normal(key, (len(rows), z.shape[1]))

    def step(carry: Any, batch: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        critic, state = carry
        pair = batch_of(*batch)
        gradient = jax.grad(lambda c: _loss(schedule.objective, _scores(c, *pair)))(critic)
        updates, state = optimiser.update(gradient, state)
        return (optax.apply_updates(critic, updates), state), None

    seen, held_out = rows
    keys = jax.random.split(key, len(seen) + len(held_out))
    (critic, _), _ = lax.scan(step, (critic, optimiser.init(critic)), (keys[: len(seen)], seen))
    return lax.map(
        lambda b: objective_value(schedule.objective, _scores(critic, *batch_of(*b))), (keys[len(seen) :], held_out)
    )


def _batches(rng: np.random.Generator, n: int, batch: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Shuffle n rows; return batches [steps, batch] of the first half, epoch by epoch, and all of the second half."""
    order = rng.permutation(n).astype(np.int32)
    seen, held_out = order[: n // 2], order[n // 2 :]
    count = len(seen) // batch
    epochs = [rng.permutation(seen)[: count * batch].reshape(count, batch) for _ in range(-(-steps // count))]
    return np.concatenate(epochs)[:steps], held_out[: len(held_out) // batch * batch].reshape(-1, batch)


def variational(
    t: Any,
    other: Any = None,
    *,
    key: jax.Array,
    objective: Objective = "infonce",
    noise_variance: float | None = None,
    batch: int = 64,
    steps: int = 500,
    hidden: int = 48,
    learning_rate: float = 2e-3,
    num_classes: int | None = None,
) -> Estimate:
    """Return a held-out variational bound in nats on I(T; other), or on I(X; T + noise) when other is None.

    t: [n, ...]; other: None (then `noise_variance` says how much noise is added), int labels [n], or float [n, ...].
    Both sides are scaled to unit variance; the critic is an MLP on the concatenation. stderr is over held-out batches.
    Raises InputError for what `kde` refuses, missing noise, and fewer rows than four batches.
    """
    x = as_activations(t)
    check_finite(x)
    n, target, deviation = len(x), target_of(other), 0.0
    if n < 4 * batch:
        raise InputError(f"{n} samples are too few for batches of {batch}: four batches at least are needed.")
    left, scale = _standard(np.asarray(x, np.float32))
    if target == "input":
        if noise_variance is None or not noise_variance > 0:
            raise InputError("I(X;T) of a layer without noise is not finite: give a positive noise_variance.")
        right, deviation = left, math.sqrt(noise_variance) / scale
    elif target == "label":
        labels, classes = as_labels(other, n, num_classes)
        right = np.eye(classes, dtype=np.float32)[labels]
    else:
        z = as_activations(other, "other")
        check_finite(z, "other")
        right, _ = _standard(np.asarray(z, np.float32))
    schedule = _Schedule(objective, steps, learning_rate, noisy=target == "input")
    rng = host_generator(key)
    critic = _init(rng, left.shape[1], right.shape[1], hidden)
    batches = _batches(rng, n, batch, steps)
    values = _train_and_read(key, critic, left, right, batches, np.float32(deviation), schedule=schedule)
    values = np.asarray(values, np.float64)
    stderr = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    settings = {"batch": batch, "steps": steps, "hidden": hidden, "noise_variance": noise_variance}
    kind = "value" if objective == "smile" else "lower"
    return Estimate(objective, float(values.mean()), stderr, kind, n, settings)


def _standard(x: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre, and divide by one number so that the mean variance of a feature is 1; a constant stays 0."""
    a = x - x.mean(axis=0)
    scale = float(np.sqrt(np.mean(a * a)))
    return (a / scale, scale) if scale > 0 else (a, 1.0)


for _name in ("infonce", "nwj", "smile"):
    register(_name, targets=("input", "label", "continuous"))(functools.partial(variational, objective=_name))
