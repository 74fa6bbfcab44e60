"""One run from configuration to report, resumable at any moment; the only writer of a run directory."""

from mi_jax.runs.run import run, study

__all__ = ["run", "study"]
