"""Shape or texture: which cue a network's predictions follow, and which its layers carry."""

from mi_jax.studies.shape_texture import behaviour, epochs_figure, figure, study

__all__ = ["behaviour", "epochs_figure", "figure", "study"]
