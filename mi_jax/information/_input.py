"""The border of the estimators: activations of any framework to arrays, labels to class numbers, each checked.

Nothing is estimated here. Every complaint is an `InputError` that names the layer or the argument.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax.errors import InputError

Activations = np.ndarray | jax.Array


def as_array(t: Any) -> Activations:
    """Return anything that `np.asarray` takes, and torch tensors of any type, as an array; JAX arrays stay in place."""
    if hasattr(t, "detach"):  # a torch tensor that still carries its gradient refuses np.asarray, and so does bfloat16
        t = t.detach().cpu()
        t = t.float() if str(t.dtype) == "torch.bfloat16" else t
    return t if isinstance(t, np.ndarray | jax.Array) else np.asarray(t)


def as_activations(t: Any, layer: str = "t") -> Activations:
    """Return activations as a float array [n, d], on the device where they already are.

    `t` is anything that `as_array` takes, shape [n, ...]; float16 and bfloat16 become float32, float32 and float64
    stay. Raises InputError when `t` is not floating point, holds less than two rows, or has no features.
    """
    x = as_array(t)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(f"{layer} has dtype {x.dtype}: activations must be floating point; use astype('float32').")
    if x.ndim == 0 or x.shape[0] < 2:
        raise InputError(f"{layer} has shape {tuple(x.shape)}: at least two samples on the first axis are needed.")
    if x.size == 0:
        raise InputError(f"{layer} has shape {tuple(x.shape)}: an empty layer carries nothing to measure; drop it.")
    x = x.reshape(x.shape[0], -1)
    if x.dtype in (jnp.bfloat16, jnp.float16):
        x = x.astype(np.float32)
    return x


def check_finite(t: Activations, layer: str = "t") -> None:
    """Raise InputError when the array holds NaN or infinity."""
    if isinstance(t, np.ndarray):  # in blocks, for a mask of a large layer is large itself
        finite = all(np.isfinite(t[begin : begin + 512]).all() for begin in range(0, len(t), 512))
    else:
        finite = bool(jnp.isfinite(t).all())
    if not finite:
        raise InputError(f"{layer} holds NaN or infinity: look at the step that made it; nothing was estimated.")


def as_labels(y: Any, n: int, num_classes: int | None, name: str = "y") -> tuple[np.ndarray, int]:
    """Return labels as int32 [n] in 0..num_classes-1 on the host, and the number of classes.

    Raises InputError for a wrong length, a dtype that is not integer, labels out of range, or a single class.
    """
    labels = np.asarray(as_array(y))
    if labels.shape != (n,):
        raise InputError(
            f"{name} has shape {labels.shape}, but there are {n} rows of activations: give one label a row."
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{name} has dtype {labels.dtype}: labels must be integers 0, 1, ..., num_classes - 1.")
    classes = int(labels.max()) + 1 if num_classes is None else int(num_classes)
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(f"{name} holds {labels.min()}..{labels.max()}: labels must lie in 0..{classes - 1}.")
    if labels.min() == labels.max():
        raise InputError(f"{name} holds one class only: information about it needs two; leave {name} out.")
    return labels.astype(np.int32), classes


def as_variances(noise_variance: Any) -> tuple[np.ndarray, bool]:
    """Return noise variances as float64 [s], and whether one number was given rather than an array.

    Raises InputError when a variance is not positive and finite.
    """
    v = np.asarray(noise_variance, dtype=np.float64)
    if v.ndim > 1 or v.size == 0:
        raise InputError(f"noise_variance has shape {v.shape}: give one number or a non-empty list of numbers.")
    if not np.all(np.isfinite(v)) or not np.all(v > 0):
        raise InputError(f"noise_variance is {noise_variance}: a variance must be positive and finite.")
    return np.atleast_1d(v), v.ndim == 0
