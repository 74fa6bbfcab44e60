"""Validation of settings, random keys, and batches of images, labels and logits: one sentence for each bad value.

Every function raises `InputError`. Shapes and dtypes are checked on tracers too; values only where they are known.
"""

import inspect
import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from mi_jax.errors import InputError
from mi_jax.typing import Key

ROUNDING = 1e-6
"""How far pixels may leave [0, 1], as rounding of a normalisation and its inverse makes them."""
_LARGEST = 2**31 - 1
"""The largest int32: counts are such numbers on devices."""


def positive(name: str, value: Any, *, usual: str = "") -> None:
    """Checks for a finite number above 0.

    Examples:
        >>> positive("learning_rate", -1, usual="0.1")
        Traceback (most recent call last):
        mi_jax.errors.InputError: Invalid learning_rate -1: expected a positive number, such as 0.1.
    """
    _require(_is_number(value) and value > 0, name, value, "a positive number", usual)


def at_least(name: str, value: Any, least: int | float, *, usual: str = "") -> None:
    """Checks for a finite number of at least `least`."""
    _require(_is_number(value) and value >= least, name, value, f"a number of at least {least:g}", usual)


def between(name: str, value: Any, low: int | float, high: int | float, *, usual: str = "") -> None:
    """Checks for a number in [low, high]."""
    _require(_is_number(value) and low <= value <= high, name, value, f"a number in [{low:g}, {high:g}]", usual)


def share(name: str, value: Any, *, usual: str = "") -> None:
    """Checks for a number in [0, 1)."""
    _require(_is_number(value) and 0 <= value < 1, name, value, "a number in [0, 1)", usual)


def portion(name: str, value: Any, *, usual: str = "") -> None:
    """Checks for a number in (0, 1]."""
    _require(_is_number(value) and 0 < value <= 1, name, value, "a number in (0, 1]", usual)


def count(name: str, value: Any, least: int = 1, most: int = _LARGEST, *, usual: str = "") -> None:
    """Checks for a whole number in `least` to `most`; NumPy integers count, booleans do not.

    Examples:
        >>> count("steps", 2.5)
        Traceback (most recent call last):
        mi_jax.errors.InputError: Invalid steps 2.5: expected a whole number of at least 1.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    _require(whole and value >= least, name, value, f"a whole number of at least {least}", usual)
    _require(value <= most, name, value, f"a whole number of at most {most}", usual)


def flag(name: str, value: Any) -> None:
    """Checks for True or False; those of NumPy count.

    Examples:
        >>> flag("random_start", "no")
        Traceback (most recent call last):
        mi_jax.errors.InputError: Invalid random_start 'no': expected True or False.
    """
    _require(isinstance(value, bool | np.bool_), name, value, "True or False")


def string(name: str, value: Any, *, usual: str = "") -> None:
    """Checks for a string.

    Examples:
        >>> string("processes", 2, usual="'2'")
        Traceback (most recent call last):
        mi_jax.errors.InputError: Invalid processes 2: expected a string, such as '2'.
    """
    _require(isinstance(value, str), name, value, "a string", usual)


def one_of(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Checks that the value is one of the choices.

    Examples:
        >>> one_of("norm", "l3", ("linf", "l2"))
        Traceback (most recent call last):
        mi_jax.errors.InputError: Invalid norm 'l3': expected one of linf, l2.
    """
    choices = tuple(choices)
    _require(value in choices, name, value, f"one of {', '.join(map(str, choices))}")


def known(*arrays: Any) -> bool:
    """Whether every array holds values that can be read here.

    False inside a JAX transformation, and where parts of an array are on devices of other processes.
    """

    def is_known(leaf: Any) -> bool:
        if not isinstance(leaf, jax.Array):
            return True
        return not isinstance(leaf, Tracer) and (leaf.is_fully_addressable or leaf.is_fully_replicated)

    return all(map(is_known, jax.tree.leaves(arrays)))


def array(value: Any, *, name: str) -> Any:
    """A JAX or NumPy array as it is; a torch tensor, a list or a tuple as a NumPy array (of float32 for bfloat16).

    NumPy arrays in the byte order of another machine or of long doubles, which JAX has not, become native and float64.

    Raises:
        InputError: for anything else, and masked arrays.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise InputError(f"{name} must be an array without a mask; fill it with `filled`.")
    if isinstance(value, jax.Array):
        return value
    if isinstance(value, np.ndarray):
        return _of_jax(value)
    if hasattr(value, "detach"):  # a torch tensor
        tensor = value.detach().cpu()
        try:
            return tensor.numpy()
        except TypeError:  # NumPy has no bfloat16
            return tensor.float().numpy()
    if isinstance(value, list | tuple | np.generic):
        try:
            return _of_jax(np.asarray(value))
        except ValueError:
            raise InputError(f"{name} must be an array; got a ragged {type(value).__name__}.") from None
    raise InputError(f"{name} must be an array, not {type(value).__name__}; convert with np.asarray.")


def _of_jax(given: np.ndarray) -> np.ndarray:
    """The array in native byte order, and float64 for long doubles."""
    dtype = np.float64 if given.dtype == np.longdouble else given.dtype.newbyteorder("=")
    return given.astype(dtype, copy=False)


def numbers(value: Any, *, name: str) -> Any:
    """An array, as `array` gives it, of integers or floats.

    Examples:
        >>> numbers(["a"], name="Maps")
        Traceback (most recent call last):
        mi_jax.errors.InputError: Maps must hold real numbers, as integers or floats; got <U1.
    """
    given = array(value, name=name)
    if not (jnp.issubdtype(given.dtype, jnp.integer) or jnp.issubdtype(given.dtype, jnp.floating)):
        raise InputError(f"{name} must hold real numbers, as integers or floats; got {given.dtype}.")
    return given


def images(value: Any, *, name: str = "Images", on_host: bool = False) -> Any:
    """Images as a JAX array: floating, `[b h w c]`, not empty, in [0, 1]; values beyond by rounding are clipped.

    With `on_host` as a NumPy array, which never enters the memory of a device.

    Raises:
        InputError: otherwise.
    """
    x = array(value, name=name)
    if x.ndim != 4:
        raise InputError(f"{name} must have shape [b, h, w, c]; got {tuple(x.shape)}.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        advice = "; divide 8-bit pixels by 255" if jnp.issubdtype(x.dtype, jnp.integer) else ""
        raise InputError(f"{name} must be floating, in [0, 1], not {x.dtype}{advice}.")
    if 0 in x.shape:
        raise InputError(f"{name} must hold at least one pixel; got shape {tuple(x.shape)}.")
    if x.shape[1] in (1, 3) and x.shape[2] == x.shape[3] > 4:
        raise InputError(
            f"{name} must have shape [b, h, w, c]; {tuple(x.shape)} looks like [b, c, h, w]: transpose with "
            "x.transpose(0, 2, 3, 1)."
        )
    if known(x):
        low, high = float(np.min(np.asarray(x))), float(np.max(np.asarray(x)))
        if math.isnan(low):
            count = np.count_nonzero(np.isnan(np.asarray(x)).any(axis=(1, 2, 3)))
            raise InputError(f"{name} must lie in [0, 1]; {count} of {len(x)} hold NaN.")
        if not (low >= -ROUNDING and high <= 1 + ROUNDING):
            advice = "Map [-1, 1] to [0, 1] by (x + 1) / 2. " if -1 <= low < 0 and high <= 1 else ""
            raise InputError(
                f"{name} must lie in [0, 1]; got values from {low:g} to {high:g}. {advice}"
                "Normalisation belongs in the model."
            )
        if low < 0 or high > 1:
            x = np.clip(x, 0, 1) if on_host else jnp.clip(x, 0, 1)
    return np.asarray(x) if on_host else jnp.asarray(x)


def labels(value: Any, size: int, *, classes: int | None = None, name: str = "Labels") -> jax.Array:
    """Labels as an int32 JAX array `[size]`, in 0..classes - 1 where `classes` is given.

    Raises:
        InputError: for another shape or dtype (one-hot rows, floats), or labels out of range.
    """
    y = array(value, name=name)
    if not jnp.issubdtype(y.dtype, jnp.integer) or y.shape != (size,):
        raise InputError(
            f"{name} must be integers of shape [{size}], one per image; got {y.dtype} of shape {tuple(y.shape)}."
        )
    class_indices(y, 2**31 if classes is None and not _fits_int32(y) else classes, name=name)
    return jnp.asarray(y, jnp.int32)


def _fits_int32(labels: Any) -> bool:
    """Whether known labels keep their values as int32, so that later checks see those that were given."""
    return not known(labels) or bool(np.all(np.asarray(labels) == np.asarray(labels).astype(np.int32)))


def class_indices(value: Any, classes: int | None, *, name: str = "Labels") -> None:
    """Checks that known labels lie in 0..classes - 1, where the number of classes is known."""
    if classes is None or not known(value) or not np.size(value):
        return
    low, high = int(np.min(np.asarray(value))), int(np.max(np.asarray(value)))
    if low < 0 or high >= classes:
        raise InputError(f"{name} must lie in 0..{classes - 1}; got values from {low} to {high}.")


def model(value: Any, *, name: str = "logits_fn", form: str = "(variables, x) -> logits") -> None:
    """Checks that a model is a function; for a module of another framework the message names what to give instead.

    Examples:
        >>> model(3)
        Traceback (most recent call last):
        mi_jax.errors.InputError: logits_fn must be a function (variables, x) -> logits, not int.
    """
    kind = type(value).__name__
    if any(base.__module__.startswith("torch.") for base in type(value).__mro__):
        raise InputError(
            f"{name} is a torch module, which JAX cannot differentiate; convert it with mi_jax.models.from_torch."
        )
    if not isinstance(value, type) and not inspect.isroutine(value) and hasattr(value, "apply"):
        raise InputError(f"{name} is a {kind}; give its method `apply` or `logits`, a function {form}.")
    if not callable(value):
        raise InputError(f"{name} must be a function {form}, not {kind}.")


def traced(function: Any, *arguments: Any, name: str = "logits_fn") -> Any:
    """`function(*arguments)`.

    Raises:
        InputError: where it turns tracers of JAX into NumPy or Python values.
    """
    try:
        return function(*arguments)
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError) as error:
        raise InputError(
            f"{name} cannot be compiled and differentiated by JAX, since it turns its input into NumPy or Python "
            f"values ({type(error).__name__}); write it with jax.numpy."
        ) from None


def logits_shape(value: Any, size: int) -> None:
    """Checks that the output of a model has shape `[size, k]` with k of at least 2."""
    if not hasattr(value, "ndim") or value.ndim != 2 or value.shape[0] != size:
        got = f"shape {tuple(value.shape)}" if hasattr(value, "shape") else type(value).__name__
        raise InputError(f"The model must return logits of shape [{size}, classes]; it returned {got}.")
    if value.shape[1] < 2:
        raise InputError("The model returned a single column; logits of at least 2 classes are needed.")


def logits(value: Any, labels: Any) -> None:
    """Checks logits `[b k]` and labels `[b]`: the shape, and known values. A logit of -inf masks its class.

    Raises:
        InputError: for another shape, NaN, infinite logits (except -inf next to finite ones), probabilities, and labels
            outside 0..k - 1.
    """
    logits_shape(value, len(labels))
    if known(value):
        rows = np.asarray(value, np.float32)
        for what, bad in (("NaN", np.isnan(rows).any(axis=1)), ("infinite", without_prediction(rows))):
            if count := np.count_nonzero(bad):
                raise InputError(f"The model returns {what} logits for {count} of {len(rows)} images.")
        if are_probabilities(rows):
            raise InputError(
                "The model returns probabilities (rows in [0, 1] that sum to 1), which hide gradients; return the "
                "logits."
            )
    class_indices(labels, value.shape[1])


def without_prediction(rows: np.ndarray) -> np.ndarray:
    """Whether each row of logits has a NaN, +inf, or nothing but -inf, so that its largest is not finite `[b]`."""
    return ~np.isfinite(rows.max(axis=1))


def are_probabilities(rows: np.ndarray) -> bool:
    """Whether every row lies in [0, 1] and sums to 1, up to the rounding of bfloat16."""
    return bool(rows.size and rows.min() >= 0 and rows.max() <= 1 and np.abs(rows.sum(axis=1) - 1).max() < 2e-2)


def key(value: Any) -> Key:
    """A JAX random key, from a key or an integer seed.

    Raises:
        InputError: for anything else.
    """
    given: Any = value.item() if isinstance(value, np.integer) else value
    given = array(given, name="key") if hasattr(given, "dtype") else given
    shape: Any = getattr(given, "shape", None)
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    try:
        if jnp.issubdtype(given.dtype, jnp.integer) if shape == () else whole:
            return jax.random.key(given)
        if shape is not None and jnp.issubdtype(given.dtype, jax.dtypes.prng_key) and shape == ():
            return given
        if shape is not None and given.dtype == jnp.uint32:
            jax.random.wrap_key_data(jnp.asarray(given)).reshape(())
            return given
    except (OverflowError, TypeError):  # a seed of more than 64 bits, or words of another generator
        pass
    got = f"of shape {tuple(shape)}" if shape else repr(value)
    raise InputError(f"Invalid key {got}: expected a JAX random key or an integer seed, such as jax.random.key(0).")


def _is_number(value: Any) -> bool:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number) or np.iscomplexobj(value):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond the largest float
        return False


def _require(holds: Any, name: str, value: Any, expected: str, usual: str = "") -> None:
    if not holds:
        shown = value.item() if isinstance(value, np.generic) else value
        example = f", such as {usual}" if usual else ""
        raise InputError(f"Invalid {name} {shown!r}: expected {expected}{example}.")
