"""Loss, accuracy and predictions of a network over whole splits, in compiled batches. Knows no attack."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mi_jax.models import Network
from mi_jax.typing import Variables


def evaluate(network: Network, variables: Variables, images: Any, labels: Any, *, batch_size: int = 250):
    """Mean cross-entropy (nats) and accuracy in evaluation mode.

    Args:
        network: what to evaluate.
        variables: its variables.
        images: uint8, or float in [0, 1], `[n h w c]`.
        labels: int `[n]`.
        batch_size: images a forward pass.

    Returns:
        (loss, accuracy) as floats.
    """
    logits = predictions(network, variables, images, batch_size=batch_size)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(labels))
    return float(jnp.mean(losses)), float(np.mean(np.argmax(np.asarray(logits), -1) == np.asarray(labels)))


def predictions(network: Network, variables: Variables, images: Any, *, batch_size: int = 250) -> jax.Array:
    """Logits `[n k]` of images, uint8 or float in [0, 1] `[n h w c]`, in evaluation mode."""
    n = len(images)
    padded = -(-n // batch_size) * batch_size if n > batch_size else n
    rows = np.minimum(np.arange(padded), n - 1)
    return _logits(network, min(batch_size, padded), variables, jnp.asarray(images), rows)[:n]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _logits(network: Network, batch_size: int, variables: Variables, images: jax.Array, rows: jax.Array):
    def one(batch):
        x = images[batch]
        return network.logits(variables, x.astype(jnp.float32) / 255 if x.dtype == jnp.uint8 else x)

    return jax.lax.map(one, rows.reshape(-1, batch_size)).reshape(len(rows), -1)
