"""Runs one study on the trained networks of a run: `python experiments/study.py cue_conflict runs/shapetex-vgg`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mi_jax import cli, parallel, runs
from mi_jax.runs.progress import Reporter
from mi_jax.runs.signals import StopSignals
from mi_jax.studies import WhichCheckpoints
from mi_jax.training import Interrupted


@dataclass(frozen=True)
class StudyCommand:
    """Runs one study on every trained network of a finished run, and rebuilds the report.

    Attributes:
        study: its name; see `mi_jax.studies.STUDIES`.
        run_dir: a directory made by `experiments/run.py`.
        data_dir: where TFDS data sets are; TFDS's own default without it.
        samples: test images the study looks at.
        epochs: the finished networks (last) or those of every epoch that the run measured; the study's habit without.
    """

    study: Annotated[str, tyro.conf.Positional]
    run_dir: Annotated[Path, tyro.conf.Positional]
    data_dir: str | None = None
    samples: int = 500
    epochs: WhichCheckpoints | None = None


def main() -> None:
    """Parses the command line, runs the study, and says where the report is."""
    with cli.leaving_cleanly():
        command = cli.parse(StudyCommand, sys.argv[1:])
        parallel.keep_compiled_programs()
        with StopSignals() as stop, Reporter() as reporter:
            try:
                page = runs.study(
                    command.study,
                    run_dir=command.run_dir,
                    data_dir=command.data_dir,
                    samples=command.samples,
                    which_checkpoints=command.epochs,
                    reporter=reporter,
                    stop_asked=stop,
                )
            except Interrupted:
                reporter.say(f"Stopped before the study was done; {command.run_dir} is as it was.")
                sys.exit(stop.exit_status)
            reporter.say(f"Report: {page}")


if __name__ == "__main__":
    main()
