"""One update of parameters by optax, also where a caller forbids implicit promotion of dtypes."""

from typing import Any

import jax
import optax


def update(
    transformation: optax.GradientTransformation, gradient: Any, state: optax.OptState, params: Any
) -> tuple[Any, optax.OptState]:
    """New parameters and state of the optimizer. Optax multiplies counts with floats, whatever the caller allows."""
    with jax.numpy_dtype_promotion("standard"):
        change, state = transformation.update(gradient, state, params)
        return optax.apply_updates(params, change), state
