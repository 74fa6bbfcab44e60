"""A network's description and its pure functions: parameters in, logits and named activations out.

Holds no arrays and trains nothing; what the layers are is in `architectures`.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

from mi_jax.errors import InputError
from mi_jax.models import cost, registry
from mi_jax.models.convolution import METHODS, Method
from mi_jax.models.layers import ForwardContext, NormalStream
from mi_jax.typing import Key, Variables

DTYPES = ("float32", "bfloat16")
"""What a network may compute in; parameters, statistics and logits are float32 in any case."""

Taps = OrderedDict[str, jax.Array]
"""Layer name to activation. Ordered, because JAX sorts the keys of a plain dict that crosses `jit`."""


@dataclass(frozen=True)
class Network:
    """A classifier as a description; made by `create`, which checks the fields.

    Attributes:
        arch: name in the registry.
        num_classes: number of logits.
        input_shape: height, width, channels of an image.
        width: multiplier of every layer's width.
        dtype: compute dtype, `float32` or `bfloat16`.
        mean: per channel, subtracted from the image; `(0.0,)` leaves it as it is.
        std: per channel, divides the centred image; `(1.0,)` leaves it as it is.
        convolution: how convolutions are computed, see `mi_jax.models.convolution`; `auto` fits the backend.
    """

    arch: str
    num_classes: int
    input_shape: tuple[int, int, int]
    width: float = 1.0
    dtype: str = "float32"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    convolution: Method = "auto"

    def init(self, key: Key) -> Variables:
        """Draws initial variables: `{"params": nested dict, "batch_stats": nested dict, {} when there are none}`."""
        return _init(self, key)

    def apply(
        self, variables: Variables, x: ArrayLike, perturbations: Mapping[str, jax.Array] | None = None
    ) -> tuple[jax.Array, Taps]:
        """Evaluation mode: running statistics in batch normalisation.

        Args:
            variables: as from `init`.
            x: images in [0, 1], `[b h w c]`, floating.
            perturbations: layer name to an array added to that activation; the derivative with respect to a zero
                perturbation is the derivative with respect to the activation.

        Returns:
            Logits `[b num_classes]`, float32, and the taps: one activation for each of `layers`.

        Raises:
            InputError: images of another rank, shape or kind of dtype, variables of another network, or an unknown
                layer.
        """
        return _apply(self, variables, self._checked(x), dict(perturbations or {}))

    def logits(self, variables: Variables, x: ArrayLike) -> jax.Array:
        """Logits alone, `[b num_classes]` in evaluation mode: the `logits_fn` that attacks take.

        Raises:
            InputError: as `apply`.
        """
        return _logits(self, variables, self._checked(x))

    def apply_train(self, variables: Variables, x: ArrayLike, key: Key) -> tuple[jax.Array, Taps, dict[str, Any]]:
        """Training mode: statistics of the batch in batch normalisation.

        Args:
            variables: as from `init`.
            x: images in [0, 1], `[b h w c]`, floating.
            key: for stochastic layers; an architecture without any ignores it.

        Returns:
            Logits, taps, and the moved running statistics (momentum 0.9, unbiased variance).

        Raises:
            InputError: as `apply`.
        """
        return _apply_train(self, variables, self._checked(x), key)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the taps, first layer to logits."""
        return tuple(self.tap_shapes)

    @property
    def tap_shapes(self) -> dict[str, tuple[int, ...]]:
        """Layer name to the shape of one image's activation."""
        return dict(_tap_shapes(self))

    @property
    def parameter_count(self) -> int:
        """Number of trained parameters."""
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(_structure(self).shapes["params"]))

    @property
    def flops(self) -> int:
        """Floating-point operations of one image's forward pass in convolutions and dense layers, two a product."""
        counted = replace(self, convolution="lax")
        variables = _structure(self).shapes
        image = jax.ShapeDtypeStruct((1, *self.input_shape), jnp.float32)
        return cost.matmul_flops(partial(_forward, counted), variables, image)

    def _checked(self, x: ArrayLike) -> jax.Array:
        x = jnp.asarray(x)
        if x.ndim != 4 or x.shape[1:] != self.input_shape:
            wanted = ", ".join(map(str, self.input_shape))
            raise InputError(f"{self.arch} takes images of shape (batch, {wanted}), not {x.shape}.")
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise InputError(f"images must be floating, in [0, 1], not {x.dtype}; divide 8-bit pixels by 255.")
        return x


def create(
    arch: str,
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: float = 1.0,
    dtype: str = "float32",
    mean: float | tuple[float, ...] = 0.0,
    std: float | tuple[float, ...] = 1.0,
    convolution: Method = "auto",
) -> Network:
    """Describes a network.

    Args:
        arch: one of `architectures()` or an alias.
        num_classes: number of logits, at least 2.
        input_shape: height, width, channels of an image.
        width: multiplier of every layer's width.
        dtype: compute dtype, one of `DTYPES`.
        mean: subtracted from the image, one value or one a channel; the default leaves pixels in [0, 1].
        std: divides the centred image, one value or one a channel.
        convolution: one of `METHODS`.

    Raises:
        InputError: an unknown name, a shape or width that leaves nothing, or a normalisation of the wrong length.

    >>> create("vgg", num_classes=10, input_shape=(32, 32, 3)).parameter_count
    9228362
    """
    name = registry.resolve(arch)
    shape = _checked_shape(input_shape)
    if not (isinstance(num_classes, int) and num_classes >= 2):
        raise InputError(f"num_classes must be a whole number of at least 2, not {num_classes!r}.")
    if not (math.isfinite(width) and width > 0):
        raise InputError(f"width must be a positive number such as 1 or 0.25, not {width!r}.")
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}; choose from {', '.join(DTYPES)}.")
    if convolution not in METHODS:
        raise InputError(f"unknown convolution method {convolution!r}; choose from {', '.join(METHODS)}.")
    means, stds = _per_channel("mean", mean, shape[-1]), _per_channel("std", std, shape[-1])
    if min(stds) <= 0:
        raise InputError(f"std must be positive, not {std!r}.")
    network = Network(name, num_classes, shape, float(width), dtype, means, stds, convolution)
    _structure(network)
    return network


def _checked_shape(input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    shape = tuple(input_shape)
    if len(shape) != 3 or not all(isinstance(n, int) and n >= 1 for n in shape):
        raise InputError(f"input_shape must be (height, width, channels), such as (32, 32, 3), not {input_shape!r}.")
    return shape


def _per_channel(name: str, value: float | tuple[float, ...], count: int) -> tuple[float, ...]:
    values = tuple(float(v) for v in (value if isinstance(value, tuple | list) else (value,)))
    if len(values) not in (1, count) or not all(map(math.isfinite, values)):
        raise InputError(f"{name} must be one finite number or {count}, one a channel, not {value!r}.")
    return values


def _build(network: Network, draws: NormalStream) -> nnx.Module:
    description = registry.ModelSpec(network.num_classes, network.input_shape, network.width)
    return registry.build(network.arch, description, draws)


def _split(model: nnx.Module) -> tuple[Any, Variables]:
    graph, params, statistics = nnx.split(model, nnx.Param, nnx.BatchStat)
    return graph, {"params": _plain(params), "batch_stats": _plain(statistics)}


def _plain(state: nnx.State) -> dict[str, Any]:
    return nnx.to_pure_dict(state)


class _Structure(NamedTuple):
    graph: Any
    shapes: Variables
    draws: int


@cache
def _structure(network: Network) -> _Structure:
    """The module's graph, the shapes of its variables and the count of its random numbers, without drawing any."""
    draws = NormalStream()
    model = nnx.eval_shape(lambda: _build(network, draws))
    return _Structure(*_split(model), draws.used)


@partial(jax.jit, static_argnums=0)
def _init(network: Network, key: Key) -> Variables:
    numbers = jax.random.normal(key, (_structure(network).draws,))
    return _split(_build(network, NormalStream(numbers)))[1]


@cache
def _tap_shapes(network: Network) -> tuple[tuple[str, tuple[int, ...]], ...]:
    image = jax.ShapeDtypeStruct((1, *network.input_shape), jnp.float32)
    _, taps = jax.eval_shape(partial(_forward, network), _structure(network).shapes, image)
    return tuple((name, tap.shape[1:]) for name, tap in taps.items())


def _forward(
    network: Network, variables: Variables, x: jax.Array, perturbations: Mapping[str, jax.Array] | None = None
) -> tuple[jax.Array, Taps]:
    run = ForwardContext(dtype=jnp.dtype(network.dtype), method=network.convolution, perturbations=perturbations)
    logits = _merge(network, variables)(_normalise(network, x), run)
    run.close()
    return logits, run.taps


# Compiled for calls from the host, which would otherwise compile every operation by itself; inside another
# transformation the call is traced once and inlined, and taps that nobody reads are dropped.
_apply = jax.jit(_forward, static_argnums=0)


@partial(jax.jit, static_argnums=0)
def _logits(network: Network, variables: Variables, x: jax.Array) -> jax.Array:
    return _forward(network, variables, x)[0]


@partial(jax.jit, static_argnums=0)
def _apply_train(
    network: Network, variables: Variables, x: jax.Array, key: Key
) -> tuple[jax.Array, Taps, dict[str, Any]]:
    model = _merge(network, variables)
    run = ForwardContext(train=True, dtype=jnp.dtype(network.dtype), method=network.convolution, key=key)
    logits = model(_normalise(network, x), run)
    _, statistics, _ = nnx.split(model, nnx.BatchStat, ...)
    return logits, run.taps, _plain(statistics)


def _merge(network: Network, variables: Variables) -> Any:
    graph, expected, _ = _structure(network)
    wanted = {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(expected)}
    given = {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in jax.tree.leaves_with_path(variables)}
    if given != wanted:
        path = next(path for path in [*wanted, *given] if wanted.get(path) != given.get(path))
        raise InputError(
            f"these are not variables of this {network.arch} of width {network.width:g}: at {path} it has "
            f"{wanted.get(path, 'nothing')}, they have {given.get(path, 'nothing')}."
        )
    return nnx.merge(graph, variables["params"], variables["batch_stats"])


def _normalise(network: Network, x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    if any(network.mean):
        x = x - jnp.asarray(network.mean, jnp.float32)
    if any(s != 1.0 for s in network.std):
        x = x / jnp.asarray(network.std, jnp.float32)
    return x
