"""Judges every estimator on tasks of known information: `python experiments/validate_estimators.py`; see `--help`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table

from mi_jax import cli, parallel
from mi_jax.information.benchmark import Validation
from mi_jax.information.benchmark.run import FULL, run
from mi_jax.runs.progress import Reporter, Status


@dataclass(frozen=True)
class ValidateCommand:
    """Runs every estimator on every task, and counts how often the 95 % intervals of Monte Carlo hold.

    Attributes:
        run_dir: where tables and figures are written. The same command on an unfinished directory goes on.
        full: takes the larger grid, for hours; minutes without it.
    """

    run_dir: Path = Path("runs/validation")
    full: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


def main() -> None:
    """Parses the command line, validates, and prints the summary."""
    with cli.leaving_cleanly():
        command = cli.parse(ValidateCommand, sys.argv[1:])
        parallel.keep_compiled_programs()
        with Reporter() as reporter:

            def report_progress(done: float, stage: str) -> None:
                reporter.update(Status(stage=stage, done=done))

            summary = run(
                FULL if command.full else Validation(), folder=command.run_dir, report_progress=report_progress
            )
            table = Table(*summary.columns, title="Estimators on the grid, bits")
            for row in summary.itertuples(index=False):
                table.add_row(*(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row))
            reporter.show(table)
            reporter.say(f"Tables and figures: {command.run_dir}")


if __name__ == "__main__":
    main()
