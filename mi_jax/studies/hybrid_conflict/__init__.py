"""Cue conflict on any images: coarse against fine spatial frequencies, and outline against local patches."""

from mi_jax.studies.hybrid_conflict.figure import FIGURES
from mi_jax.studies.hybrid_conflict.images import unsupported_reason
from mi_jax.studies.hybrid_conflict.study import measure
from mi_jax.studies.registry import Study, register

STUDY = register(
    Study(
        "hybrid_conflict",
        title="Cue conflict on natural images: low or high frequencies, outline or patches",
        measure=measure,
        figures=FIGURES,
        unsupported_reason=unsupported_reason,
    )
)
