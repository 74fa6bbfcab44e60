"""Information of wide layers from a denoiser, by the relation of information and minimum mean square error.

One network, conditioned on the noise level, gives the information at every noise level up to the smallest. It learns
what a linear denoiser, whose part is known in closed form, leaves over; both are fitted and scored on different rows.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax

from mi_jax import checks
from mi_jax.errors import InputError
from mi_jax.information._input import as_activations, as_pair, as_variances, check_finite, compact
from mi_jax.information.estimator import Estimate, Limit, host_generator, register
from mi_jax.optax_update import update
from mi_jax.typing import Key

_LINEAR_BELOW = -4.0
"""Log of the signal-to-noise ratio, along the widest direction, below which only the linear denoiser is used."""
_LEVELS = 48
"""Quadrature points over the log signal-to-noise ratio."""
_ROUNDS, _VALIDATION_NOISES = 10, 4
"""How often the network is scored in each half of its training, and on how many noises per row."""
_PENALTIES = np.logspace(-1, 5, 13)
"""Penalties of the regression on the condition to choose from, for each feature by itself."""
_CONTINUOUS_NOISE = 1e-3
"""Noise variance for a continuous variable, relative to the mean variance of a feature."""
_LARGEST_SNR = 1e18
"""Signal-to-noise ratio above which the float32 of the network leaves no digits of the noise: values are nonsense."""
_NEAR_ENTROPY = 0.9
"""Share of the entropy of the labels above which training may have left the network at the linear denoiser."""
_MOST_LEFT = 0.1
"""Share of the value that may be open before it is reported as unreliable."""
Value = float | np.ndarray


@dataclasses.dataclass(frozen=True)
class Denoiser:
    """Values in nats of the population; every `Value` has a leading axis when `noise_variance` was an array."""

    i_tx: Value
    """I(X; T + noise); an upper bound in expectation, as no denoiser has a smaller error than the best one."""
    i_tx_stderr: Value
    """Standard error over the held-out rows, combined in quadrature with an allowance for unfinished training: see
    `denoiser`."""
    i_other: Value | None
    """I(T + noise; other), the difference of two such bounds; None without `other`."""
    i_other_stderr: Value | None
    """The same for the difference."""
    generalisation_gap: Value
    """By how much the values on held-out rows exceed those on fitted rows, beyond two standard errors; at least 0."""
    unreliable: bool | np.ndarray
    """Whether a tenth of i_other, of i_tx without `other`, is exceeded by that gap, as where rows are too few for the
    width of the layer, or by what training has left open; and where i_other is above nine tenths of H(labels)."""
    noise_variance: Value
    n: int
    """Number of rows: half of them fit the network, a quarter decide when to stop (early stopping), a quarter give the
    values."""


class _Schedule(NamedTuple):
    """Static settings of the compiled training."""

    steps: int
    batch: int
    learning_rate: float


class _Network(nnx.Module):
    """Multilayer perceptron of a noisy row of unit variance, the log signal-to-noise ratio, and a condition."""

    def __init__(self, width: int, condition: int, hidden: int, rng: np.random.Generator):
        rngs, zeros = nnx.Rngs(0), nnx.initializers.zeros
        self.first = nnx.Linear(width + condition + 6, hidden, kernel_init=zeros, rngs=rngs)
        self.middle = nnx.Linear(hidden, hidden, kernel_init=zeros, rngs=rngs)
        self.last = nnx.Linear(hidden, width, kernel_init=zeros, rngs=rngs)
        for layer in (self.first, self.middle):  # drawn on the host, as in `variational`
            shape = layer.kernel.shape
            layer.kernel[...] = jnp.asarray(rng.standard_normal(shape) * math.sqrt(2 / shape[0]), jnp.float32)

    def __call__(self, x: jax.Array, level: jax.Array, condition: jax.Array) -> jax.Array:
        phase = level[:, None] * jnp.array([[0.2, 0.5, 1.0]])
        h = nnx.silu(self.first(jnp.concatenate([x, jnp.sin(phase), jnp.cos(phase), condition], axis=1)))
        return self.last(h + nnx.silu(self.middle(h)))


def _residuals(
    graph: Any, parameters: Any, spectrum: jax.Array, a: jax.Array, condition: jax.Array, level: jax.Array, g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the errors of the linear denoiser and of the network at noise g, times the root of the snr, [rows, d].

    The linear denoiser is the best one of independent normals of variances `spectrum`; `level` [rows] is the log snr.
    """
    snr, spectrum = jnp.exp(level)[:, None], spectrum[None]
    gain = 1 / (1 + spectrum * snr)
    noisy = a + g / jnp.sqrt(snr)
    linear = jnp.sqrt(snr) * (a - spectrum * snr * gain * noisy)
    step = nnx.merge(graph, parameters)(noisy * jnp.sqrt(snr * gain), level, condition)
    return linear, linear - jnp.sqrt(spectrum * snr * gain) * step


@functools.partial(jax.jit, static_argnames=("graph", "schedule", "fitted"))
def _fit(
    key: jax.Array, parameters: Any, spectrum: jax.Array, a: jax.Array, condition: jax.Array, ends: jax.Array, *,
    graph: Any, schedule: _Schedule, fitted: int,
) -> Any:  # fmt: skip
    """Train on the first `fitted` rows of a [n, d]; return what denoises the others best, of all and half the training.

    The log snr is uniform between the ends, so that the loss is the integral itself. The parameters before any step,
    with which the linear denoiser is left as it is, are among those to choose from.
    """
    optimiser = optax.adam(optax.cosine_decay_schedule(schedule.learning_rate, schedule.steps))

    def loss(parameters: Any, rows: jax.Array, key: jax.Array) -> jax.Array:
        level_key, noise_key = jax.random.split(key)
        level = ends[0] + (ends[1] - ends[0]) * jax.random.uniform(level_key, rows.shape)
        g = jax.random.normal(noise_key, (len(rows), a.shape[1]))
        _, off = _residuals(graph, parameters, spectrum, a[rows], condition[rows], level, g)
        return jnp.mean(jnp.sum(off**2, axis=1))

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        parameters, state = carry
        row_key, loss_key = jax.random.split(key)
        rows = jax.random.randint(row_key, (schedule.batch,), 0, fitted)
        gradient = jax.grad(loss)(parameters, rows, loss_key)
        return update(optimiser, gradient, state, parameters), None

    others, fixed = jnp.tile(jnp.arange(fitted, len(a)), _VALIDATION_NOISES), jax.random.key(0)

    def round_of_steps(carry: Any, keys: jax.Array) -> tuple[Any, None]:
        state, best, least = carry
        state, _ = lax.scan(step, state, keys)
        reached = loss(state[0], others, fixed)
        best = jax.tree.map(lambda new, old: jnp.where(reached < least, new, old), state[0], best)
        return (state, best, jnp.minimum(least, reached)), None

    def half(carry: Any, keys: jax.Array) -> tuple[Any, Any]:
        carry, _ = lax.scan(round_of_steps, carry, keys)
        return carry, carry[1]

    keys = jax.random.split(key, (2, _ROUNDS, -(-schedule.steps // (2 * _ROUNDS))))
    start = (parameters, optimiser.init(parameters)), parameters, loss(parameters, others, fixed)
    halves = lax.scan(half, start, keys)[1]
    first, whole = (jax.tree.map(lambda leaf, i=i: leaf[i], halves) for i in (0, 1))
    return whole, first


@functools.partial(jax.jit, static_argnames="graph")
def _improvement(
    key: jax.Array, parameters: Any, spectrum: jax.Array, a: jax.Array, condition: jax.Array, levels: jax.Array, *,
    graph: Any,
) -> jax.Array:  # fmt: skip
    """Return snr times the squared error that the network takes off the linear denoiser's, [levels, rows]."""

    def at(item: tuple[jax.Array, jax.Array]) -> jax.Array:
        key, level = item
        g, level = jax.random.normal(key, a.shape), jnp.full(len(a), level)
        both = [_residuals(graph, parameters, spectrum, a, condition, level, sign * g) for sign in (1, -1)]
        return jnp.stack([0.5 * jnp.sum(linear**2 - off**2, axis=1) for linear, off in both]).sum(axis=0)

    return lax.map(at, (jax.random.split(key, len(levels)), levels))


def _information(
    key: jax.Array, x: np.ndarray, condition: np.ndarray, fitted: int, snr: np.ndarray, hidden: int, schedule: _Schedule
) -> np.ndarray:
    """Return for each snr and row an unbiased term of the bound on I(X; X + noise | condition), nats [2, s, n].

    The first is of the trained network, the second of the one that had half of the training.

    The first `fitted` rows of x fit the linear denoiser given the condition, and two thirds of them the network.
    """
    from sklearn.covariance import ledoit_wolf  # slow to import, and the bounds do without
    from sklearn.linear_model import RidgeCV

    if condition.shape[1]:
        regression = RidgeCV(_PENALTIES, alpha_per_target=True).fit(condition[:fitted], x[:fitted])
        x = x - regression.predict(condition).reshape(x.shape)
    spectrum, basis = np.linalg.eigh(np.atleast_2d(ledoit_wolf(x[:fitted])[0]))
    spectrum = np.maximum(spectrum, 1e-9)
    a = (x - x[:fitted].mean(axis=0)) @ basis
    top = np.log(snr.max())
    low = min(_LINEAR_BELOW - math.log(spectrum.max()), top)
    wanted = np.maximum(np.log(snr), low)
    levels = np.sort(np.concatenate([np.linspace(low, top, _LEVELS), wanted]))
    rng = host_generator(key)
    graph, parameters = nnx.split(_Network(a.shape[1], condition.shape[1], hidden, rng))
    arrays = [jnp.asarray(v, jnp.float32) for v in (spectrum, a, condition)]
    fit_key, noise_key = jax.random.split(key)
    seen = [arrays[0], *(v[:fitted] for v in arrays[1:])]
    ends = jnp.array([low, top], jnp.float32)
    both = _fit(fit_key, parameters, *seen, ends, graph=graph, schedule=schedule, fitted=fitted - fitted // 3)
    grid, at = jnp.asarray(levels, jnp.float32), np.searchsorted(levels, wanted)
    gains = np.stack([np.asarray(_improvement(noise_key, p, *arrays, grid, graph=graph), np.float64) for p in both])
    steps = np.diff(levels)[:, None] * (gains[:, 1:] + gains[:, :-1]) / 2
    integral = np.concatenate([np.zeros_like(gains[:, :1]), np.cumsum(steps, axis=1)], axis=1)
    known = [
        0.5 * (np.log1p(spectrum * s).sum() + ((a**2 - spectrum) * (s / (1 + spectrum * s))).sum(axis=1)) for s in snr
    ]
    return np.stack(known) - 0.5 * integral[:, at]


def denoiser(
    t: Any,
    other: Any = None,
    *,
    noise_variance: Any,
    key: Key | int,
    num_classes: int | None = None,
    steps: int | None = None,
    batch: int = 128,
    hidden: int = 128,
    learning_rate: float = 5e-3,
) -> Denoiser:
    """Return I(X; T + noise), and I(T + noise; other), of the population in nats by training a denoiser.

    I(X; T) at signal-to-noise ratio r is half the integral of the minimum mean square error from 0 to r. A network that
    denoises held-out rows bounds that error from above; I(T; other) is the difference of a network without and one with
    `other` as a further input.

    The standard errors add to the error over held-out rows the amount by which the value on fitted rows is below, as
    rows are learned by heart, and that by which the second half of the training moved it. They do not see a network
    that training left at the linear denoiser, as happens at small noise: I(X; T) is then that of a Gaussian with the
    same covariance, still an upper bound, and I(T; other) may be too large. With labels, a value above nine tenths of
    their entropy, which it may even exceed for that reason, is therefore unreliable.

    Args:
        t: activations [n, ...], float.
        other: None, int labels [n], or float [n, ...].
        noise_variance: one number, or an array of s numbers that share one network.
        key: JAX random key, or a seed.
        num_classes: number of classes; by default the largest label plus one.
        steps: training steps; by default one per row, at least 100 and at most 1,000.
        batch: rows of a training step.
        hidden: width of the network.
        learning_rate: learning rate of Adam, at the start of a cosine schedule.

    Raises:
        InputError: for what `kde` refuses, unequal lengths, settings of the training that are not positive, and fewer
            than 16 rows.

    References:
        Guo, Shamai & Verdu 2005, eq. 1; Ledoit & Wolf 2004 (covariance); Franzese et al. 2024 (differences of scores).

    Examples:
        >>> import numpy as np
        >>> t = np.random.default_rng(0).standard_normal((400, 2))
        >>> found = denoiser(t, noise_variance=[1.0, 4.0], key=0, steps=2)
        >>> np.abs(found.i_tx - np.log1p([1, 1 / 4])).max() < 0.15
        np.True_
    """
    if other is None:
        x, z, classes = as_activations(t), None, 0
        check_finite(x)
    else:
        x, z, classes = as_pair(t, other, num_classes)
    n = len(x)
    if n < 16:
        raise InputError(f"t has {n} rows; a denoiser needs at least 16 to fit and to score it.")
    for name, number in (("steps", 1 if steps is None else steps), ("batch", batch), ("hidden", hidden)):
        checks.count(name, number)
    checks.positive("learning_rate", learning_rate, usual="5e-3")
    key, (variances, scalar) = checks.key(key), as_variances(noise_variance)
    condition = np.zeros((n, 0)) if z is None else _condition(z, classes)
    order = _order(np.concatenate([x, condition], axis=1), key)
    x, condition = np.asarray(x, np.float64)[order], condition[order]
    x = x - x[:1]
    scale = float(np.sqrt(x.var(axis=0).mean())) or 1.0
    fitted, schedule = n - n // 4, _Schedule(min(max(n, 100), 1000) if steps is None else steps, batch, learning_rate)
    solve = functools.partial(_information, key, x / scale, fitted=fitted, snr=scale**2 / variances, hidden=hidden)
    rows = solve(condition=np.zeros((n, 0)), schedule=schedule)
    value, error, left, gap = _summary(rows, fitted)
    fields: dict[str, Any] = {"i_tx": value, "i_tx_stderr": np.hypot(error, left)}
    near_entropy = np.zeros(len(variances), bool)
    fields |= {"i_other": None, "i_other_stderr": None}
    if z is not None:
        given = solve(condition=condition, schedule=schedule)
        _, _, more_left, more_gap = _summary(given, fitted)
        value, error, _, _ = _summary(rows - given, fitted)
        gap, left = gap + more_gap, left + more_left
        fields |= {"i_other": value, "i_other_stderr": np.hypot(error, left)}
        if classes:
            p = np.unique(np.asarray(z), return_counts=True)[1] / n
            near_entropy = value > -_NEAR_ENTROPY * np.sum(p * np.log(p))
    fields |= {
        "generalisation_gap": gap,
        "unreliable": ~(np.maximum(gap, left) <= _MOST_LEFT * value)
        | (scale**2 / variances > _LARGEST_SNR)
        | near_entropy,
        "noise_variance": variances,
    }
    if scalar:
        fields = {name: None if v is None else v[0].item() for name, v in fields.items()}
    return Denoiser(**fields, n=n)


def _order(rows: np.ndarray, key: jax.Array) -> np.ndarray:
    """Return a random order of the rows that does not depend on the order in which they are given."""
    rank = np.argsort(rows @ np.random.default_rng(0).standard_normal(rows.shape[1]))
    return rank[host_generator(key).permutation(len(rows))]


def _condition(other: Any, classes: int) -> np.ndarray:
    """Return labels as indicators, or a continuous variable with features of unit variance, [n, k]."""
    if classes:
        labels, present = compact(other, classes)
        return np.eye(present)[labels]
    z = np.asarray(other, np.float64)
    deviation = z.std(axis=0)
    return (z - z.mean(axis=0)) / np.where(deviation > 0, deviation, 1)


def _summary(rows: np.ndarray, fitted: int) -> tuple[np.ndarray, ...]:
    """Summarise terms [2, s, n] of the whole and of half the training, each as [s].

    Returns:
        mean and standard error over the held-out rows; how far the mean of the fitted rows is below plus how far half
        the training is above; and the first of these distances beyond two of its standard errors; all at least 0.
    """
    seen, held_out = rows[0, :, :fitted], rows[0, :, fitted:]
    errors = [part.std(axis=1, ddof=1) / math.sqrt(part.shape[1]) for part in (seen, held_out)]
    value = held_out.mean(axis=1)
    distance, moved = value - seen.mean(axis=1), rows[1, :, fitted:].mean(axis=1) - value
    left = np.maximum(distance, 0) + np.abs(moved)
    return value, errors[1], left, np.maximum(distance - 2 * np.hypot(*errors), 0)


@register(
    "denoiser",
    targets=("input", "label", "continuous"),
    adds_noise=("input", "label"),
    description="difference of denoising errors with and without the label",
    studied=False,  # trains two networks for every layer
    slow=True,
)
def _value(
    t: Any,
    other: Any = None,
    *,
    key: jax.Array,
    noise_variance: float | None = None,
    steps: int | None = None,
    **options: Any,
) -> Estimate:
    """The registered form of one noise level; a continuous variable has noise so small that it changes little."""
    if noise_variance is None:
        features = np.asarray(as_activations(t), np.float64)
        noise_variance = _CONTINUOUS_NOISE * float((features - features[:1]).var(axis=0).mean()) or 1.0
    options |= {"noise_variance": noise_variance, "steps": steps}
    found = denoiser(t, other, key=key, **options)
    value, error = (found.i_tx, found.i_tx_stderr) if other is None else (found.i_other, found.i_other_stderr)
    assert value is not None
    assert error is not None
    few = found.generalisation_gap > _MOST_LEFT * value
    limit: Limit | None = ("sample size" if few else "training") if found.unreliable else None
    details = {"generalisation_gap": float(found.generalisation_gap)}
    kind = "upper" if other is None else "value"
    return Estimate("denoiser", float(value), float(error), kind, found.n, options, details, limit)
