"""Studies of a trained network: each is a folder with a measurement, its figures and its registration."""

from mi_jax.measure import autoattack
from mi_jax.studies import (
    confusion,
    distortions,
    estimators,
    fourier,
    geometry,
    noise_grid,
    saliency,
    shape_texture,
)
from mi_jax.studies.registry import STUDIES, Study, StudyInput, StudyResult, WhichCheckpoints, find, find_for

__all__ = [
    "STUDIES",
    "Study",
    "StudyInput",
    "StudyResult",
    "WhichCheckpoints",
    "autoattack",
    "confusion",
    "distortions",
    "estimators",
    "find",
    "find_for",
    "fourier",
    "geometry",
    "noise_grid",
    "saliency",
    "shape_texture",
]
