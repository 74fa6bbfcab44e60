"""Studies of trained networks: each is a folder with its measurement, its figures and its registration."""

from mi_jax.studies.registry import STUDIES, Study, StudyInput, StudyResult, WhichCheckpoints, find, find_for, register

__all__ = [
    "STUDIES",
    "Study",
    "StudyInput",
    "StudyResult",
    "WhichCheckpoints",
    "find",
    "find_for",
    "register",
]
