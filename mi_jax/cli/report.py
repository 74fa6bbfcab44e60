"""`mi-jax report`: reports from the records of runs, a summary of several runs, and copies to publish."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mi_jax import report
from mi_jax.cli import flags
from mi_jax.cli.session import flags_in_messages
from mi_jax.errors import InputError
from mi_jax.files import disk_errors_explained


@dataclass(frozen=True)
class ReportCommand:
    """Rebuilds figures/*.png and report.html of run directories from their records.

    Attributes:
        run_dirs: the run directories, for example runs/shapetex-vgg.
        every_figure: draw the minor figures too: further noise rules, and binning.
        summary: write the accuracies of all the runs and the verdicts on the claims side by side to this Markdown
            file, with a figure next to it, instead of the reports.
        publish: copy the one run or sweep to this new directory, with compressed records and without what `report`
            makes, instead of making the report.
        networks: copy the finished networks too.
    """

    run_dirs: Annotated[list[Path], tyro.conf.Positional]
    every_figure: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    summary: Path | None = None
    publish: Path | None = None
    networks: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


def main(arguments: Sequence[str], *, program: str) -> None:
    """Parses the flags, makes what they request, and prints where it is."""
    command = flags.parse(ReportCommand, arguments, program=program)
    if not command.run_dirs:
        raise InputError("No run directory was given; give at least one, for example runs/shapetex-vgg.")
    if command.publish is not None and len(command.run_dirs) > 1:
        raise InputError("--publish copies one run; give one run directory.")
    if command.every_figure and (command.summary is not None or command.publish is not None):
        raise InputError("--every-figure is for reports; leave it out, or leave out --summary and --publish.")
    if command.networks and command.publish is None:
        raise InputError("--networks needs --publish; give the directory of the copy too.")
    with flags_in_messages(ReportCommand), disk_errors_explained(command.run_dirs[0]):
        if command.summary is not None:
            print(report.summarise(command.run_dirs, command.summary))
        if command.publish is not None:
            from mi_jax.runs.publish import publish  # checkpoints take seconds to import

            print(publish(command.run_dirs[0], command.publish, networks=command.networks))
        if command.summary is None and command.publish is None:
            import mi_jax.cue_strength_sweep.figure  # noqa: F401  # adds the figure of sweeps

            for run_dir in command.run_dirs:
                print(report.build(run_dir, every_figure=command.every_figure))
