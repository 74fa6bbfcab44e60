"""What information do normally and adversarially trained CNNs take from an image, and is it shape or texture?

`import mi_jax as mj` gives `mj.data`, `mj.models`, `mj.attacks`, `mj.information`, `mj.distortions`,
`mj.attribution`, `mj.checkpoints` and `mj.records`. Each is imported when it is first used, so that an engine
used alone does not pay for the others.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_MODULES = {
    "data": "mi_jax.data",
    "models": "mi_jax.models",
    "attacks": "mi_jax.attacks",
    "information": "mi_jax.information",
    "distortions": "mi_jax.distortions",
    "attribution": "mi_jax.attribution",
    "training": "mi_jax.training",
    "studies": "mi_jax.studies",
    "report": "mi_jax.report",
    "checkpoints": "mi_jax.runs.restore",
    "records": "mi_jax.records",
    "errors": "mi_jax.errors",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    raise AttributeError(f"module 'mi_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_MODULES, "__version__"])
