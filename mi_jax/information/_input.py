"""Input validation of the estimators: activations of any framework to float arrays, labels to class indices."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import core

from mi_jax import checks
from mi_jax.errors import InputError
from mi_jax.information.lazy import LazyActivations

Activations = np.ndarray | jax.Array
Target = Literal["input", "label", "continuous"]
"""The variable T shares information with: the input (uniform over the rows), an int label, or another float array."""
_MOST_CLASSES = 2**20
"""Results have a value per class; larger labels are probably identifiers rather than classes."""


class Pair(NamedTuple):
    """Two validated variables of the same rows."""

    t: Activations
    """[n, d]."""
    other: Any
    """int32 labels [n] on the host, or float [n, d']."""
    num_classes: int
    """0 when `other` is continuous."""


def as_array(t: Any, name: str = "t") -> Activations:
    """Convert anything `np.asarray` accepts, and torch tensors of any dtype, to an array; JAX arrays stay in place.

    Raises:
        InputError: for a masked array with masked values, lists of unequal lengths, and `LazyActivations`.
    """
    if isinstance(t, LazyActivations):
        raise InputError(f"{name} is computed lazily, which only kde and noise_variance support; give {name}[:].")
    if hasattr(t, "detach"):  # np.asarray fails for torch tensors that require a gradient, and for bfloat16
        t = t.detach().cpu()
        t = t.float() if str(t.dtype) == "torch.bfloat16" else t
    if isinstance(t, np.ma.MaskedArray):
        if np.ma.is_masked(t):
            raise InputError(f"{name} is a masked array with {np.ma.count_masked(t)} masked values; drop or fill them.")
        t = t.data
    try:
        return t if isinstance(t, np.ndarray | jax.Array) else np.asarray(t)
    except ValueError:
        raise InputError(f"{name} must be one array; got a ragged {type(t).__name__}.") from None


def is_traced(t: Any) -> bool:
    """Return whether an array is abstract, under `jax.jit`, `vmap` or `grad`, so that its values cannot be checked."""
    return isinstance(t, core.Tracer)


def as_activations(t: Any, layer: str = "t") -> Activations:
    """Convert activations [n, ...] to a float array [n, d] on the device where they are.

    float16 and bfloat16 become float32; float32 and float64 stay.

    Raises:
        InputError: when they are not floating point, have fewer than two rows, or no features.
    """
    x = _checked(as_array(t, layer), layer)
    x = x.reshape(x.shape[0], -1)
    if x.dtype in (jnp.bfloat16, jnp.float16):
        x = x.astype(np.float32)
    return x


def as_rows(t: Any, layer: str = "t") -> Activations | LazyActivations:
    """Convert as `as_activations` does, but leave lazy activations as they are."""
    return _checked(t, layer) if isinstance(t, LazyActivations) else as_activations(t, layer)


def _checked(x: Any, layer: str) -> Any:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(f"{layer} has dtype {x.dtype}; activations must be floating point: use astype('float32').")
    if not x.shape or x.shape[0] < 2:
        raise InputError(f"{layer} has shape {tuple(x.shape)}; at least two samples on the first axis are needed.")
    if x.size == 0:
        raise InputError(f"{layer} has shape {tuple(x.shape)}; an empty layer cannot be measured: leave it out.")
    return x


def check_finite(t: Activations | LazyActivations, layer: str = "t") -> None:
    """Raise InputError when the array holds NaN or infinity."""
    if isinstance(t, jax.Array) and all(device.platform == "cpu" for device in t.devices()):
        t = np.asarray(t)  # the same memory, without a program to compile for each shape
    if isinstance(t, jax.Array):
        finite = bool(jnp.isfinite(t).all())
    else:  # in blocks: the mask of a large layer is large itself
        finite = all(np.isfinite(t[begin : begin + 512]).all() for begin in range(0, len(t), 512))
    if not finite:
        raise InputError(f"{layer} holds NaN or infinity; check the network that produced it.")


def as_labels(y: Any, n: int, num_classes: int | None, name: str = "y") -> tuple[np.ndarray, int]:
    """Convert labels to int32 [n] in 0..num_classes-1 on the host, and count the classes.

    Boolean labels are classes 0 and 1.

    Raises:
        InputError: for labels that are traced, of the wrong length, not integers, out of range, or of a single class,
            and for a number of classes that is not a whole number from 1 to 2**20.
    """
    if is_traced(y):
        raise InputError(f"{name} is traced; labels must be concrete: close over them instead of passing them to jit.")
    labels = np.asarray(as_array(y, name))
    if labels.ndim == 2 and labels.shape[0] == n and labels.shape[1] > 1:
        raise InputError(
            f"{name} has shape {labels.shape}; give class indices, {name}.argmax(axis=1) if it is one-hot."
        )
    if labels.shape != (n,):
        raise InputError(
            f"{name} has shape {labels.shape}, but there are {n} rows of activations; give one label per row."
        )
    if labels.dtype == bool:
        labels = labels.astype(np.int32)
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"{name} has dtype {labels.dtype}; labels must be integers 0, 1, ..., num_classes - 1: "
            f"use np.unique({name}, return_inverse=True)[1]."
        )
    if num_classes is not None:
        checks.count("num_classes", num_classes)
        if num_classes > _MOST_CLASSES:
            raise InputError(f"Invalid num_classes {num_classes}: expected a whole number of at most {_MOST_CLASSES}.")
    low, high = int(labels.min()), int(labels.max())
    classes = max(high + 1, 1) if num_classes is None else int(num_classes)
    if low < 0 or high >= min(classes, _MOST_CLASSES):
        expected = f"0..{min(classes, _MOST_CLASSES) - 1}" if num_classes is not None or low >= 0 else "0 and above"
        raise InputError(f"{name} holds {low}..{high}; labels must be in {expected}.")
    if low == high:
        raise InputError(f"{name} holds only one class; information about it needs at least two: leave {name} out.")
    return labels.astype(np.int32), classes


def compact(labels: np.ndarray, classes: int) -> tuple[np.ndarray, int]:
    """Renumber labels when most classes are absent: the memory of the pairwise sums grows with their number."""
    present, renumbered = np.unique(labels, return_inverse=True)
    return (labels, classes) if classes <= 2 * len(present) else (renumbered.astype(np.int32), len(present))


def target_of(other: Any) -> Target:
    """Return the target of an argument `other`: None, labels, or a float array."""
    if other is None:
        return "input"
    return "continuous" if jnp.issubdtype(as_array(other, "other").dtype, jnp.floating) else "label"


def as_pair(t: Any, other: Any, num_classes: int | None = None) -> Pair:
    """Validate activations and labels, or a second float array, of the same rows.

    Raises:
        InputError: for what `as_activations`, `check_finite` and `as_labels` refuse, and for unequal numbers of rows.
    """
    x = as_activations(t)
    check_finite(x)
    if other is None:
        raise InputError("other is None; give int labels, or a float array of the same samples.")
    if target_of(other) == "label":
        return Pair(x, *as_labels(other, len(x), num_classes, "other"))
    z = as_activations(other, "other")
    check_finite(z, "other")
    if len(z) != len(x):
        raise InputError(f"other has {len(z)} rows and t has {len(x)}; give two arrays of the same samples.")
    return Pair(x, z, 0)


def as_variance(noise_variance: Any) -> float:
    """Convert one noise variance, which may be an array without axes, to a number.

    Raises:
        InputError: for what `as_variances` refuses, and an array of variances.
    """
    variances, scalar = as_variances(noise_variance)
    if not scalar:
        raise InputError(f"noise_variance has shape {variances.shape}; give one number.")
    return float(variances[0])


def as_variances(noise_variance: Any) -> tuple[np.ndarray, bool]:
    """Convert noise variances to float64 [s], and return whether one number was given rather than an array.

    Raises:
        InputError: when a variance is not a positive finite number.
    """
    if isinstance(noise_variance, str):
        raise InputError(
            f"noise_variance is {noise_variance!r}; give a number, such as noise_variance(t, rule={noise_variance!r})."
        )
    no_number = InputError(f"noise_variance is {noise_variance!r}; give one number or a list of numbers.")
    try:
        v = np.asarray(noise_variance, dtype=np.float64)
    except (TypeError, ValueError):
        raise no_number from None
    if np.asarray(noise_variance).dtype == bool:
        raise no_number
    if v.ndim > 1 or v.size == 0:
        raise InputError(f"noise_variance has shape {v.shape}; give one number or a non-empty list of numbers.")
    if not np.all(np.isfinite(v)) or not np.all(v > 0):
        raise InputError(f"noise_variance is {noise_variance}; a variance must be positive and finite.")
    return np.atleast_1d(v), v.ndim == 0
