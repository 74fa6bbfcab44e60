"""The figures of the report, one module a subject.

A module placed here registers its figures and needs no other change; it computes no claim.
"""

import importlib
import pkgutil

from mi_jax.plotting.figures import FigureSpec, available, register, save

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["FigureSpec", "available", "register", "save"]
