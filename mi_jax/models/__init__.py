"""Image classifiers as pure functions: `create` gives a description, its `apply` logits and named activations.

Does no training, no attack and no data loading; variables are plain nested dicts of arrays.
"""

from mi_jax.models.network import DTYPES, Network, Taps, create
from mi_jax.models.registry import architectures

__all__ = ["DTYPES", "Network", "Taps", "architectures", "create"]
