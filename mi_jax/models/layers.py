"""The layers of every architecture: `flax.nnx` layers with our initialisation, and the state of one forward pass.

Parameters and batch statistics are float32, whatever the compute dtype.
"""

import functools
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from mi_jax.errors import InputError
from mi_jax.models.convolution import Method, conv2d

BATCH_NORM_MOMENTUM = 0.9
"""Share of the old running statistics that a training step keeps (PyTorch's 0.1)."""
BATCH_NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class ModelSpec:
    """What an architecture is built from.

    Attributes:
        num_classes: number of logits.
        input_shape: height, width and channels of an image.
        width: multiplier of every layer's width, see `channels`.
        dtype: what convolutions and linear layers compute in: `float32`, `bfloat16`, or `tf32`, which is float32 whose
            products an accelerator may round as its matrix units do (TF32 on a GPU, bfloat16 on a TPU).
        convolution: how convolutions are computed, see `convolution.METHODS`.
    """

    num_classes: int
    input_shape: tuple[int, int, int]
    width: float = 1.0
    dtype: str = "float32"
    convolution: Method = "auto"

    @property
    def compute_dtype(self) -> Any:
        """The dtype of activations."""
        return jnp.dtype("float32" if self.dtype == "tf32" else self.dtype)

    @property
    def precision(self) -> lax.Precision:
        """The precision of convolutions and matrix products: float32 means float32 on every platform."""
        return lax.Precision.HIGHEST if self.dtype == "float32" else lax.Precision.DEFAULT

    def channels(self, base: int) -> int:
        """The width of a layer: `base` times the multiplier, rounded.

        Raises:
            InputError: when no channel is left, or there are more than a device can count.
        """
        scaled = base * self.width + 0.5
        if scaled < 1:
            raise InputError(
                f"Invalid width {self.width:g}: it leaves no channel of a layer of {base}; use at least {0.5 / base:g}."
            )
        if scaled >= 2**31:
            raise InputError(f"Invalid width {self.width:g}: a layer of {base} would have {scaled:.3g} channels.")
        return int(scaled)


class NormalStream:
    """Standard normal numbers for the initial weights of a whole network, taken in order from one draw.

    XLA's CPU compiler needs a second for each random generator in a program: VGG-11 initialised from one key per layer,
    as `nnx.Rngs` would give, took ten seconds, all of it compilation.

    Attributes:
        used: how many numbers have been taken.
    """

    def __init__(self, numbers: jax.Array | None = None):
        """Takes from a flat array of `numbers`; without one every number is 0, which is enough for shapes."""
        self._numbers = numbers
        self.used = 0

    def normal(self, shape: tuple[int, ...], std: float) -> jax.Array:
        """The next numbers in the given shape, with standard deviation `std`."""
        start, self.used = self.used, self.used + math.prod(shape)
        if self._numbers is None:
            return jnp.zeros(shape, jnp.float32)
        return std * self._numbers[start : self.used].reshape(shape)

    def initializer(self, std: float) -> Callable[..., jax.Array]:
        """An initialiser for `flax.nnx` layers, whose key argument is ignored."""
        return lambda key, shape, dtype=jnp.float32, **_: self.normal(shape, std).astype(dtype)


class ForwardContext:
    """One forward pass: its mode, its random key, and the activations recorded so far.

    Attributes:
        train: whether batch normalisation uses the statistics of the batch instead of the running ones.
        key: for stochastic layers; None in evaluation mode.
        taps: layer name to activation, in the order of the layers.
    """

    def __init__(
        self,
        *,
        train: bool = False,
        key: jax.Array | None = None,
        perturbations: Mapping[str, jax.Array] | None = None,
    ):
        self.train, self.key = train, key
        self.taps: OrderedDict[str, jax.Array] = OrderedDict()
        self._perturbations = dict(perturbations or {})

    def tap(self, name: str, x: jax.Array) -> jax.Array:
        """Records an activation under its name and returns it, plus the perturbation given for it if any.

        Raises:
            InputError: if that has another shape.
        """
        if name in self._perturbations:
            perturbation = self._perturbations.pop(name)
            if perturbation.shape != x.shape:
                raise InputError(f"The perturbation of {name!r} must have shape {x.shape}; got {perturbation.shape}.")
            x = x + perturbation.astype(x.dtype)
        self.taps[name] = x
        return x

    def close(self) -> None:
        """Raises InputError if a perturbation names no tap."""
        if self._perturbations:
            raise InputError(
                f"There is no layer {next(iter(self._perturbations))!r}; choose from {', '.join(self.taps)}."
            )


class Conv(nnx.Conv):
    """`nnx.Conv` with a square kernel and PyTorch's padding, computed by `convolution.conv2d`.

    Initial kernels are normal with variance 2 / fan-out (He et al. 2015).
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        size: int,
        spec: ModelSpec,
        stream: NormalStream,
        *,
        stride: int = 1,
        padding: int | None = None,
        bias: bool = False,
    ):
        super().__init__(
            in_features,
            features,
            (size, size),
            stride,
            padding=size // 2 if padding is None else padding,
            use_bias=bias,
            dtype=spec.compute_dtype,
            precision=spec.precision,
            kernel_init=stream.initializer(math.sqrt(2 / (size * size * features))),
            conv_general_dilated=functools.partial(_convolve, method=spec.convolution),
            rngs=nnx.Rngs(0),
        )


def _convolve(
    x: jax.Array, kernel: jax.Array, strides: Any, padding: Any, *, method: Any, precision: Any, **_: Any
) -> jax.Array:
    """`convolution.conv2d` behind the interface of `lax.conv_general_dilated`, as far as `Conv` uses it."""
    return conv2d(x, kernel, stride=strides[0], padding=padding[0][0], method=method, precision=precision)


class Linear(nnx.Linear):
    """`nnx.Linear` with normal initial kernels of variance `gain` / fan-in."""

    def __init__(self, in_features: int, features: int, spec: ModelSpec, stream: NormalStream, *, gain: float = 2.0):
        super().__init__(
            in_features,
            features,
            dtype=spec.compute_dtype,
            precision=spec.precision,
            kernel_init=stream.initializer(math.sqrt(gain / in_features)),
            rngs=nnx.Rngs(0),
        )


class Head(nnx.Linear):
    """The linear layer that gives the logits: always computed in float32, tapped as `logits`."""

    def __init__(self, in_features: int, spec: ModelSpec, stream: NormalStream):
        super().__init__(
            in_features,
            spec.num_classes,
            dtype=jnp.float32,
            precision=lax.Precision.HIGHEST,
            kernel_init=stream.initializer(math.sqrt(1 / in_features)),
            rngs=nnx.Rngs(0),
        )

    def __call__(self, x: jax.Array, context: ForwardContext) -> jax.Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """`[b c] -> [b num_classes]`, float32."""
        return context.tap("logits", super().__call__(x))


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last (Ioffe and Szegedy 2015), statistics in float32.

    Not `nnx.BatchNorm`, whose running variance is the biased estimate: 1 - 1/n of PyTorch's, n the positions in a batch
    (a quarter too small for a batch of 4 on a 1 x 1 map), so that networks trained here and there would differ.
    """

    def __init__(self, features: int, spec: ModelSpec, *, after: str | None = None):
        """`after` names the convolution of the same module whose outputs, and nothing else, this normalises."""
        self.dtype, self.after, self.folded = spec.compute_dtype, after, False
        self.scale = nnx.Param(jnp.ones((features,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((features,), jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros((features,), jnp.float32))
        self.var = nnx.BatchStat(jnp.ones((features,), jnp.float32))

    def __call__(self, x: jax.Array, context: ForwardContext) -> jax.Array:
        """Normalises; in training mode also updates the running statistics."""
        if self.folded and self.after:
            return x
        if self.folded:
            line = self.scale[...], self.bias[...]
        else:
            line = self._line(*self._update(x)) if context.train else self._line(self.mean[...], self.var[...])
        factor, shift = (v.reshape(*(1,) * (x.ndim - 1), -1) for v in line)
        return (x.astype(jnp.float32) * factor + shift).astype(self.dtype)

    def fold(self, convolution: "Conv | None") -> None:
        """Fixes evaluation mode: merges each channel's affine map into the preceding convolution, if there is one."""
        factor, shift = self._line(self.mean[...], self.var[...])
        self.folded = True
        del self.mean, self.var
        if convolution is None:
            self.scale[...], self.bias[...] = factor, shift
            return
        del self.scale, self.bias
        if convolution.bias is not None:
            shift = shift + convolution.bias[...] * factor
        kernel = convolution.kernel[...] * factor[None, None, None]
        convolution.kernel, convolution.bias = nnx.Param(kernel), nnx.Param(shift)
        convolution.use_bias = True

    def _line(self, mean: jax.Array, var: jax.Array) -> tuple[jax.Array, jax.Array]:
        factor = self.scale[...] * lax.rsqrt(var + BATCH_NORM_EPSILON)
        return factor, self.bias[...] - mean * factor

    def _update(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        axes = tuple(range(x.ndim - 1))
        count = x.size // x.shape[-1]
        # Both moments in one pass over x, about the running mean so that little cancels.
        about = lax.stop_gradient(self.mean[...])
        x = x.astype(jnp.float32) - about.reshape(*(1,) * (x.ndim - 1), -1)
        offset = x.mean(axes)
        mean, var = about + offset, jnp.maximum(jnp.square(x).mean(axes) - jnp.square(offset), 0)
        kept, new = BATCH_NORM_MOMENTUM, 1 - BATCH_NORM_MOMENTUM
        self.mean[...] = kept * self.mean[...] + new * mean
        self.var[...] = kept * self.var[...] + new * var * (count / max(count - 1, 1))
        return mean, var


def fold(model: nnx.Module) -> None:
    """Does once what evaluation would do in every pass: folds batch normalisation, and casts weights.

    References:
        Jacob et al. 2018, section 3.2 (batch normalisation folded into the convolution before).
    """
    modules = [module for _, module in nnx.iter_modules(model)]
    for module in modules:
        for child in list(vars(module).values()):
            if isinstance(child, BatchNorm):
                child.fold(getattr(module, child.after) if child.after else None)
    for module in modules:
        if isinstance(module, Conv | Linear):
            module.kernel = nnx.Param(module.kernel[...].astype(module.dtype))
            if module.bias is not None:
                module.bias = nnx.Param(module.bias[...].astype(module.dtype))


@jax.custom_jvp
def relu(x: jax.Array) -> jax.Array:
    """max(x, 0), with a gradient that reads the output, which the next layer keeps anyway, and not the input."""
    return jnp.maximum(x, 0)


@relu.defjvp
def _relu_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    y = relu(*primals)
    # Not y > 0, which XLA turns into x > 0: the input would be kept, too.
    return y, jnp.where(y != 0, tangents[0], 0)
