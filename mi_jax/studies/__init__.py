"""Studies of a trained network: each is a function from a network, its variables and data to records."""

from mi_jax.studies import autoattack, cue_conflict, distortion_curves, fourier, saliency, transfer_matrix
from mi_jax.studies.registry import STUDIES, Findings, Study, Subject, find

__all__ = [
    "STUDIES",
    "Findings",
    "Study",
    "Subject",
    "autoattack",
    "cue_conflict",
    "distortion_curves",
    "find",
    "fourier",
    "saliency",
    "transfer_matrix",
]
