"""What the estimates of I(X;T) are made of: distances, rank, distinguishable samples; how much of a change is scale."""

from mi_jax.studies.geometry import figure, study

__all__ = ["figure", "study"]
