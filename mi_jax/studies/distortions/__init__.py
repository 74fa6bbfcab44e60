"""What is left of accuracy and information when shape or texture is taken out of the images, step by step."""

from mi_jax.studies.distortions import figure, study

__all__ = ["figure", "study"]
