"""LeNet-5 (LeCun et al. 1998) with ReLU and max-pooling in place of its sigmoids and subsampling.

The original reads 32 x 32 pixels; smaller images are padded by 2, and the second convolution keeps the size of a map
too small for it.
"""

import jax
from flax import nnx

from mi_jax.models import convolution
from mi_jax.models.layers import Conv, ForwardContext, Head, Linear, ModelSpec, NormalStream, relu
from mi_jax.models.registry import register

_KERNEL = 5
_ORIGINAL_SIDE = 32


@register("lenet", aliases=("lenet5",))
class LeNet(nnx.Module):
    """Two convolutions and two dense layers. Taps: `conv1`, `conv2`, `dense1`, `dense2` after the ReLU, `logits`."""

    def __init__(self, spec: ModelSpec, stream: NormalStream):
        height, width, colours = spec.input_shape
        first, second, third, fourth = (spec.channels(base) for base in (6, 16, 120, 84))
        lost = _KERNEL - 1
        padding = 0 if min(height, width) >= _ORIGINAL_SIDE else 2
        self.conv1 = Conv(colours, first, _KERNEL, spec, stream, padding=padding, bias=True)
        height, width = convolution.pooled_shape(height + 2 * padding - lost, width + 2 * padding - lost)
        padding = 0 if min(height, width) > lost else 2
        self.conv2 = Conv(first, second, _KERNEL, spec, stream, padding=padding, bias=True)
        height, width = convolution.pooled_shape(height + 2 * padding - lost, width + 2 * padding - lost)
        self.dense1 = Linear(height * width * second, third, spec, stream)
        self.dense2 = Linear(third, fourth, spec, stream)
        self.head = Head(fourth, spec, stream)

    def __call__(self, x: jax.Array, context: ForwardContext) -> jax.Array:
        """Logits of normalised images."""
        x = context.tap("conv1", relu(self.conv1(x)))
        x = context.tap("conv2", relu(self.conv2(convolution.max_pool(x))))
        x = convolution.max_pool(x)
        x = x.reshape(x.shape[0], -1)
        x = context.tap("dense1", relu(self.dense1(x)))
        x = context.tap("dense2", relu(self.dense2(x)))
        return self.head(x, context)
