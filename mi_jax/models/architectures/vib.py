"""The variational information bottleneck of Alemi et al. (2017) for MNIST: encoder 1024-1024-2K, linear decoder."""

import jax
import jax.numpy as jnp
from flax import nnx

from mi_jax.models.layers import ForwardContext, Head, Linear, ModelSpec, NormalStream
from mi_jax.models.registry import register

_WIDTHS = (1024, 1024)
_CODE = 256
_SHIFT = 5.0


@register("vib")
class VIB(nnx.Module):
    """The code is Gaussian, drawn in training mode and at its mean otherwise.

    Taps: `dense1`, `dense2` after the ReLU, `code_std` and `code_mean` of the code given the image, `logits`.
    The standard deviation is the softplus of the encoder's output minus 5.
    """

    def __init__(self, spec: ModelSpec, stream: NormalStream):
        height, width, features = spec.input_shape
        features *= height * width
        for number, base in enumerate(_WIDTHS, start=1):
            widened = spec.channels(base)
            setattr(self, f"dense{number}", Linear(features, widened, spec, stream))
            features = widened
        code = spec.channels(_CODE)
        self.encoder = Linear(features, 2 * code, spec, stream, gain=1.0)
        self.head = Head(code, spec, stream)

    def __call__(self, x: jax.Array, context: ForwardContext) -> jax.Array:
        """Logits of normalised images."""
        x = x.reshape(x.shape[0], -1)
        for number in range(1, len(_WIDTHS) + 1):
            name = f"dense{number}"
            x = context.tap(name, jax.nn.relu(getattr(self, name)(x)))
        mean, raw = jnp.split(self.encoder(x).astype(jnp.float32), 2, axis=-1)
        std = context.tap("code_std", jax.nn.softplus(raw - _SHIFT))
        mean = context.tap("code_mean", mean)
        drawn = 0.0 if context.key is None else std * jax.random.normal(context.key, mean.shape)
        return self.head(mean + drawn, context)
