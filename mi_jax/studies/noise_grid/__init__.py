"""Information against the noise level: the full curve, on which every noise rule picks one point."""

from mi_jax.studies.noise_grid.figure import FIGURES
from mi_jax.studies.noise_grid.study import measure
from mi_jax.studies.registry import Study, register

STUDY = register(
    Study(
        "noise_grid",
        title="Information against the noise variance",
        measure=measure,
        figures=FIGURES,
    )
)
