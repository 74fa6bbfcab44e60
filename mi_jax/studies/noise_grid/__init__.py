"""Information against the noise level: the whole curve, of which every noise rule takes one point."""

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
