"""What other estimators say of each layer: unbiased values under every noise rule, and a panel that uses no noise."""

from mi_jax.studies.estimators import figure, study

__all__ = ["figure", "study"]
