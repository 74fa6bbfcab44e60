"""Information through a Gaussian code, as of a variational information bottleneck, from its means and deviations."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mi_jax import checks
from mi_jax.errors import InputError
from mi_jax.typing import Key


class CodeInformation(NamedTuple):
    """I(X;Z) of Z = N(mean(X), std(X)^2), in nats.

    Attributes:
        rate: mean KL divergence from N(0, I), an upper bound on I(X;Z) (Alemi et al. 2017, eq. 14).
        rate_stderr: its standard error over the rows.
        i_tx: I(X;Z) with X uniform over the rows, by Monte Carlo; at most ln n.
        i_tx_stderr: its standard error for the same rows, of the draws; with one draw a row, also of the rows.
        saturated: whether `i_tx` exceeds 0.95 ln n.
    """

    rate: float
    rate_stderr: float
    i_tx: float
    i_tx_stderr: float
    saturated: bool


def gaussian_rate(mean: ArrayLike, std: ArrayLike) -> jax.Array:
    """KL divergence of each row's code from the standard normal, `[n]`, in nats.

    Args:
        mean: mean of the code, `[n k]`.
        std: its standard deviations, `[n k]`, positive.

    Raises:
        InputError: for shapes that differ, values that are not real and finite, or a deviation that is not positive.

    References:
        Alemi et al. (2017), eq. 14, with r(z) the standard normal.

    Examples:
        >>> gaussian_rate(jnp.array([[0.0, 0.0], [1.0, 1.0]]), jnp.ones((2, 2))).tolist()
        [0.0, 1.0]
    """
    mean, std = _code(mean, std)
    if mean.shape != std.shape or mean.ndim != 2:
        raise InputError(f"mean and std must have one shape [n, k]; got {mean.shape} and {std.shape}.")
    if checks.known(mean, std) and not (jnp.isfinite(mean).all() and jnp.isfinite(std).all() and (std > 0).all()):
        raise InputError("mean and std must be finite, and std positive.")
    return 0.5 * jnp.sum(mean**2 + std**2 - 1 - 2 * jnp.log(std), axis=-1)


def code_information(mean: Any, std: Any, *, key: Key | int, draws: int = 4) -> CodeInformation:
    """The rate of a Gaussian code and the information that it carries about its input.

    Args:
        mean: mean of the code, `[n k]`.
        std: its standard deviations, `[n k]`, positive.
        key: JAX random key of the draws, or a seed.
        draws: number of draws of each row's code.

    Raises:
        InputError: for shapes that differ, fewer than two rows, values that are not real and finite, or a deviation of
            0.

    References:
        Alemi et al. (2017); Poole et al. (2019), for the value over the rows.

    Examples:
        >>> apart = code_information([[-50.0], [50.0]], [[1.0], [1.0]], key=0)
        >>> round(apart.i_tx, 3), apart.rate, apart.saturated
        (0.693, 1250.0, True)
    """
    m, s = (part.astype(jnp.float32) for part in _code(mean, std))
    checks.count("draws", draws)
    rate = gaussian_rate(m, s)
    if len(m) < 2:
        raise InputError(f"mean and std must have at least two rows; got {len(m)}.")
    gains = np.asarray(_pointwise(m, s, jax.random.split(checks.key(key), draws)), np.float64)
    n, value = len(m), float(gains.mean())
    variance = gains.var(axis=0, ddof=1).mean() / draws if draws > 1 else gains.var(ddof=1)
    rate_error, error = float(rate.std(ddof=1)) / math.sqrt(n), math.sqrt(variance / n)
    return CodeInformation(float(rate.mean()), rate_error, value, error, value > 0.95 * math.log(n))


def _code(mean: Any, std: Any) -> tuple[jax.Array, jax.Array]:
    """Real means and deviations, in float32 or wider, as squares of small integers and of float16 overflow."""
    m, s = (jnp.asarray(checks.numbers(part, name=name)) for name, part in (("mean", mean), ("std", std)))
    m, s = (part if part.dtype == jnp.float64 else part.astype(jnp.float32) for part in (m, s))
    return m, s


@jax.jit
def _pointwise(mean: jax.Array, std: jax.Array, keys: jax.Array) -> jax.Array:
    """Log q(z | x) - log of the mean of q(z | x') over the rows, `[draws n]`."""
    scale = jnp.sum(jnp.log(std), axis=1)

    def gain(row: tuple[jax.Array, jax.Array, jax.Array, jax.Array]) -> jax.Array:
        # From differences of means, as squares of large means would leave nothing of the deviations.
        own_mean, own_std, own_scale, noise = row
        apart = (own_mean[None] - mean + (own_std * noise)[None]) / std
        densities = -0.5 * jnp.sum(apart**2, axis=1) - scale  # without the common constant
        return -0.5 * jnp.sum(noise**2) - own_scale - jax.nn.logsumexp(densities) + math.log(len(mean))

    def one(key: jax.Array) -> jax.Array:
        noise = jax.random.normal(key, mean.shape)
        return jax.lax.map(gain, (mean, std, scale, noise), batch_size=16)

    return jax.lax.map(one, keys)
