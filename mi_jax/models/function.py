"""Networks from outside this package: any function of variables and images, such as a model of Flax or Equinox."""

import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from mi_jax import checks
from mi_jax.errors import InputError
from mi_jax.models import cost
from mi_jax.models.network import Network, Taps, checked_shape
from mi_jax.typing import Key, Variables


@dataclass(frozen=True, eq=False, repr=False)
class FunctionNetwork(Network):
    """A classifier given as a function; made by `from_function`. It can be measured, but not trained.

    Attributes:
        function: `function(variables, images)` as given.
        structure: structure of the given variables.
        leaves: the given leaves; those that are arrays are the variables of this network.
    """

    function: Callable[..., Any] = lambda variables, x: x
    structure: Any = None
    leaves: tuple[Any, ...] = ()

    def init(self, key: Key) -> Variables:
        """Random variables: the given arrays, each with its entries permuted."""
        key = checks.key(key)
        permuted = [
            jax.random.permutation(jax.random.fold_in(key, i), jnp.ravel(leaf)).reshape(leaf.shape)
            for i, leaf in enumerate(self._arrays)
        ]
        return {"params": permuted, "batch_stats": {}}

    def apply(
        self, variables: Variables, x: ArrayLike, perturbations: Mapping[str, jax.Array] | None = None
    ) -> tuple[jax.Array, Taps]:
        """Logits `[b num_classes]` and the activations that the function gives, see `Network.apply`.

        Raises:
            InputError: images of another shape or kind of dtype, or perturbations, which the function does not take.
        """
        if perturbations:
            raise InputError(f"{self.arch} does not support perturbations of layers, since it is a function of images.")
        return _apply(self, variables, self._checked(variables, x))

    def logits(self, variables: Variables, x: ArrayLike) -> jax.Array:
        """Only the logits, `[b num_classes]`: the `logits_fn` that attacks take."""
        return _logits(self, variables, self._checked(variables, x))

    def apply_train(self, variables: Variables, x: ArrayLike, key: Key) -> NoReturn:
        """Raises InputError: the function has no training mode."""
        raise InputError(f"{self.arch} is a function of images and cannot be trained; register an architecture.")

    def fold(self, variables: Variables) -> tuple["FunctionNetwork", Variables]:
        """The network and its variables as they are: a function has no batch normalisation that could be folded."""
        return self, variables

    @property
    def tap_shapes(self) -> dict[str, tuple[int, ...]]:
        """Layer name to the shape of one image's activation."""
        images = jax.ShapeDtypeStruct((2, *self.input_shape), jnp.float32)
        _, taps = jax.eval_shape(partial(_forward, self), self._given, images)
        return {name: tap.shape[1:] for name, tap in taps.items()}

    @property
    def flops(self) -> int:
        """Floating-point operations of one image in convolutions and matrix products (2 per product).

        The body of a loop counts once.
        """
        image = jax.ShapeDtypeStruct((1, *self.input_shape), jnp.float32)
        return cost.matmul_flops(partial(_forward, self), self._given, image)

    @property
    def parameter_count(self) -> int:
        """Number of floating-point values among the variables."""
        return sum(leaf.size for leaf in self._arrays if _is_floating(leaf))

    @property
    def takes_perturbations(self) -> bool:
        """False: there is no derivative with respect to an activation."""
        return False

    @property
    def _arrays(self) -> list[Any]:
        return [leaf for leaf in self.leaves if _is_array(leaf)]

    @property
    def _given(self) -> Variables:
        return {"params": self._arrays, "batch_stats": {}}


def from_function(
    function: Any, variables: Any, *, input_shape: Sequence[int], name: str = "own network"
) -> tuple[FunctionNetwork, Variables]:
    """A network and its variables from a function of any framework that JAX can differentiate.

    Args:
        function: `function(variables, images)`, or an object with such an `apply`. It gets images `[b h w c]` in [0, 1]
            and returns logits `[b k]`, or logits and activations: a dict, nested if need be, of arrays `[b ...]` by
            name, first layer first (Flax's captured intermediates are one). JAX sorts the keys of a dict that crosses
            `jit`: of a function made by `jax.jit` the one inside is taken, and a compiled function that is called
            within another must return an `OrderedDict`.
        variables: the first argument of the function: any pytree, such as a dict of arrays or a model of Flax NNX or
            Equinox. Leaves that are no arrays stay as they are.
        input_shape: height, width, channels of an image.
        name: name of the network, for messages.

    Returns:
        The network, and the variables that its `apply` and `logits` take. The layers are the activations, and `logits`.

    Raises:
        InputError: when the function fails on such images, or returns anything else.

    Examples:
        >>> weights = np.ones((4, 3), np.float32)
        >>> network, variables = from_function(
        ...     lambda w, x: (x.reshape(len(x), -1) @ w, {"pixels": x}), weights, input_shape=(2, 2, 1)
        ... )
        >>> network.tap_shapes, network.logits(variables, np.ones((1, 2, 2, 1), np.float32)).tolist()
        ({'pixels': (2, 2, 1), 'logits': (3,)}, [[4.0, 4.0, 4.0]])
    """
    apply = _without_jit(getattr(function, "apply", function))
    if not callable(apply):
        raise InputError(f"{name} must be a function or have a method apply; got {type(function).__name__}.")
    shape = checked_shape(input_shape)
    leaves, structure = jax.tree.flatten(variables)
    network = FunctionNetwork(name, 2, shape, function=apply, structure=structure, leaves=tuple(leaves))
    own: Variables = {"params": [jnp.asarray(leaf) for leaf in leaves if _is_array(leaf)], "batch_stats": {}}
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    try:
        logits, _ = jax.eval_shape(partial(_forward, network), own, images)
    except InputError:
        raise
    except Exception as error:  # whatever a function of somebody else raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(f"{name} fails on images of shape {[2, *shape]}: {reason}.") from error
    return replace(network, num_classes=logits.shape[1]), own


def _without_jit(function: Any) -> Any:
    """The function, or method, inside one made by `jax.jit`."""
    inner = getattr(function, "__wrapped__", None)
    if inner is None or not isinstance(function, jax.stages.Wrapped):
        return function
    return _without_jit(partial(inner, function.__self__) if inspect.ismethod(function) else inner)


def _forward(network: FunctionNetwork, variables: Variables, x: jax.Array) -> tuple[jax.Array, Taps]:
    params = variables.get("params") if isinstance(variables, dict) else None
    if not isinstance(params, list) or len(params) != sum(map(_is_array, network.leaves)):
        raise InputError(f"The variables are not those of {network.arch}: pass those that came with it.")
    arrays = iter(params)
    leaves = [next(arrays) if _is_array(leaf) else leaf for leaf in network.leaves]
    found: Any = network.function(jax.tree.unflatten(network.structure, leaves), x.astype(jnp.float32))
    pair: tuple[Any, Any] = found if isinstance(found, tuple) and len(found) == 2 else (found, {})
    logits, given = pair
    checks.logits_shape(logits, len(x))
    taps = OrderedDict(_flat(given, ()))
    taps.pop("logits", None)
    for name, tap in taps.items():
        if not hasattr(tap, "dtype") or not _is_floating(tap) or tap.ndim == 0 or len(tap) != len(x):
            raise InputError(f"The activation {name!r} must be a floating array with one row per image.")
    logits = logits.astype(jnp.float32)
    taps["logits"] = logits
    return logits, taps


_apply = jax.jit(_forward, static_argnums=0)


@partial(jax.jit, static_argnums=0)
def _logits(network: FunctionNetwork, variables: Variables, x: jax.Array) -> jax.Array:
    return _forward(network, variables, x)[0]


_NO_NAMES = ("intermediates", "__call__")
"""Keys of Flax's captured intermediates that name no layer."""


def _flat(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """The activations of a nested dict by their dotted names, in its order; the output of the network has none."""
    tree = nnx.to_pure_dict(tree) if isinstance(tree, nnx.State) else tree
    if isinstance(tree, tuple | list):
        tree = tree[0] if len(tree) == 1 else dict(enumerate(tree))
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _flat(value, path if key in _NO_NAMES else (*path, str(key)))
    elif path:
        yield ".".join(path), tree


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray)


def _is_floating(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jnp.floating))
