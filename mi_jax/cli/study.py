"""`mi-jax study`: one study on the trained networks of a run."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mi_jax import processes, runs
from mi_jax.cli import flags
from mi_jax.cli.run import study_names
from mi_jax.cli.session import flags_in_messages, session
from mi_jax.files import printable
from mi_jax.options import Names
from mi_jax.studies import WhichCheckpoints


@dataclass(frozen=True)
class StudyCommand:
    """Runs one study on every trained network of a finished run, and rebuilds the report.

    Attributes:
        study: name of the study.
        run_dir: a directory made by `mi-jax run`.
        data_dir: where TFDS data sets are; by default, where TFDS stores them.
        samples: number of test images that the study uses.
        epochs: the finished networks (last) or those of every measured epoch (measured); by default what the
            study uses.
        test_sets: for `corruptions`, corrupted test sets to use instead of corruptions of the run's test images:
            TFDS, `npz:` or `folder:` sets, such as cifar10_corrupted/brightness_1, or brightness_* for severities 1
            to 5.
        processes: how many processes share the work: `auto`, `cluster` or a number, as for `mi-jax run`.
        coordinator: HOST:PORT of the first process, where their number is given.
        process_index: index of this process, from 0, where their number is given.
    """

    study: Annotated[str, tyro.conf.Positional]
    run_dir: Annotated[Path, tyro.conf.Positional]
    data_dir: str | None = None
    samples: int = 500
    epochs: WhichCheckpoints | None = None
    test_sets: Names = ()
    processes: str = "auto"
    coordinator: str | None = None
    process_index: int | None = None


def main(arguments: Sequence[str], *, program: str) -> None:
    """Parses the flags, runs the study, and prints where the report is."""
    about = f"{(StudyCommand.__doc__ or '').splitlines()[0]}\n\nStudies: {', '.join(study_names())}."
    command = flags.parse(StudyCommand, arguments, program=program, description=about)
    stopped = "Stopped; finished networks are kept. The same command resumes."
    with flags_in_messages(StudyCommand):
        address = processes.find(command.processes, command.coordinator, command.process_index)
    with session(StudyCommand, when_stopped=stopped, address=address) as (reporter, stop):
        page = runs.study(
            command.study,
            run_dir=command.run_dir,
            data_dir=command.data_dir,
            samples=command.samples,
            command=printable(shlex.join([*program.split(), *arguments])),
            which_checkpoints=command.epochs,
            test_sets=command.test_sets,
            reporter=reporter,
            stop_asked=stop,
        )
        reporter.say(f"Report: {page}")
