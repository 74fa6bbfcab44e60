"""Accuracy and information that remain as shape or texture is removed from the images step by step."""

from mi_jax.studies.distortions.figure import FIGURES
from mi_jax.studies.distortions.study import measure
from mi_jax.studies.registry import Study, register

STUDY = register(
    Study(
        "distortions",
        title="Accuracy and information under image distortions",
        measure=measure,
        figures=FIGURES,
    ),
    aliases=("distortion_curves",),
)
