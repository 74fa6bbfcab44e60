"""Studies of a trained network: each is a function from a network, its variables and data to records."""

from mi_jax.studies.registry import STUDIES, Findings, Study, Subject, find

__all__ = ["STUDIES", "Findings", "Study", "Subject", "find"]
