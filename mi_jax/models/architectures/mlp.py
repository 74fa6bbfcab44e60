"""The multilayer perceptron of the information-bottleneck studies: 1024-20-20-20 (Zhang et al. 2022), ReLU."""

import jax
from flax import nnx

from mi_jax.models.layers import Dense, ForwardContext, Head, NormalStream, channels
from mi_jax.models.registry import ModelSpec, register

_WIDTHS = (1024, 20, 20, 20)


class MLP(nnx.Module):
    """Dense layers over the flattened image. Taps: `dense1` to `dense4` after the ReLU, `logits`."""

    def __init__(self, description: ModelSpec, draws: NormalStream):
        height, width, features = description.input_shape
        features *= height * width
        for number, base in enumerate(_WIDTHS, start=1):
            widened = channels(base, description.width)
            setattr(self, f"dense{number}", Dense(features, widened, draws))
            features = widened
        self.head = Head(features, description.num_classes, draws)

    def __call__(self, x: jax.Array, run: ForwardContext) -> jax.Array:
        """Logits of normalised images."""
        x = x.reshape(x.shape[0], -1)
        for number in range(1, len(_WIDTHS) + 1):
            name = f"dense{number}"
            x = run.tap(name, jax.nn.relu(getattr(self, name)(x, run)))
        return self.head(x, run)


@register("mlp")
def build_mlp(description: ModelSpec, draws: NormalStream) -> MLP:
    """Four hidden layers."""
    return MLP(description, draws)
