"""Variational lower bounds with a trained critic: InfoNCE, NWJ and SMILE, in JAX.

The critic is trained on one half of the rows and evaluated on the other. InfoNCE cannot exceed the log of the batch;
SMILE is clipped and thus no strict bound.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from mi_jax import checks
from mi_jax.errors import InputError
from mi_jax.information._input import as_activations, as_pair, as_variance, check_finite, compact
from mi_jax.information.estimator import Estimate, Limit, host_generator, register
from mi_jax.optax_update import update
from mi_jax.typing import Key

OBJECTIVES = {"infonce": "InfoNCE", "nwj": "NWJ", "smile": "SMILE"}
"""Names of the objectives, and their labels in figures."""


class _Schedule(NamedTuple):
    """Static settings of the compiled training."""

    objective: str
    steps: int
    learning_rate: float
    noisy: bool


def objective_value(name: str, scores: jax.Array) -> jax.Array:
    """Return the bound in nats from critic scores [b, b], pairs (i, i) joint and (i, j) independent.

    References:
        van den Oord et al. 2018 (InfoNCE); Nguyen, Wainwright & Jordan 2010; Song & Ermon 2020 (SMILE, clip 5).
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


def _loss(name: str, scores: jax.Array) -> jax.Array:
    """Training loss of the critic; SMILE trains it by the Jensen-Shannon objective, as its authors do."""
    if name != "smile":
        return -objective_value(name, scores)
    b = scores.shape[0]
    off = 1 - jnp.eye(b, dtype=scores.dtype)
    return jnp.mean(jax.nn.softplus(-jnp.diagonal(scores))) + jnp.sum(jax.nn.softplus(scores) * off) / (b * (b - 1))


Critic = dict[str, jax.Array]


def _init(rng: np.random.Generator, left: int, right: int, hidden: int) -> Critic:
    """Draw He-normal weights on the host: a program for so few numbers would take longer to compile than to run."""
    shapes = {"left": (left, hidden), "right": (right, hidden), "middle": (hidden, hidden), "out": (hidden, 1)}
    fan_in = {"left": left + right, "right": left + right, "middle": hidden, "out": hidden}
    weights = {name: rng.standard_normal(shape) * math.sqrt(2 / fan_in[name]) for name, shape in shapes.items()}
    weights |= {"first_bias": np.zeros(hidden), "middle_bias": np.zeros(hidden)}
    return {name: jnp.asarray(w, jnp.float32) for name, w in weights.items()}


def _scores(critic: Critic, x: jax.Array, z: jax.Array) -> jax.Array:
    """Score all pairs of a batch by an MLP on concatenated inputs: entry [i, j] is f(x_i, z_j).

    The first layer is linear in the two sides, so it is applied to each before they are paired.
    """
    product = functools.partial(jnp.matmul, precision="highest")
    left, right = product(x, critic["left"]) + critic["first_bias"][None], product(z, critic["right"])
    h = jax.nn.relu(left[:, None] + right[None])
    h = jax.nn.relu(product(h, critic["middle"]) + critic["middle_bias"][None, None])
    return product(h, critic["out"])[..., 0]


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
        return update(optimiser, gradient, state, critic), None

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
    key: Key | int,
    objective: str = "infonce",
    noise_variance: float | None = None,
    batch: int = 64,
    steps: int = 500,
    hidden: int = 48,
    learning_rate: float = 2e-3,
    num_classes: int | None = None,
) -> Estimate:
    """Return a held-out variational bound in nats on I(T; other), or on I(X; T + noise) when other is None.

    Both sides are scaled to unit variance; the critic is an MLP on their concatenation.

    Args:
        t: activations [n, ...], float.
        other: None for the input, int labels [n], or float [n, ...].
        key: JAX random key, or a seed.
        objective: "infonce", "nwj" or "smile".
        noise_variance: variance of the noise added to t when other is None; not used otherwise.
        batch: rows of a batch.
        steps: training steps.
        hidden: width of the critic.
        learning_rate: learning rate of Adam, at the start of a cosine schedule.
        num_classes: number of classes; by default the largest label plus one.

    Returns:
        Estimate; its stderr is over held-out batches. Unreliable for its "batch size" above 0.8 ln batch (infonce) or
        ln batch (nwj, smile), which no bound from so few independent pairs exceeds with confidence; for its "training"
        where the value is below 0, that of a constant critic, by two standard errors, or they are above ln batch.

    Raises:
        InputError: for what `kde` refuses, unequal lengths, an unknown objective, missing noise, settings of the
            training that are not positive, and fewer rows than four batches.

    References:
        van den Oord et al. 2018 (InfoNCE); Nguyen, Wainwright & Jordan 2010 (NWJ); Song & Ermon 2020 (SMILE);
        McAllester & Stratos 2020 (limits of lower bounds).

    Examples:
        >>> import jax, numpy as np
        >>> t = np.random.default_rng(0).standard_normal((64, 2))
        >>> found = variational(t, noise_variance=0.1, key=jax.random.key(0), batch=16, steps=2)
        >>> bool(found.value <= np.log(16))
        True
    """
    if not isinstance(objective, str) or objective not in OBJECTIVES:
        raise InputError(f"objective is {objective!r}; choose from {', '.join(OBJECTIVES)}.")
    for name, value, least in (("batch", batch, 2), ("steps", steps, 1), ("hidden", hidden, 1)):
        checks.count(name, value, least)
    checks.positive("learning_rate", learning_rate, usual="2e-3")
    if other is None:
        x, z, classes = as_activations(t), None, 0
        check_finite(x)
    else:
        x, z, classes = as_pair(t, other, num_classes)
    n, deviation = len(x), 0.0
    variance = None if noise_variance is None else as_variance(noise_variance)
    if n < 4 * batch:
        raise InputError(f"t has {n} rows; batches of {batch} need at least {4 * batch}: give a smaller batch.")
    left, scale = _standard(x)
    if z is None:
        if variance is None:
            raise InputError("I(X;T) of a layer without noise is infinite; give a positive noise_variance.")
        right, deviation = left, math.sqrt(variance) / scale
    elif classes:
        labels, present = compact(z, classes)
        right = np.eye(present, dtype=np.float32)[labels]
    else:
        right, _ = _standard(z)
    schedule = _Schedule(objective, steps, learning_rate, noisy=other is None)
    rng = host_generator(key)
    critic = _init(rng, left.shape[1], right.shape[1], hidden)
    batches = _batches(rng, n, batch, steps)
    values = _train_and_read(checks.key(key), critic, left, right, batches, np.float32(deviation), schedule=schedule)
    values = np.asarray(values, np.float64)
    stderr = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    settings = {"batch": batch, "steps": steps, "hidden": hidden, "noise_variance": variance if other is None else None}
    kind = "value" if objective == "smile" else "lower"
    value = float(values.mean())
    limit = _limit(value, stderr or 0.0, batch, share=0.8 if objective == "infonce" else 1.0)
    return Estimate(objective, value, stderr, kind, n, settings, unreliable=limit)


def _limit(value: float, stderr: float, batch: int, *, share: float) -> Limit | None:
    """Return the limit that a value is beyond: `share` of ln batch, or 0, which a constant critic attains."""
    if value > share * math.log(batch):
        return "batch size"
    return "training" if value + 2 * stderr < 0 or stderr > math.log(batch) else None


def _standard(x: Any) -> tuple[np.ndarray, float]:
    """Centre, and divide by one number so that the mean variance of a feature is 1, in float32; a constant stays 0."""
    a = np.asarray(x, np.float64)
    largest = float(np.abs(a).max()) or 1.0
    a = a / largest  # squares of large values overflow, those of small ones underflow
    a = a - a[:1]
    a = a - a.mean(axis=0)
    scale = float(np.sqrt(np.mean(a * a)))
    return ((a / scale).astype(np.float32), scale * largest) if scale > 0 else (a.astype(np.float32), 1.0)


_DESCRIPTIONS = {
    "infonce": "variational lower bound by a trained critic, at most the logarithm of its batch",
    "nwj": "variational lower bound by a trained critic",
    "smile": "clipped variational estimate by a trained critic, no strict bound",
}
for _name, _label in OBJECTIVES.items():
    register(
        _name,
        targets=("input", "label", "continuous"),
        adds_noise=("input",),
        label=_label,
        description=_DESCRIPTIONS[_name],
        studied=False,  # trains a critic for every layer
        slow=True,
    )(functools.partial(variational, objective=_name))
