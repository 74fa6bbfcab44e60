"""ResNet-18 and ResNet-34 (He et al. 2016a), with a 3 x 3 stem for small images or the 7 x 7 stem of ImageNet."""

import jax
import jax.numpy as jnp
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
    """Stem, four stages, mean pooling. Taps: `stem`, `stage1` to `stage4`, `pooled`, `logits`.

    The stem of ImageNet halves the sides, and so does the max-pooling after it.
    """

    def __init__(self, depths: tuple[int, ...], spec: ModelSpec, stream: NormalStream, *, imagenet: bool = False):
        self.depths, self.imagenet = depths, imagenet
        features = spec.channels(_STAGE_WIDTHS[0])
        size, stride = (7, 2) if imagenet else (3, 1)
        self.stem = Conv(spec.input_shape[-1], features, size, spec, stream, stride=stride)
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
        if self.imagenet:
            sides, border = (1, 3, 3, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, sides, (1, 2, 2, 1), border)
        for stage, depth in enumerate(self.depths, start=1):
            for block in range(1, depth + 1):
                x = getattr(self, f"stage{stage}_block{block}")(x, context)
            x = context.tap(f"stage{stage}", x)
        return self.head(context.tap("pooled", convolution.mean_pool(x)), context)


@register("resnet18")
def build_resnet18(spec: ModelSpec, stream: NormalStream) -> ResNet:
    """Two blocks per stage."""
    return ResNet(_STAGE_DEPTHS["resnet18"], spec, stream)


@register("resnet34")
def build_resnet34(spec: ModelSpec, stream: NormalStream) -> ResNet:
    """Three, four, six and three blocks."""
    return ResNet(_STAGE_DEPTHS["resnet34"], spec, stream)


@register("resnet18-imagenet")
def build_resnet18_imagenet(spec: ModelSpec, stream: NormalStream) -> ResNet:
    """Two blocks per stage after the stem of ImageNet, as torchvision's."""
    return ResNet(_STAGE_DEPTHS["resnet18"], spec, stream, imagenet=True)
