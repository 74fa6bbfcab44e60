"""Studies of trained networks: each is a folder with its measurement, its figures and its registration."""

from mi_jax.studies.registry import (
    STUDIES,
    Study,
    StudyInput,
    StudyResult,
    WhichCheckpoints,
    find,
    find_for,
    refuse_test_sets,
    register,
)

__all__ = [
    "STUDIES",
    "Study",
    "StudyInput",
    "StudyResult",
    "WhichCheckpoints",
    "find",
    "find_for",
    "refuse_test_sets",
    "register",
]
