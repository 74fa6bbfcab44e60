"""`mi-jax validate`: every estimator on tasks of known information."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mi_jax.cli import flags
from mi_jax.cli.session import session
from mi_jax.files import printable
from mi_jax.information.benchmark import FULL, BenchmarkConfig, run
from mi_jax.runs.progress import Status
from mi_jax.text_table import TextTable


@dataclass(frozen=True)
class ValidateCommand:
    """Runs every estimator on every task, and counts how often the 95 % intervals of Monte Carlo hold.

    Attributes:
        run_dir: where tables and figures are written. The same command on an unfinished directory resumes.
        full: the larger grid, which takes hours instead of minutes.
    """

    run_dir: Path = Path("runs/validation")
    full: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


def main(arguments: Sequence[str], *, program: str) -> None:
    """Parses the flags, validates, and prints the summary."""
    command = flags.parse(ValidateCommand, arguments, program=program)
    stopped = f"Stopped; {command.run_dir} is saved. The same command resumes."
    with session(ValidateCommand, when_stopped=stopped) as (reporter, stop):

        def report_progress(done: float, stage: str) -> None:
            reporter.update(Status(stage=stage, done=done))

        config = FULL if command.full else BenchmarkConfig()
        summary = run(
            config,
            folder=command.run_dir,
            report_progress=report_progress,
            stop_asked=stop,
            say=reporter.say,
            command=printable(shlex.join([*program.split(), *arguments])),
        )
        heads = ["estimator", *summary.columns.drop("estimator")]
        rows = [
            [f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row]
            for row in summary[heads].itertuples(index=False)
        ]
        reporter.show(TextTable("Estimators on the grid, bits", heads, rows, show_lines=False))
        reporter.say(f"Tables and figures: {command.run_dir}")
