"""Confusion matrices on clean images and on adversarial examples: counts and mean confidence."""

from mi_jax.studies.confusion.figure import FIGURES
from mi_jax.studies.confusion.study import measure
from mi_jax.studies.registry import Study, register

STUDY = register(
    Study(
        "confusion",
        title="Confusion matrices, clean and adversarial",
        measure=measure,
        figures=FIGURES,
    ),
    aliases=("transfer_matrix",),
)
