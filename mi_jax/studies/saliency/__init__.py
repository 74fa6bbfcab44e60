"""Where a network looks, in numbers: attribution maps against known shape and texture, edges, and random rankings."""

from mi_jax.studies.saliency import figure, study

__all__ = ["figure", "study"]
