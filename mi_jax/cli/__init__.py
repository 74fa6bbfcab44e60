"""The command line: `mi-jax COMMAND ...`, one module per command. `experiments/*.py` run the same commands."""

from mi_jax.cli.dispatch import EXIT_BAD_INPUT, main

__all__ = ["EXIT_BAD_INPUT", "main"]
