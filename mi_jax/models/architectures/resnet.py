"""ResNet-18 and ResNet-34 (He et al. 2016a) with the 3 x 3 stem used for small images and no first pooling."""

import jax
from flax import nnx

from mi_jax.models import convolution
from mi_jax.models.layers import BatchNorm, Conv, ForwardContext, Head, ModelSpec, NormalStream, relu
from mi_jax.models.registry import register

_STAGE_WIDTHS = (64, 128, 256, 512)
_STAGE_DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}


class BasicBlock(nnx.Module):
    """Two 3 x 3 convolutions and a shortcut, projected by a 1 x 1 convolution where the shape changes."""

    def __init__(self, in_features: int, features: int, stride: int, spec: ModelSpec, stream: NormalStream):
        self.conv1 = Conv(in_features, features, 3, spec, stream, stride=stride)
        self.norm1 = BatchNorm(features, spec, after="conv1")
        self.conv2 = Conv(features, features, 3, spec, stream)
        self.norm2 = BatchNorm(features, spec, after="conv2")
        self.projected = stride != 1 or in_features != features
        if self.projected:
            self.shortcut = Conv(in_features, features, 1, spec, stream, stride=stride)
            self.shortcut_norm = BatchNorm(features, spec, after="shortcut")

    def __call__(self, x: jax.Array, context: ForwardContext) -> jax.Array:
        """`[b h w in_features] -> [b h/stride w/stride features]`."""
        y = relu(self.norm1(self.conv1(x), context))
        y = self.norm2(self.conv2(y), context)
        if self.projected:
            x = self.shortcut_norm(self.shortcut(x), context)
        return relu(x + y)


class ResNet(nnx.Module):
    """Stem, four stages, mean pooling. Taps: `stem`, `stage1` to `stage4`, `pooled`, `logits`."""

    def __init__(self, depths: tuple[int, ...], spec: ModelSpec, stream: NormalStream):
        self.depths = depths
        features = spec.channels(_STAGE_WIDTHS[0])
        self.stem = Conv(spec.input_shape[-1], features, 3, spec, stream)
        self.stem_norm = BatchNorm(features, spec, after="stem")
        for stage, (base, depth) in enumerate(zip(_STAGE_WIDTHS, depths, strict=True), start=1):
            widened = spec.channels(base)
            for block in range(1, depth + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                setattr(self, f"stage{stage}_block{block}", BasicBlock(features, widened, stride, spec, stream))
                features = widened
        self.head = Head(features, spec, stream)

    def __call__(self, x: jax.Array, context: ForwardContext) -> jax.Array:
        """Logits of normalised images."""
        x = context.tap("stem", relu(self.stem_norm(self.stem(x), context)))
        for stage, depth in enumerate(self.depths, start=1):
            for block in range(1, depth + 1):
                x = getattr(self, f"stage{stage}_block{block}")(x, context)
            x = context.tap(f"stage{stage}", x)
        return self.head(context.tap("pooled", convolution.mean_pool(x)), context)


@register("resnet18")
def build_resnet18(spec: ModelSpec, stream: NormalStream) -> ResNet:
    """Two blocks a stage."""
    return ResNet(_STAGE_DEPTHS["resnet18"], spec, stream)


@register("resnet34")
def build_resnet34(spec: ModelSpec, stream: NormalStream) -> ResNet:
    """Three, four, six and three blocks."""
    return ResNet(_STAGE_DEPTHS["resnet34"], spec, stream)
