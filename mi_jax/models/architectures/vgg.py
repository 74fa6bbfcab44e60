"""VGG with batch normalisation (Simonyan and Zisserman 2015) for small images: one dense layer after the last pool.

A side that has shrunk to 1 is no longer pooled, so any image size will do; what is left of the map is averaged.
`vgg11-imagenet` has the three dense layers of the paper.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mi_jax.models import convolution
from mi_jax.models.layers import BatchNorm, Conv, ForwardContext, Head, Linear, ModelSpec, NormalStream, relu
from mi_jax.models.registry import register

_STAGE_WIDTHS = (64, 128, 256, 512, 512)
_STAGE_DEPTHS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
_DENSE = (4096, 4096)
_MAP_SIDE = 7


class ConvBlock(nnx.Module):
    """3 x 3 convolution, batch normalisation, ReLU."""

    def __init__(self, in_features: int, features: int, spec: ModelSpec, stream: NormalStream):
        self.conv = Conv(in_features, features, 3, spec, stream)
        self.norm = BatchNorm(features, spec, after="conv")

    def __call__(self, x: jax.Array, context: ForwardContext) -> jax.Array:
        """`[b h w in_features] -> [b h w features]`."""
        return relu(self.norm(self.conv(x), context))


class VGG(nnx.Module):
    """Five stages of convolutions with max-pooling after each. Taps: `conv1`, `conv2`, ..., `logits`.

    With the dense layers of ImageNet, on a map averaged to 7 x 7 positions, also `dense1` and `dense2`.
    """

    def __init__(self, depths: tuple[int, ...], spec: ModelSpec, stream: NormalStream, *, imagenet: bool = False):
        self.depths, self.imagenet, self.precision = depths, imagenet, spec.precision
        features = spec.input_shape[-1]
        block = 0
        for base, depth in zip(_STAGE_WIDTHS, depths, strict=True):
            for _ in range(depth):
                block += 1
                widened = spec.channels(base)
                setattr(self, f"conv{block}", ConvBlock(features, widened, spec, stream))
                features = widened
        if imagenet:
            features *= _MAP_SIDE**2
            for number, base in enumerate(_DENSE, start=1):
                widened = spec.channels(base)
                setattr(self, f"dense{number}", Linear(features, widened, spec, stream))
                features = widened
        self.head = Head(features, spec, stream)

    def __call__(self, x: jax.Array, context: ForwardContext) -> jax.Array:
        """Logits of normalised images."""
        block = 0
        for depth in self.depths:
            for _ in range(depth):
                block += 1
                name = f"conv{block}"
                x = context.tap(name, getattr(self, name)(x, context))
            x = convolution.max_pool(x)
        if not self.imagenet:
            return self.head(convolution.mean_pool(x), context)
        rows, columns = (jnp.asarray(_shares(side), x.dtype) for side in x.shape[1:3])
        x = jnp.einsum("bhwc,ih,jw->bijc", x, rows, columns, precision=self.precision).reshape(len(x), -1)
        for number in range(1, len(_DENSE) + 1):
            name = f"dense{number}"
            x = context.tap(name, jax.nn.relu(getattr(self, name)(x)))
        return self.head(x, context)


def _shares(side: int) -> np.ndarray:
    """The weights that average a side to 7 positions as PyTorch's adaptive pooling does, `[7 side]`."""
    first = np.arange(_MAP_SIDE) * side // _MAP_SIDE
    last = -(-(np.arange(_MAP_SIDE) + 1) * side // _MAP_SIDE)
    inside = (np.arange(side) >= first[:, None]) & (np.arange(side) < last[:, None])
    return inside / (last - first)[:, None]


@register("vgg11", aliases=("vgg",))
def build_vgg11(spec: ModelSpec, stream: NormalStream) -> VGG:
    """Eight convolutions."""
    return VGG(_STAGE_DEPTHS["vgg11"], spec, stream)


@register("vgg13")
def build_vgg13(spec: ModelSpec, stream: NormalStream) -> VGG:
    """Ten convolutions."""
    return VGG(_STAGE_DEPTHS["vgg13"], spec, stream)


@register("vgg16")
def build_vgg16(spec: ModelSpec, stream: NormalStream) -> VGG:
    """Thirteen convolutions."""
    return VGG(_STAGE_DEPTHS["vgg16"], spec, stream)


@register("vgg19")
def build_vgg19(spec: ModelSpec, stream: NormalStream) -> VGG:
    """Sixteen convolutions."""
    return VGG(_STAGE_DEPTHS["vgg19"], spec, stream)


@register("vgg11-imagenet")
def build_vgg11_imagenet(spec: ModelSpec, stream: NormalStream) -> VGG:
    """Eight convolutions and three dense layers, as torchvision's `vgg11_bn`."""
    return VGG(_STAGE_DEPTHS["vgg11"], spec, stream, imagenet=True)
