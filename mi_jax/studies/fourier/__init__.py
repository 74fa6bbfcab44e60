"""Networks and attacks by frequency: the error under single waves, and where adversarial perturbations have power."""

from mi_jax.studies.fourier.figure import FIGURES
from mi_jax.studies.fourier.study import measure
from mi_jax.studies.registry import Study, register

STUDY = register(
    Study(
        "fourier",
        title="Sensitivity and adversarial perturbations by spatial frequency",
        measure=measure,
        figures=FIGURES,
    )
)
