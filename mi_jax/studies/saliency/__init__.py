"""Where a network looks, in numbers: attribution maps against known shape and texture, edges, and random rankings."""

from mi_jax.studies.registry import Study, register
from mi_jax.studies.saliency.figure import FIGURES
from mi_jax.studies.saliency.study import measure

STUDY = register(
    Study(
        "saliency",
        title="Attribution maps against edges, shape and texture",
        measure=measure,
        figures=FIGURES,
    )
)
