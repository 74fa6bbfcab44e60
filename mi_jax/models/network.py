"""A network as a hashable value with pure functions: variables and images in, logits and named activations out."""

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jax.typing import ArrayLike

from mi_jax import checks
from mi_jax.errors import InputError
from mi_jax.models import cost, layers
from mi_jax.models.convolution import METHODS, Method
from mi_jax.models.layers import ForwardContext, ModelSpec, NormalStream
from mi_jax.models.registry import ARCHITECTURES
from mi_jax.typing import Key, Variables

DTYPES = ("float32", "tf32", "bfloat16")
"""Compute dtypes, see `ModelSpec`; parameters, batch statistics and logits are always float32."""

Taps = OrderedDict[str, jax.Array]
"""Layer name to activation. Ordered, because JAX sorts the keys of a plain dict that crosses `jit`."""


@dataclass(frozen=True)
class Network:
    """A classifier without its variables, made by `create`, which checks the fields.

    Attributes:
        arch: name in the registry.
        num_classes: number of logits.
        input_shape: height, width, channels of an image.
        width: multiplier of every layer's width.
        dtype: compute dtype, one of `DTYPES`.
        mean: subtracted from the image, one value or one per channel.
        std: divides the centred image, one value or one per channel.
        convolution: how convolutions are computed, one of `mi_jax.models.convolution.METHODS`.
        folded: whether it takes variables made by `fold`, for evaluation mode only.
    """

    arch: str
    num_classes: int
    input_shape: tuple[int, int, int]
    width: float = 1.0
    dtype: str = "float32"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    convolution: Method = "auto"
    folded: bool = False

    def init(self, key: Key) -> Variables:
        """Draws initial variables: `{"params": ..., "batch_stats": ...}`, nested dicts of float32 arrays."""
        return _init(self, checks.key(key))

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
            InputError: images of another rank, shape or kind of dtype, variables of another network, an unknown layer,
                or perturbations that are no dict or not of the shape of the activation.
        """
        if perturbations is not None and not isinstance(perturbations, Mapping):
            raise InputError(
                f"perturbations must be a dict from names of layers to arrays, not {type(perturbations).__name__}."
            )
        added = {
            name: jnp.asarray(checks.array(value, name=f"The perturbation of {name!r}"))
            for name, value in (perturbations or {}).items()
        }
        return _apply(self, variables, self._checked(variables, x), added)

    def logits(self, variables: Variables, x: ArrayLike) -> jax.Array:
        """Only the logits, `[b num_classes]`, in evaluation mode: the `logits_fn` that attacks take.

        Raises:
            InputError: as `apply`.
        """
        return _logits(self, variables, self._checked(variables, x))

    def fold(self, variables: Variables) -> tuple["Network", Variables]:
        """The network in evaluation mode with batch normalisation folded into convolutions and weights cast.

        For many passes with the same variables, such as the steps of an attack. In float32 its logits differ by
        rounding; in bfloat16 the folded kernels are rounded, and not the kernels themselves.

        Args:
            variables: as from `init`.

        Returns:
            The folded network and its variables.

        Raises:
            InputError: variables of another network, or that are no arrays.

        Examples:
            >>> network = create("vgg11", num_classes=10, input_shape=(8, 8, 3), width=0.125)
            >>> folded, variables = network.fold(network.init(jax.random.key(0)))
            >>> sorted(variables["params"]["conv1"]), variables["batch_stats"]
            (['conv'], {})
        """
        if self.folded:
            return self, variables
        self._check_variables(variables)
        model = _merge(self, variables)
        layers.fold(model)
        return replace(self, folded=True), _split(model)[1]

    def apply_train(self, variables: Variables, x: ArrayLike, key: Key) -> tuple[jax.Array, Taps, dict[str, Any]]:
        """Training mode: statistics of the batch in batch normalisation.

        Args:
            variables: as from `init`.
            x: images in [0, 1], `[b h w c]`, floating.
            key: random key or seed for stochastic layers, if the architecture has any.

        Returns:
            Logits, taps, and the updated running statistics (momentum 0.9, unbiased variance).

        Raises:
            InputError: as `apply`, and for a folded network or an invalid key.
        """
        if self.folded:
            raise InputError("A folded network supports only evaluation mode; train the network that it was made from.")
        key = key if key is None else checks.key(key)
        return _apply_train(self, variables, self._checked(variables, x), key)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the taps, first layer to logits."""
        return tuple(self.tap_shapes)

    @property
    def tap_shapes(self) -> dict[str, tuple[int, ...]]:
        """Layer name to the shape of one image's activation."""
        return dict(_tap_shapes(self))

    @property
    def takes_perturbations(self) -> bool:
        """Whether `apply` adds perturbations to activations."""
        return True

    @property
    def parameter_count(self) -> int:
        """Number of trained parameters."""
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(_structure(self).shapes["params"]))

    @property
    def flops(self) -> int:
        """Floating-point operations of one image's forward pass in convolutions and linear layers (2 per product)."""
        counted = replace(self, convolution="lax")
        variables = _structure(self).shapes
        image = jax.ShapeDtypeStruct((1, *self.input_shape), jnp.float32)
        return cost.matmul_flops(partial(_forward, counted), variables, image)

    def _check_variables(self, variables: Variables) -> None:
        for path, leaf in jax.tree.leaves_with_path(variables):
            if not isinstance(leaf, jax.Array | np.ndarray | np.generic | int | float):
                raise InputError(
                    f"The variables do not fit this {self.arch}: at {jax.tree_util.keystr(path)} there must be an "
                    f"array, not {type(leaf).__name__}."
                )

    def _checked(self, variables: Variables, x: ArrayLike) -> jax.Array:
        """The images as a JAX array; raises InputError if they do not fit, or if variables are no arrays or numbers."""
        self._check_variables(variables)
        x = x if isinstance(x, Tracer) else jnp.asarray(checks.array(x, name="Images"))
        if x.ndim != 4 or x.shape[1:] != self.input_shape:
            wanted = ", ".join(map(str, self.input_shape))
            raise InputError(f"Images for this {self.arch} must have shape [batch, {wanted}]; got {x.shape}.")
        if not len(x):
            raise InputError(f"Images for this {self.arch} must be at least one; got shape {x.shape}.")
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise InputError(f"Images must be floating, in [0, 1], not {x.dtype}; divide 8-bit pixels by 255.")
        return x


def create(
    arch: str,
    *,
    num_classes: int | np.integer,
    input_shape: Sequence[int],
    width: float = 1.0,
    dtype: str = "float32",
    mean: float | Sequence[float] | np.ndarray = 0.0,
    std: float | Sequence[float] | np.ndarray = 1.0,
    convolution: Method = "auto",
) -> Network:
    """A network of a registered architecture.

    Args:
        arch: one of `ARCHITECTURES` or an alias.
        num_classes: number of logits, at least 2.
        input_shape: height, width, channels of an image.
        width: multiplier of every layer's width.
        dtype: compute dtype, one of `DTYPES`.
        mean: subtracted from the image, one value or one per channel.
        std: divides the centred image, one value or one per channel.
        convolution: how convolutions are computed, one of `mi_jax.models.convolution.METHODS`.

    Raises:
        InputError: an unknown name, a shape or width that leaves nothing, or a normalisation of the wrong length or not
            in pixel units of [0, 1].

    Examples:
        >>> create("vgg", num_classes=10, input_shape=(32, 32, 3)).parameter_count
        9228362
    """
    name = ARCHITECTURES.resolve(arch)
    shape = checked_shape(input_shape)
    if isinstance(num_classes, jax.Array | np.ndarray) and num_classes.ndim == 0:
        num_classes = num_classes[()].item()
    checks.count("num_classes", num_classes, 2)
    checks.positive("width", width, usual="1 or 0.25")
    checks.one_of("dtype", dtype, DTYPES)
    checks.one_of("convolution", convolution, METHODS)
    means, stds = _per_channel("mean", mean, shape[-1]), _per_channel("std", std, shape[-1])
    if min(stds) <= 0:
        raise InputError(f"Invalid std {std!r}: expected positive numbers.")
    for field, values, given in (("mean", means, mean), ("std", stds, std)):
        if max(map(abs, values)) > 1:
            raise InputError(f"Invalid {field} {given!r}: expected pixel units of [0, 1]; divide 8-bit values by 255.")
    network = Network(name, int(num_classes), shape, float(width), dtype, means, stds, convolution)
    _structure(network)
    return network


def checked_shape(input_shape: Sequence[int]) -> tuple[int, int, int]:
    """The shape of an image as a tuple; raises `InputError` unless it is three whole numbers from 1."""
    sizes: Any = input_shape if isinstance(input_shape, Sequence | np.ndarray) else ()
    shape = tuple(int(n) for n in sizes if isinstance(n, int | np.integer) and not isinstance(n, bool) and n >= 1)
    if len(shape) != 3 or len(sizes) != 3 or (shape[0] in (1, 3) and shape[1] == shape[2] > 4):
        raise InputError(f"Invalid input_shape {input_shape!r}: expected (height, width, channels), as (32, 32, 3).")
    return shape


def _per_channel(name: str, value: float | Sequence[float] | np.ndarray, count: int) -> tuple[float, ...]:
    try:
        values = tuple(np.ravel(np.asarray(value, float)).tolist())
    except (TypeError, ValueError):
        values = ()
    if values == () or np.ndim(value) > 1 or len(values) not in (1, count) or not all(map(math.isfinite, values)):
        raise InputError(f"Invalid {name} {value!r}: expected one finite number, or {count}, one per channel.")
    return values


def _build(network: Network, stream: NormalStream) -> nnx.Module:
    spec = ModelSpec(network.num_classes, network.input_shape, network.width, network.dtype, network.convolution)
    model = ARCHITECTURES[network.arch](spec, stream)
    if network.folded:
        layers.fold(model)
    return model


def _split(model: nnx.Module) -> tuple[Any, Variables]:
    graph, params, statistics = nnx.split(model, nnx.Param, nnx.BatchStat)
    return graph, {"params": _plain(params), "batch_stats": _plain(statistics)}


def _plain(state: nnx.State) -> dict[str, Any]:
    return nnx.to_pure_dict(state)


class _Structure(NamedTuple):
    graph: Any
    shapes: Variables
    numbers: int


@cache
def _structure(network: Network) -> _Structure:
    """The module's graph, the shapes of its variables and how many random numbers initialise it; draws none."""
    stream = NormalStream()
    model = nnx.eval_shape(lambda: _build(network, stream))
    return _Structure(*_split(model), stream.used)


def normalised_convolutions(network: Network) -> dict[str, str]:
    """The convolution whose outputs, and nothing else, a batch normalisation gets, by the path of the normalisation.

    >>> network = create("vgg11", num_classes=10, input_shape=(8, 8, 3))
    >>> normalised_convolutions(network)["conv1.norm"]
    'conv1.conv'
    """
    model = nnx.eval_shape(lambda: _build(network, NormalStream()))
    return {
        ".".join(map(str, (*path, name))): ".".join(map(str, (*path, child.after)))
        for path, module in nnx.iter_modules(model)
        for name, child in vars(module).items()
        if isinstance(child, layers.BatchNorm) and child.after
    }


@partial(jax.jit, static_argnums=0)
def _init(network: Network, key: Key) -> Variables:
    numbers = jax.random.normal(key, (_structure(network).numbers,))
    return _split(_build(network, NormalStream(numbers)))[1]


@cache
def _tap_shapes(network: Network) -> tuple[tuple[str, tuple[int, ...]], ...]:
    image = jax.ShapeDtypeStruct((1, *network.input_shape), jnp.float32)
    _, taps = jax.eval_shape(partial(_forward, network), _structure(network).shapes, image)
    return tuple((name, tap.shape[1:]) for name, tap in taps.items())


def _forward(
    network: Network, variables: Variables, x: jax.Array, perturbations: Mapping[str, jax.Array] | None = None
) -> tuple[jax.Array, Taps]:
    context = ForwardContext(perturbations=perturbations)
    logits = _merge(network, variables)(_normalise(network, x), context)
    context.close()
    return logits, context.taps


# Compiled for calls from the host, which would otherwise run operation by operation. Inside another transformation
# the call is inlined, and taps that are not read are dropped.
_apply = jax.jit(_forward, static_argnums=0)


@partial(jax.jit, static_argnums=0)
def _logits(network: Network, variables: Variables, x: jax.Array) -> jax.Array:
    return _forward(network, variables, x)[0]


@partial(jax.jit, static_argnums=0)
def _apply_train(
    network: Network, variables: Variables, x: jax.Array, key: Key
) -> tuple[jax.Array, Taps, dict[str, Any]]:
    model = _merge(network, variables)
    context = ForwardContext(train=True, key=key)
    logits = model(_normalise(network, x), context)
    _, statistics, _ = nnx.split(model, nnx.BatchStat, ...)
    return logits, context.taps, _plain(statistics)


def _merge(network: Network, variables: Variables) -> Any:
    graph, expected, _ = _structure(network)
    wanted = {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(expected)}
    given = {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in jax.tree.leaves_with_path(variables)}
    if given != wanted:
        path = next(path for path in [*wanted, *given] if wanted.get(path) != given.get(path))
        raise InputError(
            f"The variables do not fit this {network.arch} of width {network.width:g}: at {path} it has "
            f"{wanted.get(path, 'nothing')}, they have {given.get(path, 'nothing')}."
        )
    return nnx.merge(graph, variables["params"], variables["batch_stats"])


def _normalise(network: Network, x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    if any(network.mean):
        x = x - jnp.asarray(network.mean, jnp.float32).reshape(1, 1, 1, -1)
    if any(s != 1.0 for s in network.std):
        x = x / jnp.asarray(network.std, jnp.float32).reshape(1, 1, 1, -1)
    return x
