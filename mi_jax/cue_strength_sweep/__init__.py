"""Networks trained over a grid of cue strengths, and how their shape bias depends on it."""

from mi_jax.cue_strength_sweep.config import Cell, Sweep

__all__ = ["Cell", "Sweep"]
