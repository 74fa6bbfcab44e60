"""Input validation for attacks: batches, targets, radii and steps, and the model as a function that JAX can compile.

Shapes and dtypes are checked on tracers too; values only where they are known, so a compiled caller pays nothing.
"""

import functools
import hashlib
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax import checks
from mi_jax.errors import InputError
from mi_jax.typing import Images, Key, Labels, Logits

MAX_OBJECTS = 10_000
"""Limit on the objects that are searched for the arrays that a model closes over."""
MAX_STEP = 3
"""Longest step in L2 and L1, in radii: one step of the usual 2.5 eps / steps is allowed."""
LIBRARIES = ("builtins", "equinox", "flax", "functools", "jax", "jaxlib", "mi_jax", "numpy", "optax", "scipy")
"""Packages whose functions are not searched."""


def check_batch(x: Any, y: Any, *, on_host: bool = False) -> tuple[Any, Any]:
    """Images [b h w c] in [0, 1], float32 or float64, and int32 labels [b], as JAX arrays, or NumPy with `on_host`.

    Raises:
        InputError: as `checks.images` and `checks.labels`, and for images of half precision.
    """
    images = checks.images(x, on_host=on_host)
    if images.dtype not in (jnp.float32, jnp.float64):
        raise InputError(f"Images must be float32 or float64 for an attack, not {images.dtype}; cast with astype.")
    labels = checks.labels(y, len(images))
    return images, np.asarray(labels) if on_host else labels


def check_variables(variables: Any) -> None:
    """Raises `InputError` for PyTorch tensors, which a compiled attack cannot take."""
    if any(hasattr(leaf, "detach") for leaf in jax.tree.leaves(variables)):
        raise InputError("variables hold PyTorch tensors; import the network with mi_jax.models.from_torch.")


def check_targets(targets: Any, labels: Labels) -> Labels:
    """Target classes [b] as int32.

    Raises:
        InputError: as `checks.labels`, and for targets equal to the label.
    """
    targets = checks.labels(targets, len(labels), name="Targets")
    if checks.known(targets, labels) and (same := int(np.sum(np.asarray(targets) == np.asarray(labels)))):
        raise InputError(
            f"{same} of {len(labels)} targets equal the label; a targeted attack needs another class for each image."
        )
    return targets


class Model:
    """A model `logits_fn(variables, x)` as a hashable function, equal to another if both close over the same arrays.

    Compiled attacks are cached by model. When the closure, globals or attributes of a function hold other arrays or
    functions than at the last call, it is another model and is compiled again, so that no attack uses stale weights.

    Raises:
        InputError: for anything but a function of JAX arrays.
    """

    def __init__(self, logits_fn: Any):
        checks.model(logits_fn)
        try:
            hash(logits_fn)
        except TypeError:
            raise InputError(
                f"logits_fn of type {type(logits_fn).__name__} is not hashable, so it cannot be compiled once; "
                "wrap it in a function."
            ) from None
        self.logits_fn = logits_fn
        self._arrays = [(leaf, _digest(leaf)) for leaf in _closed_over(logits_fn)]
        self._function = _by_value(logits_fn)
        self._hash = hash((self._function, tuple(_identity(leaf, digest) for leaf, digest in self._arrays)))

    def __hash__(self):
        return self._hash

    def __eq__(self, other: object):
        return (
            isinstance(other, Model)
            and self._function == other._function
            and len(self._arrays) == len(other._arrays)
            and all(_identity(*a) == _identity(*b) for a, b in zip(self._arrays, other._arrays, strict=True))
        )

    def __call__(self, *arguments: Any) -> Any:
        """The logits, or `InputError` where JAX cannot trace the function."""
        return checks.traced(self.logits_fn, *arguments)

    @property
    def arrays(self) -> list[Any]:
        """The arrays that the function closes over."""
        return [leaf for leaf, _ in self._arrays if isinstance(leaf, jax.Array | np.ndarray)]


def _by_value(function: Any) -> Any:
    """A method as its function and its object, which may equal another object, as methods of two objects do not."""
    if isinstance(function, types.MethodType):
        try:
            hash(function.__self__)
        except TypeError:
            return function
        return function.__func__, function.__self__
    return function


def _identity(leaf: Any, digest: bytes) -> tuple[Any, Any]:
    """What identifies a leaf: type and value of a number, the object itself and its digest of all else."""
    return (type(leaf), leaf) if isinstance(leaf, int | float) else (id(leaf), digest)


def _digest(leaf: Any) -> bytes:
    """A digest of an array that can change in place; empty for JAX arrays, which cannot."""
    return hashlib.blake2b(leaf.tobytes()).digest() if isinstance(leaf, np.ndarray) else b""


def _closed_over(function: Any) -> Iterator[Any]:
    """What a function computes with: the arrays, numbers and functions that it reaches.

    It reaches them by its closure, defaults, globals, bound object and attributes, and the functions defined in it.
    """
    seen: set[int] = set()
    pending = [function]
    while pending and len(seen) < MAX_OBJECTS:
        value = pending.pop()
        if isinstance(value, jax.Array | np.ndarray | np.generic | int | float):
            yield value
        elif id(value) not in seen and not isinstance(value, type | types.ModuleType | str | bytes):
            seen.add(id(value))
            if isinstance(value, types.FunctionType):
                yield value.__code__
            elif callable(value) and not isinstance(value, types.MethodType | functools.partial):
                yield value
            if value is function or not _is_library(value):
                pending.extend(_parts(value))


def _is_library(value: Any) -> bool:
    """Whether a function is one of a library, which does not hold the weights."""
    plain = isinstance(value, types.FunctionType | types.BuiltinFunctionType) or hasattr(value, "__wrapped__")
    return plain and (getattr(value, "__module__", None) or "").partition(".")[0] in LIBRARIES


def _global_names(code: types.CodeType) -> Iterator[str]:
    """The names that a function, and those defined in it, look up in globals and modules."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, types.FunctionType):
        cells = []
        for cell in value.__closure__ or ():
            try:
                cells.append(cell.cell_contents)
            except ValueError:  # the name has no value yet
                continue
        names = set(_global_names(value.__code__))
        named = [value.__globals__[name] for name in sorted(names & value.__globals__.keys())]
        for module in [v for v in named if isinstance(v, types.ModuleType)]:
            if module.__name__.partition(".")[0] not in LIBRARIES:
                named += [vars(module)[name] for name in sorted(names & vars(module).keys())]
        return [*cells, *named, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return [part for part in value if not isinstance(part, int | float)]  # numbers in lists are logs, not weights
    wrapped = [value.__wrapped__] if hasattr(value, "__wrapped__") else []
    slots = [name for kind in type(value).__mro__ for name in kind.__dict__.get("__slots__", ()) if name != "__dict__"]
    held = [getattr(value, name) for name in slots if isinstance(name, str) and hasattr(value, name)]
    return [*wrapped, *held, *getattr(value, "__dict__", {}).values()]


def accepts(logits_fn: Callable[..., Any], count: int) -> bool:
    """Whether the function can be called with `count` positional arguments; true if its signature is unknown."""
    try:
        inspect.signature(logits_fn).bind(*range(count))
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def logits_of(logits_fn: Callable[..., Any], variables: Any, images: Images, key: Key | None = None) -> Logits:
    """Logits [b k] of the model in the precision of the images; a random model gets the key as its third argument.

    Raises:
        InputError: where the output has another shape.
    """
    logits = logits_fn(variables, images) if key is None else logits_fn(variables, images, key)
    checks.logits_shape(logits, len(images))
    # Float64 weights would otherwise promote the gradients and steps of float32 images.
    return jnp.asarray(logits).astype(np.promote_types(images.dtype, jnp.float32))


def check_distance(name: str, value: Any, norm: str, *, positive: bool = False, per_image: bool = False) -> None:
    """Checks a radius or a step in pixel units of [0, 1], which may be traced.

    Args:
        name: name of the argument, for the message.
        value: one number, or with `per_image` also an array [b].
        norm: `linf`, `l2` or `l1`.
        positive: refuse 0.
        per_image: allow one number per image.

    Raises:
        InputError: for another shape, a number that is negative or not finite, and in Linf one above 1.
    """
    usual = _usual(name, norm)
    try:
        dims = None if isinstance(value, str) else np.ndim(value)
    except ValueError:  # a ragged list
        dims = None
    if dims != 0 and not (per_image and dims in (1, 4)):
        got = repr(value) if dims is None else f"of shape {np.shape(value)}"
        number = "one number" + (", or one per image," if per_image else "")
        raise InputError(f"Invalid {name} {got}: expected {number} in pixel units of [0, 1], such as {usual}.")
    if not checks.known(value):
        return
    for each in [value] if isinstance(value, int | float) else np.unique(np.asarray(value)):
        each = each.item() if isinstance(each, np.generic) else each
        if positive:
            checks.positive(name, each, usual=usual)
        if norm == "linf":
            checks.between(name, each, 0, 1, usual=usual)
        else:
            checks.at_least(name, each, 0, usual=usual)


def _usual(name: str, norm: str) -> str:
    """A usual radius or step in messages."""
    return {"l2": "0.5", "l1": "12"}.get(norm, "2/255" if name == "step_size" else "8/255")


def check_distances(name: str, value: Any, norm: str, count: int, *, positive: bool = False) -> None:
    """`check_distance` of one number, or of one per image, of which there must be `count`."""
    check_distance(name, value, norm, positive=positive, per_image=True)
    if np.ndim(value) and np.shape(value) != (count,):
        given = f"{len(value)} values" if np.ndim(value) == 1 else f"shape {np.shape(value)}"
        raise InputError(f"{name} has {given} for {count} images; give one number, or one per image.")


def check_step(step_size: Any, eps: Any, norm: str) -> None:
    """Raises `InputError` for a step of 0, or in L2 or L1 of more than `MAX_STEP` radii.

    Only the direction of a longer one counts. In Linf, where every step beyond the diameter of the ball is the same,
    any is accepted; and any, 0 too, for eps = 0.
    """
    if not checks.known(step_size, eps):
        return
    steps, radii = np.broadcast_arrays(np.ravel(np.asarray(step_size, float)), np.ravel(np.asarray(eps, float)))
    if ((radii > 0) & (steps == 0)).any():
        checks.positive("step_size", 0.0, usual=_usual("step_size", norm))
    if norm == "linf":
        return
    if (long := (radii > 0) & (steps > MAX_STEP * radii * (1 + 1e-5))).any():
        step, radius = steps[long][0], radii[long][0]
        raise InputError(
            f"Invalid step_size {step:g}: it is {step / radius:.3g} times the radius {radius:g}; take at most "
            f"{MAX_STEP} radii, such as a quarter of one, in pixel units of [0, 1]."
        )


def check_unmasked(logits: Any, loss: str, least: int) -> None:
    """Raises `InputError` where a logit of -inf masks so many classes of an image that a DLR loss is constant."""
    if least > 2 and checks.known(logits):
        left = int((np.asarray(logits) > -np.inf).sum(axis=1).min())
        if left < least:
            raise InputError(
                f"The loss {loss!r} needs at least {least} classes that no logit of -inf masks, but an image has "
                f"{left}; use the loss 'ce' or 'cw', in AutoAttack version=['apgd-ce', 'fab', 'square']."
            )


def check_reach(name: str, value: Any, reach: float) -> None:
    """Raises `InputError` for a radius or step longer than the largest distance between two images."""
    if checks.known(value) and np.max(np.asarray(value)) > reach * (1 + 1e-5):
        raise InputError(
            f"Invalid {name} {float(np.max(np.asarray(value))):g}: images in [0, 1] of this shape are at most "
            f"{reach:.4g} apart; give it in pixel units of [0, 1], not in 255ths."
        )
