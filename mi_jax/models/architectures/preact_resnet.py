"""ResNet-18 with pre-activation blocks (He et al. 2016b) and the 3 x 3 stem used for small images."""

import jax
from flax import nnx

from mi_jax.models import convolution
from mi_jax.models.architectures.wide_resnet import PreactivationBlock
from mi_jax.models.layers import BatchNorm, Conv, ForwardContext, Head, ModelSpec, NormalStream, relu
from mi_jax.models.registry import register

_STAGE_WIDTHS = (64, 128, 256, 512)
_BLOCKS = 2


@register("preact-resnet18")
class PreactResNet(nnx.Module):
    """Stem, four stages of two blocks, normalisation and mean pooling, as in Rice et al. (2020).

    Taps: `stem` and `stage1` to `stage4` (sums, before the next activation), `pooled`, `logits`.
    """

    def __init__(self, spec: ModelSpec, stream: NormalStream):
        features = spec.channels(_STAGE_WIDTHS[0])
        self.stem = Conv(spec.input_shape[-1], features, 3, spec, stream)
        for stage, base in enumerate(_STAGE_WIDTHS, start=1):
            widened = spec.channels(base)
            for block in range(1, _BLOCKS + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                setattr(
                    self,
                    f"stage{stage}_block{block}",
                    PreactivationBlock(features, widened, stride, 0.0, spec, stream),
                )
                features = widened
        self.norm = BatchNorm(features, spec)
        self.head = Head(features, spec, stream)

    def __call__(self, x: jax.Array, context: ForwardContext) -> jax.Array:
        """Logits of normalised images."""
        x = context.tap("stem", self.stem(x))
        for stage in range(1, len(_STAGE_WIDTHS) + 1):
            for block in range(1, _BLOCKS + 1):
                x = getattr(self, f"stage{stage}_block{block}")(x, context)
            x = context.tap(f"stage{stage}", x)
        x = relu(self.norm(x, context))
        return self.head(context.tap("pooled", convolution.mean_pool(x)), context)
