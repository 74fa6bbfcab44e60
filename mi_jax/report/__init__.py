"""The report of a run: figures, claims and one self-contained page, made from its records alone."""

from mi_jax.report.page import build

__all__ = ["build"]
