"""The report of a run, made from its run directory only: figures, tables and one self-contained page."""

from mi_jax.records.run_records import RunRecords, read
from mi_jax.report.page import build
from mi_jax.report.summary import write as summarise

__all__ = ["RunRecords", "build", "read", "summarise"]
