"""Networks and attacks by frequency: the error under single waves, and where adversarial perturbations have power."""

from mi_jax.studies.fourier import figure, study

__all__ = ["figure", "study"]
