"""A small convolutional network without batch normalisation, for studies that train hundreds of networks."""

import jax
from flax import nnx

from mi_jax.models import convolution
from mi_jax.models.layers import Conv, Dense, ForwardContext, Head, NormalStream, channels
from mi_jax.models.registry import ModelSpec, register

_CONV_WIDTHS = (16, 32, 64)
_DENSE_WIDTH = 64


class CNN(nnx.Module):
    """Three 3 x 3 convolutions, each with max-pooling, and a dense layer.

    Taps: `conv1`, `conv2`, `conv3`, `dense1` after the ReLU, `logits`.
    """

    def __init__(self, description: ModelSpec, draws: NormalStream):
        height, width, features = description.input_shape
        for number, base in enumerate(_CONV_WIDTHS, start=1):
            widened = channels(base, description.width)
            setattr(self, f"conv{number}", Conv(features, widened, 3, draws, bias=True))
            features = widened
            height, width = convolution.pooled_shape(height, width)
        hidden = channels(_DENSE_WIDTH, description.width)
        self.dense1 = Dense(height * width * features, hidden, draws)
        self.head = Head(hidden, description.num_classes, draws)

    def __call__(self, x: jax.Array, run: ForwardContext) -> jax.Array:
        """Logits of normalised images."""
        for number in range(1, len(_CONV_WIDTHS) + 1):
            name = f"conv{number}"
            x = run.tap(name, jax.nn.relu(getattr(self, name)(x, run)))
            x = convolution.max_pool(x)
        x = run.tap("dense1", jax.nn.relu(self.dense1(x.reshape(x.shape[0], -1), run)))
        return self.head(x, run)


@register("cnn")
def build_cnn(description: ModelSpec, draws: NormalStream) -> CNN:
    """Three convolutions and a dense layer."""
    return CNN(description, draws)
