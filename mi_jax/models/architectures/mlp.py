"""The multilayer perceptron of the information-bottleneck studies: 1024-20-20-20 (Zhang et al. 2022), ReLU."""

import jax
from flax import nnx

from mi_jax.models.layers import ForwardContext, Head, Linear, ModelSpec, NormalStream, relu
from mi_jax.models.registry import register

_WIDTHS = (1024, 20, 20, 20)


@register("mlp")
class MLP(nnx.Module):
    """Dense layers over the flattened image. Taps: `dense1` to `dense4` after the ReLU, `logits`."""

    def __init__(self, spec: ModelSpec, stream: NormalStream):
        height, width, features = spec.input_shape
        features *= height * width
        for number, base in enumerate(_WIDTHS, start=1):
            widened = spec.channels(base)
            setattr(self, f"dense{number}", Linear(features, widened, spec, stream))
            features = widened
        self.head = Head(features, spec, stream)

    def __call__(self, x: jax.Array, context: ForwardContext) -> jax.Array:
        """Logits of normalised images."""
        x = x.reshape(x.shape[0], -1)
        for number in range(1, len(_WIDTHS) + 1):
            name = f"dense{number}"
            x = context.tap(name, relu(getattr(self, name)(x)))
        return self.head(x, context)
