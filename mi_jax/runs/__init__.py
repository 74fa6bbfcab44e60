"""One run from configuration to report, resumable after any interruption."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mi_jax.runs.experiment import run, study

__all__ = ["run", "study"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # on first use: reading a configuration needs neither checkpoints nor figures
        import mi_jax.runs.experiment as implementation

        return getattr(implementation, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
