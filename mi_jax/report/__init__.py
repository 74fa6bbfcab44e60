"""The report of a run: figures, claims and one self-contained page, made from its records alone.

It never touches live objects: a run directory is all it takes.
"""

from mi_jax.records.run_records import RunRecords, read
from mi_jax.report.page import build

__all__ = ["RunRecords", "build", "read"]
