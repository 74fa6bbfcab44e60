"""Wide residual networks with pre-activation blocks (Zagoruyko and Komodakis 2016).

`wrn-10-1` is the one of Zhang et al. (2022): 16/16/32/64 channels and LeakyReLU with slope 0.1. No dropout.
"""

import jax
from flax import nnx

from mi_jax.models import convolution
from mi_jax.models.layers import BatchNorm, Conv, ForwardContext, Head, ModelSpec, NormalStream, relu
from mi_jax.models.registry import register

_STAGE_WIDTHS = (16, 32, 64)


class PreactivationBlock(nnx.Module):
    """Normalise, activate, convolve, twice; the shortcut is a 1 x 1 convolution where the width changes."""

    def __init__(
        self, in_features: int, features: int, stride: int, slope: float, spec: ModelSpec, stream: NormalStream
    ):
        self.slope = slope
        self.norm1 = BatchNorm(in_features, spec)
        self.conv1 = Conv(in_features, features, 3, spec, stream, stride=stride)
        self.norm2 = BatchNorm(features, spec, after="conv1")
        self.conv2 = Conv(features, features, 3, spec, stream)
        self.projected = stride != 1 or in_features != features
        if self.projected:
            self.shortcut = Conv(in_features, features, 1, spec, stream, stride=stride)

    def __call__(self, x: jax.Array, context: ForwardContext) -> jax.Array:
        """`[b h w in_features] -> [b h/stride w/stride features]`."""
        activated = _activate(self.norm1(x, context), self.slope)
        y = _activate(self.norm2(self.conv1(activated), context), self.slope)
        return self.conv2(y) + (self.shortcut(activated) if self.projected else x)


class WideResNet(nnx.Module):
    """Stem, three stages, normalisation and mean pooling.

    Taps: `stem` and `stage1` to `stage3` (sums, before the next activation), `pooled`, `logits`.
    """

    def __init__(self, depth: int, widening: int, slope: float, spec: ModelSpec, stream: NormalStream):
        self.blocks, self.slope = (depth - 4) // 6, slope
        features = spec.channels(_STAGE_WIDTHS[0])
        self.stem = Conv(spec.input_shape[-1], features, 3, spec, stream)
        for stage, base in enumerate(_STAGE_WIDTHS, start=1):
            widened = spec.channels(base * widening)
            for block in range(1, self.blocks + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                setattr(
                    self,
                    f"stage{stage}_block{block}",
                    PreactivationBlock(features, widened, stride, slope, spec, stream),
                )
                features = widened
        self.norm = BatchNorm(features, spec)
        self.head = Head(features, spec, stream)

    def __call__(self, x: jax.Array, context: ForwardContext) -> jax.Array:
        """Logits of normalised images."""
        x = context.tap("stem", self.stem(x))
        for stage in range(1, len(_STAGE_WIDTHS) + 1):
            for block in range(1, self.blocks + 1):
                x = getattr(self, f"stage{stage}_block{block}")(x, context)
            x = context.tap(f"stage{stage}", x)
        x = _activate(self.norm(x, context), self.slope)
        return self.head(context.tap("pooled", convolution.mean_pool(x)), context)


def _activate(x: jax.Array, slope: float) -> jax.Array:
    return jax.nn.leaky_relu(x, slope) if slope else relu(x)


@register("wrn-10-1")
def build_wrn_10_1(spec: ModelSpec, stream: NormalStream) -> WideResNet:
    """One block per stage, LeakyReLU 0.1."""
    return WideResNet(10, 1, 0.1, spec, stream)


@register("wrn-28-10")
def build_wrn_28_10(spec: ModelSpec, stream: NormalStream) -> WideResNet:
    """Four blocks per stage, ten times as wide, ReLU."""
    return WideResNet(28, 10, 0.0, spec, stream)


@register("wrn-34-10")
def build_wrn_34_10(spec: ModelSpec, stream: NormalStream) -> WideResNet:
    """Five blocks per stage, ten times as wide, ReLU."""
    return WideResNet(34, 10, 0.0, spec, stream)
