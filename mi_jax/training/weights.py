"""Operations on weights besides the optimizer's step: adversarial perturbation and averaging."""

from typing import Any

import jax
import jax.numpy as jnp

_TINY = 1e-20
"""Added to a gradient's norm before dividing by it, as in the authors' code of AWP."""


def adversarial_weights(params: Any, gradient: Any, size: float) -> Any:
    """Weights moved along the gradient by `size` times their own norm, kernel by kernel (Wu et al. 2020, eq. 8 and 10).

    w + size |w| g / |g| with Frobenius norms over each kernel; biases and normalisation are unchanged, as in the
    authors' code.

    Args:
        params: pytree of weights.
        gradient: gradient of the loss to raise, of the same structure.
        size: gamma of the paper.
    """

    def moved(w, g):
        if w.ndim < 2:
            return w
        return w + size * jnp.linalg.norm(w) * g / (jnp.linalg.norm(g) + _TINY)

    return jax.tree.map(moved, params, gradient)


def averaged(average: Any, variables: Any, updates: Any, decay: float) -> Any:
    """The exponential moving average after one more update, of parameters and running batch statistics.

    d average + (1 - d) variables with d = min(decay, (1 + n) / (10 + n)) after n earlier updates: the initial
    weights are forgotten first, however short the training. Running statistics are averaged in the same way, since they
    belong to the networks averaged (Izmailov et al. 2018 re-estimate them from the training images instead).

    Args:
        average: pytree of arrays, the initial variables before the first update.
        variables: after this update.
        updates: how many came before it; may be traced.
        decay: d in the limit of many updates.
    """
    kept = jnp.minimum(decay, (1 + updates) / (10 + updates))
    return jax.tree.map(lambda old, new: kept * old + (1 - kept) * new, average, variables)
