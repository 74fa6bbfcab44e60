"""The parametrised layers that every architecture is built from, and the record of one forward pass.

Knows nothing of architectures; master weights and batch statistics are float32, whatever the compute dtype.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from mi_jax.errors import InputError
from mi_jax.models import convolution

BATCH_NORM_MOMENTUM = 0.9
"""Share of the old running statistics that a training step keeps (PyTorch's 0.1)."""
BATCH_NORM_EPSILON = 1e-5


class NormalStream:
    """Standard normal numbers, dealt out in order from one draw for the initial weights of a whole network.

    XLA's CPU compiler needs a second for each generator it meets, so VGG-11 drawn layer by layer took ten seconds to
    initialise, all of it compilation.

    Attributes:
        used: how many numbers have been dealt.
    """

    def __init__(self, numbers: jax.Array | None = None):
        """Deals from a flat array of `numbers`, or zeros without end where only shapes are wanted."""
        self._numbers = numbers
        self.used = 0

    def normal(self, shape: tuple[int, ...], std: float) -> jax.Array:
        """The next numbers in the shape asked for, scaled to the standard deviation."""
        start, self.used = self.used, self.used + math.prod(shape)
        if self._numbers is None:
            return jnp.zeros(shape, jnp.float32)
        return std * self._numbers[start : self.used].reshape(shape)


class ForwardContext:
    """One forward pass: its mode, its dtype, its randomness, and the taps it leaves.

    Attributes:
        train: batch statistics (true) or running statistics (false) in batch normalisation.
        dtype: what convolutions and dense layers compute in.
        method: how convolutions are computed, see `convolution.METHODS`.
        key: the key of a stochastic layer; None in evaluation mode.
        taps: name to activation, in the order of the layers.
    """

    def __init__(
        self,
        *,
        train: bool = False,
        dtype: jax.typing.DTypeLike = jnp.float32,
        method: convolution.Method = "auto",
        key: jax.Array | None = None,
        perturbations: Mapping[str, jax.Array] | None = None,
    ):
        self.train, self.dtype, self.key = train, dtype, key
        self.method: convolution.Method = method
        self.taps: OrderedDict[str, jax.Array] = OrderedDict()
        self._perturbations = dict(perturbations or {})

    def tap(self, name: str, x: jax.Array) -> jax.Array:
        """Records an activation under its name and returns it, plus the perturbation asked for there if any."""
        if name in self._perturbations:
            x = x + self._perturbations.pop(name).astype(x.dtype)
        self.taps[name] = x
        return x

    def close(self) -> None:
        """Raises InputError if a perturbation names no tap."""
        if self._perturbations:
            raise InputError(f"no layer {next(iter(self._perturbations))!r}; choose from {', '.join(self.taps)}.")


def channels(base: int, width: float) -> int:
    """The width of a layer: `base` times the multiplier, rounded. Raises InputError where nothing is left."""
    scaled = int(base * width + 0.5)
    if scaled < 1:
        raise InputError(f"width {width:g} leaves no channel of a layer of {base}; use at least {0.5 / base:g}.")
    return scaled


class Conv(nnx.Module):
    """Square convolution with explicit zero padding, `[b h w c] -> [b h' w' features]`.

    Initial kernels are normal with variance 2 / fan-out (He et al. 2015).
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        size: int,
        draws: NormalStream,
        *,
        stride: int = 1,
        padding: int | None = None,
        bias: bool = False,
    ):
        self.stride, self.padding = stride, size // 2 if padding is None else padding
        std = math.sqrt(2 / (size * size * features))
        self.kernel = nnx.Param(draws.normal((size, size, in_features, features), std))
        self.bias = nnx.Param(jnp.zeros((features,), jnp.float32)) if bias else None

    def __call__(self, x: jax.Array, run: ForwardContext) -> jax.Array:
        """Convolves in the pass's dtype."""
        kernel = self.kernel[...].astype(run.dtype)
        y = convolution.conv2d(x.astype(run.dtype), kernel, stride=self.stride, padding=self.padding, method=run.method)
        return y if self.bias is None else y + self.bias[...].astype(run.dtype)


class Dense(nnx.Module):
    """Affine map of the last axis, `[b c] -> [b features]`. Initial kernels: normal, variance `gain` / fan-in."""

    def __init__(self, in_features: int, features: int, draws: NormalStream, *, gain: float = 2.0):
        self.kernel = nnx.Param(draws.normal((in_features, features), math.sqrt(gain / in_features)))
        self.bias = nnx.Param(jnp.zeros((features,), jnp.float32))

    def __call__(self, x: jax.Array, run: ForwardContext) -> jax.Array:
        """Multiplies in the pass's dtype."""
        return x.astype(run.dtype) @ self.kernel[...].astype(run.dtype) + self.bias[...].astype(run.dtype)


class Head(Dense):
    """The dense layer that gives the logits: always computed in float32, tapped as `logits`."""

    def __init__(self, in_features: int, num_classes: int, draws: NormalStream):
        super().__init__(in_features, num_classes, draws, gain=1.0)

    def __call__(self, x: jax.Array, run: ForwardContext) -> jax.Array:
        """`[b c] -> [b num_classes]`, float32."""
        return run.tap("logits", x.astype(jnp.float32) @ self.kernel[...] + self.bias[...])


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last (Ioffe and Szegedy 2015), statistics in float32.

    The running variance is updated with the unbiased estimate, as in PyTorch (Flax's own layer takes the biased one:
    a third too small for a batch of 4 on a 1 x 1 map).
    """

    def __init__(self, features: int):
        self.scale = nnx.Param(jnp.ones((features,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((features,), jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros((features,), jnp.float32))
        self.var = nnx.BatchStat(jnp.ones((features,), jnp.float32))

    def __call__(self, x: jax.Array, run: ForwardContext) -> jax.Array:
        """Normalises, and in training mode moves the running statistics."""
        mean, var = self._update(x) if run.train else (self.mean[...], self.var[...])
        factor = self.scale[...] * jax.lax.rsqrt(var + BATCH_NORM_EPSILON)
        return (x.astype(jnp.float32) * factor + (self.bias[...] - mean * factor)).astype(run.dtype)

    def _update(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        axes = tuple(range(x.ndim - 1))
        count = x.size // x.shape[-1]
        x = x.astype(jnp.float32)
        mean = x.mean(axes)
        var = jnp.square(x - mean).mean(axes)
        kept, new = BATCH_NORM_MOMENTUM, 1 - BATCH_NORM_MOMENTUM
        self.mean[...] = kept * self.mean[...] + new * mean
        self.var[...] = kept * self.var[...] + new * var * (count / max(count - 1, 1))
        return mean, var
