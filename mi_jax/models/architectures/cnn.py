"""A small convolutional network without batch normalisation, for studies that train hundreds of networks."""

import jax
from flax import nnx

from mi_jax.models import convolution
from mi_jax.models.layers import Conv, ForwardContext, Head, Linear, ModelSpec, NormalStream, relu
from mi_jax.models.registry import register

_CONV_WIDTHS = (16, 32, 64)
_DENSE_WIDTH = 64


@register("cnn")
class CNN(nnx.Module):
    """Three 3 x 3 convolutions, each with max-pooling, and a dense layer.

    Taps: `conv1`, `conv2`, `conv3`, `dense1` after the ReLU, `logits`.
    """

    def __init__(self, spec: ModelSpec, stream: NormalStream):
        height, width, features = spec.input_shape
        for number, base in enumerate(_CONV_WIDTHS, start=1):
            widened = spec.channels(base)
            setattr(self, f"conv{number}", Conv(features, widened, 3, spec, stream, bias=True))
            features = widened
            height, width = convolution.pooled_shape(height, width)
        hidden = spec.channels(_DENSE_WIDTH)
        self.dense1 = Linear(height * width * features, hidden, spec, stream)
        self.head = Head(hidden, spec, stream)

    def __call__(self, x: jax.Array, context: ForwardContext) -> jax.Array:
        """Logits of normalised images."""
        for number in range(1, len(_CONV_WIDTHS) + 1):
            name = f"conv{number}"
            x = context.tap(name, relu(getattr(self, name)(x)))
            x = convolution.max_pool(x)
        x = context.tap("dense1", relu(self.dense1(x.reshape(x.shape[0], -1))))
        return self.head(x, context)
