"""Names for the array types and callables that cross module borders."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

Images = Float[Array, "b h w c"]
"""Images in [0, 1], batch first, channels last."""
Logits = Float[Array, "b k"]
Labels = Int[Array, " b"]
Flags = Bool[Array, " b"]
Key = PRNGKeyArray | UInt32[Array, "2"]
"""A JAX random key, typed (`jax.random.key`) or raw (`jax.random.PRNGKey`)."""
Variables = dict[str, Any]
"""A nested dict of arrays: `{"params": ..., "batch_stats": ...}`."""
LogitsFn = Callable[[Any, Any], Any]
"""`logits_fn(variables, images) -> logits`: pure and traceable by JAX."""
