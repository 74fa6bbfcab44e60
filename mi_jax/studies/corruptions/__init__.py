"""Accuracy on corrupted images: test sets such as CIFAR-10-C, or common corruptions of the run's own test images."""

from mi_jax.studies.corruptions.figure import FIGURES
from mi_jax.studies.corruptions.study import measure
from mi_jax.studies.registry import Study, register

STUDY = register(
    Study(
        "corruptions",
        title="Accuracy on corrupted images",
        measure=measure,
        figures=FIGURES,
        uses_test_sets=True,
    )
)
