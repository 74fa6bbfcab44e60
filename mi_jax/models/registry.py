"""The architectures by name. Each file in `architectures` registers its own."""

from collections.abc import Callable

from flax import nnx

from mi_jax.models.layers import ModelSpec, NormalStream
from mi_jax.registry import Registry

Builder = Callable[[ModelSpec, NormalStream], nnx.Module]
"""`build(spec, stream)`: a module that, called with normalised images and a `ForwardContext`, returns the logits and
taps its layers, the logits last."""

ARCHITECTURES: Registry[Builder] = Registry("architecture", package="mi_jax.models.architectures")
register = ARCHITECTURES.registering
