"""What the estimates of I(X;T) are made of: distances, rank, distinguishable samples; how much of a change is scale."""

from mi_jax.studies.geometry.figure import FIGURES
from mi_jax.studies.geometry.study import measure
from mi_jax.studies.registry import Study, register

STUDY = register(
    Study(
        "geometry",
        title="Geometry behind the estimates, and how much of a change is scale",
        measure=measure,
        figures=FIGURES,
        which_checkpoints="measured",
    )
)
