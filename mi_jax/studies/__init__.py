"""Studies of a trained network: each is a function from a network, its variables and data to records."""

from mi_jax.studies import (
    autoattack,
    cue_answers,
    cue_conflict,
    distortion_curves,
    estimators,
    fourier,
    geometry,
    noise_grid,
    saliency,
    transfer_matrix,
)
from mi_jax.studies.registry import STUDIES, Findings, Moments, Study, Subject, find, find_for

__all__ = [
    "STUDIES",
    "Findings",
    "Moments",
    "Study",
    "Subject",
    "autoattack",
    "cue_answers",
    "cue_conflict",
    "distortion_curves",
    "estimators",
    "find",
    "find_for",
    "fourier",
    "geometry",
    "noise_grid",
    "saliency",
    "transfer_matrix",
]
