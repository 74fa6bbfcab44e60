"""What every attack returns. A pytree of arrays with no behaviour beyond what follows from its fields."""

import dataclasses

import jax
import jax.numpy as jnp

from mi_jax.typing import Flags, Images, Labels, Logits


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttackResult:
    """Adversarial images and what the model makes of them.

    `images` [b h w c] in [0, 1]; `success` [b], true where the returned image is misclassified (clean errors
    count); `loss` [b] at the returned image: for PGD what it maximised, for every other attack the margin
    max_{i != y} z_i - z_y; `step_loss` [steps + 1, b], for PGD the loss of the winning restart at each iterate,
    start and end included, else None; `perturbation_norm` [b] in pixel units; `logits` [b k] of the returned images.
    """

    images: Images
    success: Flags
    loss: jax.Array
    step_loss: jax.Array | None
    perturbation_norm: jax.Array
    logits: Logits

    @property
    def predictions(self) -> Labels:
        """Predicted class of each returned image [b]."""
        return jnp.argmax(self.logits, axis=1)
