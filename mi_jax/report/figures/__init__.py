"""The figures of every run, one module per subject; a module placed here is found without further changes."""

import importlib
import pkgutil

from mi_jax.plotting.figures import FigureSpec, available, register, save

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["FigureSpec", "available", "register", "save"]
