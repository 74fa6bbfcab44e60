"""`mi-jax report`: the figures and the report of a run, from its records alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mi_jax import report
from mi_jax.cli import flags
from mi_jax.cli.session import flags_in_messages
from mi_jax.runs.directory import disk_errors_explained


@dataclass(frozen=True)
class ReportCommand:
    """Rebuilds figures/*.png and report.html of a run directory from its records.

    Attributes:
        run_dir: the run directory, for example runs/shapetex-vgg.
        every_figure: draw the minor figures too: further noise rules, and binning.
    """

    run_dir: Annotated[Path, tyro.conf.Positional]
    every_figure: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


def main(arguments: Sequence[str], *, program: str) -> None:
    """Parses the flags, rebuilds the report, and prints where it is."""
    command = flags.parse(ReportCommand, arguments, program=program)
    with flags_in_messages(ReportCommand), disk_errors_explained(command.run_dir):
        print(report.build(command.run_dir, every_figure=command.every_figure))
