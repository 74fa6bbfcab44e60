"""`mi-jax sweep`: shape bias over a grid of cue strengths."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mi_jax.cli import flags
from mi_jax.cli.session import flags_in_messages, session
from mi_jax.cue_strength_sweep import run as sweep
from mi_jax.cue_strength_sweep.run import Sweep
from mi_jax.files import printable


@dataclass(frozen=True)
class SweepCommand:
    """Trains over a grid of cue strengths and shows how adversarial training changes the shape bias in each cell.

    Attributes:
        sweep: what is trained and measured; saved in the run directory, where only the same sweep can be resumed.
        run_dir: where records and the figure are written. The same command on an unfinished directory resumes with
            the first cell that is not done.
        cells_from: directories of sweeps that differ from this one only in their grid; cells that they have finished
            are taken from them instead of being trained again.
        overwrite: delete an earlier sweep in the run directory and start from scratch.
    """

    sweep: Annotated[Sweep, tyro.conf.arg(name="")] = Sweep()
    run_dir: Path = Path("runs/cue-strength-sweep")
    cells_from: tuple[str, ...] = ()
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


def main(arguments: Sequence[str], *, program: str) -> None:
    """Parses the flags, sweeps, and prints where the figure is."""
    with flags_in_messages(SweepCommand):
        command = flags.parse(SweepCommand, arguments, program=program)
    same = "The same command without --overwrite" if command.overwrite else "The same command"
    stopped = f"Stopped; the finished cells in {command.run_dir} are kept. {same} resumes."
    with session(SweepCommand, when_stopped=stopped) as (reporter, stop):
        reporter.say(f"{len(command.sweep.cells)} cells, writing {command.run_dir}")
        figure = sweep.run(
            command.sweep,
            run_dir=command.run_dir,
            cells_from=[Path(os.path.expanduser(place)) for place in command.cells_from],
            overwrite=command.overwrite,
            command=printable(shlex.join([*program.split(), *arguments])),
            reporter=reporter,
            stop_asked=stop,
        )
        reporter.say(f"Figure: {figure}")
