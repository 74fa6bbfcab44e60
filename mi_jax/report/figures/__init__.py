"""The figures of a report: those of every run, one module per subject here, and those of the studies."""

import importlib
import pkgutil

from mi_jax.plotting import figures
from mi_jax.plotting.figures import FigureSpec, save
from mi_jax.records.run_records import RunRecords
from mi_jax.studies import STUDIES

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def available(run_records: RunRecords) -> list[FigureSpec]:
    """The figures that the records allow, in the order of the page."""
    return figures.available(run_records, [spec for study in STUDIES.values() for spec in study.figures])


__all__ = ["FigureSpec", "available", "save"]
