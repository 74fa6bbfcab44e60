"""Information against the noise level: the whole curve, of which every noise rule takes one point."""

from mi_jax.studies.noise_grid import figure, study

__all__ = ["figure", "study"]
