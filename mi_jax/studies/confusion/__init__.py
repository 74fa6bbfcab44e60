"""Which class is taken for which: matrices of counts and mean confidence, on clean images and their adversarial examples."""

from mi_jax.studies.confusion import figure, study

__all__ = ["figure", "study"]
