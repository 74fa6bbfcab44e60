"""Input validation for attacks: images, labels, models, outputs and radii that would make an attack meaningless.

Shapes and dtypes are checked on tracers too; values only where they are known, so a compiled caller pays nothing.
"""

import functools
import hashlib
import inspect
import math
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from mi_jax.errors import InputError
from mi_jax.typing import Images, Key, Labels, Logits

ROUNDING = 1e-6
"""By as much may an image leave [0, 1]: rounding of a normalisation and its inverse. It is clipped."""
MAX_OBJECTS = 10_000
"""Objects that are searched for the arrays that a model closes over."""


def known(*arrays: Any) -> bool:
    """True where every array holds values, false inside a transformation."""
    return not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(arrays))


def as_array(name: str, value: Any) -> Any:
    """A JAX or NumPy array as it is, a torch tensor as a NumPy array. Raises `InputError` for anything else."""
    if isinstance(value, jax.Array | np.ndarray):
        return value
    if hasattr(value, "detach"):
        return value.detach().cpu().numpy()
    raise InputError(f"{name} must be an array, not {type(value).__name__}; convert them with np.asarray.")


def check_batch(x: Any, y: Any) -> tuple[Images, Labels]:
    """Images [b h w c] float in [0, 1] and labels [b] as int32, as JAX arrays. Raises `InputError`."""
    x, y = as_array("Images", x), as_array("Labels", y)
    if x.ndim != 4:
        raise InputError(f"Images must have shape [b, h, w, c]; got {tuple(x.shape)}.")
    if x.dtype not in (jnp.float32, jnp.float64):
        advice = "divide uint8 images by 255" if jnp.issubdtype(x.dtype, jnp.integer) else "cast them with astype"
        raise InputError(f"Images must be float32 (or float64) in [0, 1], not {x.dtype}; {advice}.")
    if x.shape[1] in (1, 3) and x.shape[2] == x.shape[3] > 4:
        raise InputError(
            f"Images must have shape [b, h, w, c]; {tuple(x.shape)} looks like [b, c, h, w]: transpose them with "
            "x.transpose(0, 2, 3, 1)."
        )
    if not jnp.issubdtype(y.dtype, jnp.integer) or y.shape != x.shape[:1]:
        raise InputError(
            f"Labels must be integers of shape [{x.shape[0]}], one per image; got {y.dtype} of shape {tuple(y.shape)}."
        )
    if 0 in x.shape:
        raise InputError(f"There is nothing to attack in images of shape {tuple(x.shape)}; give at least one pixel.")
    if known(x):
        low, high = float(np.min(x)), float(np.max(x))
        if not (low >= -ROUNDING and high <= 1 + ROUNDING):
            advice = "map [-1, 1] to [0, 1] by (x + 1) / 2 and " if -1 <= low < 0 and high <= 1 else ""
            raise InputError(
                f"Images must lie in [0, 1]; they range from {low:g} to {high:g}: {advice}normalise inside the model."
            )
        if low < 0 or high > 1:
            x = jnp.clip(x, 0, 1)
    return jnp.asarray(x), jnp.asarray(y, jnp.int32)


def check_targets(targets: Any, labels: Labels) -> Labels:
    """Target classes [b] as int32. Raises `InputError` for other shapes and for targets equal to the label."""
    targets = as_array("Targets", targets)
    if not jnp.issubdtype(targets.dtype, jnp.integer) or targets.shape != labels.shape:
        raise InputError(
            f"Targets must be integers of shape [{labels.shape[0]}], one per image; got {targets.dtype} of shape "
            f"{tuple(targets.shape)}."
        )
    if known(targets, labels) and (same := int(np.sum(np.asarray(targets) == np.asarray(labels)))):
        raise InputError(
            f"{same} of {len(labels)} targets equal the label; a targeted attack needs another class for each image."
        )
    return jnp.asarray(targets, jnp.int32)


class Model:
    """A model `logits_fn(variables, x)` as a hashable function, equal to another if both close over the same arrays.

    Compiled attacks are cached by model. A function whose closure, globals or attributes hold other arrays than at the
    last call is another model, so it is compiled again and not attacked with stale weights.

    Raises:
        InputError: for what is no function of JAX arrays.
    """

    def __init__(self, logits_fn: Any):
        if not callable(logits_fn):
            raise InputError(f"logits_fn must be a function (variables, x) -> logits, not {type(logits_fn).__name__}.")
        root = type(logits_fn).__module__.split(".")[0]
        if any(base.__module__.startswith("torch.") for base in type(logits_fn).__mro__):
            raise InputError(
                "logits_fn is a torch module, which JAX cannot differentiate; convert it with mi_jax.models.from_torch."
            )
        if root != "builtins" and hasattr(logits_fn, "apply") and not inspect.isroutine(logits_fn):
            raise InputError(
                f"logits_fn is a {type(logits_fn).__name__}; give its method `apply`, a function (variables, x) -> "
                "logits."
            )
        try:
            hash(logits_fn)
        except TypeError:
            raise InputError(
                f"logits_fn of type {type(logits_fn).__name__} is not hashable, so it cannot be compiled once; "
                "wrap it in a function."
            ) from None
        self.logits_fn = logits_fn
        self._arrays = [(leaf, _digest(leaf)) for leaf in _closed_over(logits_fn)]
        self._hash = hash((logits_fn, tuple((id(leaf), digest) for leaf, digest in self._arrays)))

    def __hash__(self):
        return self._hash

    def __eq__(self, other: object):
        return (
            isinstance(other, Model)
            and self.logits_fn == other.logits_fn
            and len(self._arrays) == len(other._arrays)
            and all(a is b and m == n for (a, m), (b, n) in zip(self._arrays, other._arrays, strict=True))
        )

    def __call__(self, *arguments: Any) -> Any:
        """The logits, or `InputError` where JAX cannot trace the function."""
        try:
            return self.logits_fn(*arguments)
        except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError) as error:
            raise InputError(
                "logits_fn cannot be compiled and differentiated by JAX, since it turns its input into NumPy or Python "
                f"values ({type(error).__name__}); write it with jax.numpy."
            ) from None


def _digest(leaf: Any) -> bytes:
    """The contents of what may change in place; JAX arrays may not."""
    return hashlib.blake2b(leaf.tobytes()).digest() if isinstance(leaf, np.ndarray) else b""


def _closed_over(function: Any) -> Iterator[Any]:
    """The arrays and numbers that a function reaches by its closure, defaults, globals, bound object or attributes."""
    seen: set[int] = set()
    pending = [function]
    while pending and len(seen) < MAX_OBJECTS:
        value = pending.pop()
        if isinstance(value, jax.Array | np.ndarray | np.generic | int | float):
            yield value
        elif id(value) not in seen and not isinstance(value, type | types.ModuleType | str | bytes):
            seen.add(id(value))
            pending.extend(_parts(value))


def _parts(value: Any) -> list[Any]:
    if isinstance(value, types.FunctionType):
        cells = []
        for cell in value.__closure__ or ():
            try:
                cells.append(cell.cell_contents)
            except ValueError:  # a name that has no value yet
                continue
        named = [value.__globals__[name] for name in value.__code__.co_names if name in value.__globals__]
        # Functions of other modules are libraries, which do not hold the weights.
        own = [v for v in named if not callable(v) or getattr(v, "__module__", None) == value.__module__]
        return [*cells, *own, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return [part for part in value if not isinstance(part, int | float)]  # numbers in lists are logs, not weights
    wrapped = [value.__wrapped__] if hasattr(value, "__wrapped__") else []
    return [*wrapped, *getattr(value, "__dict__", {}).values()]


def accepts(logits_fn: Callable[..., Any], count: int) -> bool:
    """Whether the function can be called with so many positional arguments; true where its signature is hidden."""
    try:
        inspect.signature(logits_fn).bind(*range(count))
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def logits_of(logits_fn: Callable[..., Any], variables: Any, images: Images, key: Key | None = None) -> Logits:
    """Logits [b k] of the model in the precision of the images; a random model gets the key as its third argument.

    Raises `InputError` where the output is no [b k] array.
    """
    logits = logits_fn(variables, images) if key is None else logits_fn(variables, images, key)
    if not hasattr(logits, "ndim") or logits.ndim != 2 or logits.shape[0] != images.shape[0]:
        got = f"shape {tuple(logits.shape)}" if hasattr(logits, "shape") else f"a {type(logits).__name__}"
        raise InputError(f"logits_fn must return logits of shape [{images.shape[0]}, classes]; it returned {got}.")
    if logits.shape[1] < 2:
        raise InputError("logits_fn returned a single column; an attack needs at least 2 classes.")
    # Float64 weights would otherwise promote the gradients and steps of float32 images.
    return jnp.asarray(logits).astype(jnp.promote_types(images.dtype, jnp.float32))


def check_logits(logits: Logits, labels: Labels) -> None:
    """Raises `InputError` for NaN or +inf, probabilities, and labels out of range, where values are known.

    Probabilities make the losses flat, and labels beyond the last class make them wrong.
    """
    if not known(logits, labels):
        return
    values, classes = np.asarray(logits), np.asarray(labels)
    for what, bad in (("NaN", np.isnan(values)), ("infinite", np.isposinf(values))):
        if count := np.count_nonzero(bad.any(axis=1)):
            raise InputError(
                f"The model gives {what} logits for {count} of {len(values)} images; an attack needs numbers."
            )
    check_class_indices("Labels", classes, values.shape[1])
    if looks_like_probabilities(values):
        raise InputError(
            "logits_fn returns probabilities (rows in [0, 1] that sum to 1), which hide gradients; return the logits."
        )


def check_class_indices(name: str, classes: Any, count: int) -> None:
    """Raises `InputError` for labels or targets that are no class of the model, where values are known."""
    if known(classes) and (np.min(classes) < 0 or np.max(classes) >= count):
        raise InputError(
            f"{name} must lie in 0..{count - 1}, the model's classes; "
            f"they range from {np.min(classes)} to {np.max(classes)}."
        )


def looks_like_probabilities(logits: np.ndarray) -> bool:
    """True where every row lies in [0, 1] and sums to one, up to the rounding of bfloat16."""
    return bool(logits.min() >= 0 and logits.max() <= 1 and np.abs(logits.sum(axis=1) - 1).max() < 2e-2)


def check_eps(eps: Any, norm: str, *, positive: bool = False) -> None:
    """Raises `InputError` for an eps that is negative, not finite, an array, or wider than the range of a pixel."""
    check_number("eps", eps)
    if not known(eps):
        return
    if not (math.isfinite(eps) and eps >= 0):
        raise InputError(f"eps must be a finite number >= 0 in pixel units of [0, 1]; got {eps!r}.")
    if norm == "linf" and eps > 1:
        raise InputError(f"eps must be at most 1 for linf, since pixels lie in [0, 1]; got {eps!r} (8/255 is usual).")
    if positive and eps == 0:
        raise InputError("eps must be positive for this attack; with eps = 0 evaluate the clean images instead.")


def check_number(name: str, value: Any) -> None:
    """Raises `InputError` for what is no single number; a traced or vmapped one is."""
    if isinstance(value, str) or np.ndim(value) != 0:
        raise InputError(f"{name} must be one number in pixel units of [0, 1], such as 8/255; got {value!r}.")


def check_step(step_size: Any, norm: str, *, positive: bool = False) -> None:
    """Raises `InputError` for a step that is negative, not finite, or in Linf longer than the range of a pixel."""
    check_number("step_size", step_size)
    if not known(step_size):
        return
    if not (math.isfinite(step_size) and step_size >= 0) or (positive and step_size == 0):
        raise InputError(
            f"step_size must be a finite{', positive' * positive} number in pixel units of [0, 1]; got {step_size!r}."
        )
    if norm == "linf" and step_size > 1:
        raise InputError(
            f"step_size must be at most 1 for linf, since pixels lie in [0, 1]; got {step_size!r} (2/255 is usual)."
        )


def check_reach(name: str, value: Any, reach: float) -> None:
    """Raises `InputError` for a radius or step longer than the largest distance between two images."""
    if known(value) and value > reach * (1 + 1e-5):
        raise InputError(
            f"{name} is {float(value):g}, but images in [0, 1] of this shape are at most {reach:.4g} apart; "
            "give it in pixel units of [0, 1], not in 255ths."
        )


def as_key(key: Any) -> Key:
    """A random key, from a key or an integer seed. Raises `InputError` for anything else."""
    if key is None:
        raise InputError("This attack draws random numbers and needs a key; give key=jax.random.key(0).")
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        return jax.random.key(int(key))
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and shape == ()
    raw = dtype == jnp.uint32 and shape is not None and len(shape) == 1
    if isinstance(key, bool) or not (typed or raw):
        raise InputError(f"key must be a JAX random key or an integer seed, such as jax.random.key(0); got {key!r}.")
    return key


def check_count(name: str, value: int, least: int) -> None:
    """Raises `InputError` for a count that is no integer or is too small."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} must be an integer >= {least}; got {value!r}.")
