"""One run from configuration to report, resumable after any interruption."""

from mi_jax.runs.run import run, study

__all__ = ["run", "study"]
