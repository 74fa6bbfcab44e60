"""Loss, accuracy and predictions of a network over complete splits, in compiled batches."""

import functools
from typing import Any

import jax
import numpy as np
import optax

from mi_jax import checks
from mi_jax.batches import map_batches
from mi_jax.errors import InputError
from mi_jax.models import Network
from mi_jax.parallel import mesh_of
from mi_jax.typing import Variables


def evaluate(network: Network, variables: Variables, images: Any, labels: Any) -> tuple[float, float]:
    """Mean cross-entropy and accuracy in evaluation mode.

    An image without a prediction, of which a logit is NaN or +inf, counts as misclassified.

    Args:
        network: what to evaluate.
        variables: its variables.
        images: float in [0, 1], `[n h w c]`.
        labels: int `[n]`.

    Returns:
        The cross-entropy in nats, and the share of correct predictions.

    Raises:
        InputError: for images out of [0, 1], labels out of range or of another length, and variables that do not fit.
    """
    losses, correct = evaluate_each(network, variables, images, labels)
    return float(np.mean(losses, dtype=np.float64)), float(np.mean(correct))


def evaluate_each(network: Network, variables: Variables, images: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Cross-entropy of each image in evaluation mode, and whether it is classified correctly, see `evaluate`.

    Args:
        network: what to evaluate.
        variables: its variables.
        images: float in [0, 1], `[n h w c]`.
        labels: int `[n]`.

    Returns:
        The cross-entropies in nats `[n]`, and bool `[n]`.

    Raises:
        InputError: as `evaluate`.
    """
    _check_network(network)
    x = checks.images(images)
    y = checks.labels(labels, len(x), classes=network.num_classes)
    logits = _in_batches(network, variables, x)
    rows = np.asarray(logits)
    correct = (np.argmax(rows, axis=-1) == np.asarray(y)) & ~checks.without_prediction(rows)
    return np.asarray(_losses(logits, y)), correct


def predictions(network: Network, variables: Variables, images: Any) -> jax.Array:
    """Logits in evaluation mode, in batches, which the devices that hold the variables share.

    Args:
        network: what to evaluate.
        variables: its variables.
        images: float in [0, 1], `[n h w c]`.

    Returns:
        `[n k]`.

    Raises:
        InputError: for images out of [0, 1], and variables that do not fit.
    """
    _check_network(network)
    return _in_batches(network, variables, checks.images(images, on_host=not isinstance(images, jax.Array)))


def _check_network(network: Any) -> None:
    if not isinstance(network, Network):
        raise InputError(
            f"network must be a mi_jax.models.Network, not {type(network).__name__}; mi_jax.models.from_function makes "
            "one from a function."
        )


def _in_batches(network: Network, variables: Variables, images: Any) -> jax.Array:
    return map_batches(functools.partial(_logits, network, variables), images, mesh=mesh_of(variables))


@functools.partial(jax.jit, static_argnums=0)
def _logits(network: Network, variables: Variables, images: jax.Array) -> jax.Array:
    return network.logits(variables, images)


@jax.jit
def _losses(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
