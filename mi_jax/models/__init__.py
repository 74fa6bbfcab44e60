"""Image classifiers as pure functions: `create` gives a network, its `apply` logits and named activations.

Variables are plain nested dicts of arrays. `register` adds an architecture, see `mi_jax.models.architectures`;
`from_torch` reads a PyTorch checkpoint, `from_function` makes a network of any function of variables and images.
"""

from mi_jax.models.function import FunctionNetwork, from_function
from mi_jax.models.layers import ForwardContext, ModelSpec, NormalStream
from mi_jax.models.network import DTYPES, Network, Taps, create
from mi_jax.models.registry import ARCHITECTURES, register
from mi_jax.models.torch_import import from_torch, read_torch_checkpoint

__all__ = [
    "ARCHITECTURES",
    "DTYPES",
    "ForwardContext",
    "FunctionNetwork",
    "ModelSpec",
    "Network",
    "NormalStream",
    "Taps",
    "create",
    "from_function",
    "from_torch",
    "read_torch_checkpoint",
    "register",
]
