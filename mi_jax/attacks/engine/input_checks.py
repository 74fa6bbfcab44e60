"""The border of the attacks: refuses images, labels, models and outputs that would make an attack meaningless.

Shapes and dtypes are checked on tracers too; values only where they are known, so a compiled caller pays nothing.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from mi_jax.errors import InputError
from mi_jax.typing import Images, Key, Labels, Logits


def known(*arrays: Any) -> bool:
    """True where every array holds values, false inside a transformation."""
    return not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(arrays))


def check_batch(x: Any, y: Any) -> tuple[Images, Labels]:
    """Images [b h w c] float in [0, 1] and labels [b], int32 whatever they were, as JAX arrays. Raises `InputError`."""
    for name, value in (("Images", x), ("Labels", y)):
        if not hasattr(value, "dtype"):
            raise InputError(f"{name} must be an array, not {type(value).__name__}; convert them with np.asarray.")
    if x.ndim != 4:
        raise InputError(f"Images must have shape [b, h, w, c]; got {tuple(x.shape)}.")
    if x.dtype not in (jnp.float32, jnp.float64):
        advice = "divide uint8 images by 255" if jnp.issubdtype(x.dtype, jnp.integer) else "cast them with astype"
        raise InputError(f"Images must be float32 (or float64) in [0, 1], not {x.dtype}; {advice}.")
    if not jnp.issubdtype(y.dtype, jnp.integer) or y.shape != x.shape[:1]:
        raise InputError(
            f"Labels must be integers of shape [{x.shape[0]}], one an image; got {y.dtype} of shape {tuple(y.shape)}."
        )
    if 0 in x.shape:
        raise InputError(f"There is nothing to attack in images of shape {tuple(x.shape)}; give at least one pixel.")
    if known(x):
        low, high = float(np.min(x)), float(np.max(x))
        if not (low >= 0 and high <= 1):
            raise InputError(f"Images must lie in [0, 1]; they reach from {low:g} to {high:g}: normalise in the model.")
    return jnp.asarray(x), jnp.asarray(y, jnp.int32)


def check_model(logits_fn: Any) -> None:
    """Refuse a model that is no hashable function `logits_fn(variables, x)`. Raises `InputError`."""
    if not callable(logits_fn):
        raise InputError(f"logits_fn must be a function (variables, x) -> logits, not {type(logits_fn).__name__}.")
    try:
        hash(logits_fn)
    except TypeError:
        raise InputError(
            f"logits_fn of type {type(logits_fn).__name__} is not hashable, so it cannot be compiled once; "
            "wrap it in a function."
        ) from None


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
    """Logits [b k] of the model, at least in float32; a random model gets the key as its third argument.

    Raises `InputError` where the output is no [b k] array.
    """
    logits = logits_fn(variables, images) if key is None else logits_fn(variables, images, key)
    if not hasattr(logits, "ndim") or logits.ndim != 2 or logits.shape[0] != images.shape[0]:
        got = f"shape {tuple(logits.shape)}" if hasattr(logits, "shape") else f"a {type(logits).__name__}"
        raise InputError(f"logits_fn must return logits of shape [{images.shape[0]}, classes]; it returned {got}.")
    if logits.shape[1] < 2:
        raise InputError("logits_fn returned a single column; an attack needs at least 2 classes.")
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def check_logits(logits: Logits, labels: Labels) -> None:
    """Refuse NaN, probabilities in place of logits and labels out of range, where values are known.

    Raises `InputError`. Probabilities make the losses flat, and labels beyond the last class make them wrong.
    """
    if not known(logits, labels):
        return
    values, classes = np.asarray(logits), np.asarray(labels)
    bad = np.count_nonzero(np.isnan(values).any(axis=1))
    if bad:
        raise InputError(f"The model gives NaN logits for {bad} of {len(values)} images; an attack needs numbers.")
    check_class_indices("Labels", classes, values.shape[1])
    if looks_like_probabilities(values):
        raise InputError(
            "logits_fn returns probabilities (rows in [0, 1] that sum to 1), which hide gradients; return the logits."
        )


def check_class_indices(name: str, classes: Any, count: int) -> None:
    """Refuse labels or targets that are no class of the model, where values are known. Raises `InputError`."""
    if known(classes) and (np.min(classes) < 0 or np.max(classes) >= count):
        raise InputError(
            f"{name} must lie in 0..{count - 1}, the model's classes; "
            f"they reach from {np.min(classes)} to {np.max(classes)}."
        )


def looks_like_probabilities(logits: np.ndarray) -> bool:
    """True where every row lies in [0, 1] and sums to one."""
    return bool(logits.min() >= 0 and logits.max() <= 1 and np.abs(logits.sum(axis=1) - 1).max() < 1e-4)


def check_eps(eps: Any, norm: str, *, least: str = "zero") -> None:
    """Refuse an eps that is negative, not finite or wider than the pixel range. Raises `InputError`.

    With `least="positive"` zero is refused too, and always an array: one radius is that of all images.
    """
    check_number("eps", eps)
    if not known(eps):
        return
    value = float(np.min(eps)), float(np.max(eps))
    if not all(math.isfinite(v) for v in value) or value[0] < 0:
        raise InputError(f"eps must be a finite number >= 0 in pixel units of [0, 1]; got {eps!r}.")
    if norm == "linf" and value[1] > 1:
        raise InputError(f"eps must be at most 1 for linf, since pixels lie in [0, 1]; got {eps!r} (8/255 is usual).")
    if least == "positive" and value[0] == 0:
        raise InputError("eps must be positive for this attack; with eps = 0 evaluate the clean images instead.")


def check_number(name: str, value: Any) -> None:
    """Refuse what is no single number; a traced or vmapped one is. Raises `InputError`."""
    if isinstance(value, str) or np.ndim(value) != 0:
        raise InputError(f"{name} must be one number in pixel units of [0, 1], such as 8/255; got {value!r}.")


def check_step(step_size: Any) -> None:
    """Refuse a step that is no number, negative or not finite. Raises `InputError`."""
    check_number("step_size", step_size)
    if known(step_size) and not 0 <= float(step_size) < math.inf:
        raise InputError(f"step_size must be a finite number >= 0 in pixel units of [0, 1]; got {step_size!r}.")


def check_key(key: Any) -> None:
    """Refuse a missing random key. Raises `InputError`."""
    if key is None:
        raise InputError("This attack draws random numbers; give key=jax.random.key(0).")


def check_count(name: str, value: int, least: int) -> None:
    """Refuse a count that is no integer or is too small. Raises `InputError`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} must be an integer >= {least}; got {value!r}.")
