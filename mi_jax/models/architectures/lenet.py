"""LeNet-5 (LeCun et al. 1998) with ReLU and max-pooling in place of its sigmoids and subsampling.

The original reads 32 x 32 pixels; smaller images are padded by 2, and the second convolution keeps the size of a map
too small for it.
"""

import jax
from flax import nnx

from mi_jax.models import convolution
from mi_jax.models.layers import Conv, Dense, ForwardContext, Head, NormalStream, channels
from mi_jax.models.registry import ModelSpec, register

_KERNEL = 5
_ORIGINAL_SIDE = 32


class LeNet(nnx.Module):
    """Two convolutions and two dense layers. Taps: `conv1`, `conv2`, `dense1`, `dense2` after the ReLU, `logits`."""

    def __init__(self, description: ModelSpec, draws: NormalStream):
        height, width, colours = description.input_shape
        first, second, third, fourth = (channels(base, description.width) for base in (6, 16, 120, 84))
        lost = _KERNEL - 1
        padding = 0 if min(height, width) >= _ORIGINAL_SIDE else 2
        self.conv1 = Conv(colours, first, _KERNEL, draws, padding=padding, bias=True)
        height, width = convolution.pooled_shape(height + 2 * padding - lost, width + 2 * padding - lost)
        padding = 0 if min(height, width) > lost else 2
        self.conv2 = Conv(first, second, _KERNEL, draws, padding=padding, bias=True)
        height, width = convolution.pooled_shape(height + 2 * padding - lost, width + 2 * padding - lost)
        self.dense1 = Dense(height * width * second, third, draws)
        self.dense2 = Dense(third, fourth, draws)
        self.head = Head(fourth, description.num_classes, draws)

    def __call__(self, x: jax.Array, run: ForwardContext) -> jax.Array:
        """Logits of normalised images."""
        x = run.tap("conv1", jax.nn.relu(self.conv1(x, run)))
        x = run.tap("conv2", jax.nn.relu(self.conv2(convolution.max_pool(x), run)))
        x = convolution.max_pool(x)
        x = x.reshape(x.shape[0], -1)
        x = run.tap("dense1", jax.nn.relu(self.dense1(x, run)))
        x = run.tap("dense2", jax.nn.relu(self.dense2(x, run)))
        return self.head(x, run)


@register("lenet", "lenet5")
def build_lenet(description: ModelSpec, draws: NormalStream) -> LeNet:
    """LeNet-5."""
    return LeNet(description, draws)
