"""The study of robust accuracy: AutoAttack at the run's radius, the curve over radii, and sanity checks."""

from mi_jax.studies.autoattack.figure import FIGURES
from mi_jax.studies.autoattack.study import measure
from mi_jax.studies.registry import Study, register

STUDY = register(
    Study(
        "autoattack",
        title="Accuracy under AutoAttack and over eps, with sanity checks",
        measure=measure,
        figures=FIGURES,
    )
)
