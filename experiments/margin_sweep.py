"""Sweeps the margins of shape and texture: `python experiments/margin_sweep.py`; `--help` explains every option."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mi_jax import cli, parallel
from mi_jax.cue_strength_sweep import run
from mi_jax.cue_strength_sweep.run import Sweep
from mi_jax.runs.progress import Reporter
from mi_jax.runs.signals import StopSignals
from mi_jax.training import Interrupted


@dataclass(frozen=True)
class SweepCommand:
    """Trains over a grid of margins and draws how adversarial training moves the shape bias in each cell.

    Attributes:
        sweep: what is trained and measured; kept in the run directory and compared when a sweep goes on.
        run_dir: where records and the figure are written. The same command on an unfinished directory goes on with the
            first cell that is not done.
        overwrite: deletes an earlier sweep in `run_dir` and starts anew.
    """

    sweep: Annotated[Sweep, tyro.conf.arg(name="")] = Sweep()
    run_dir: Path = Path("runs/margin-sweep")
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


def main() -> None:
    """Parses the command line, sweeps, and says where the figure is."""
    with cli.leaving_cleanly():
        command = cli.parse(SweepCommand, sys.argv[1:])
        parallel.keep_compiled_programs()
        with StopSignals() as stop, Reporter() as reporter:
            reporter.say(f"{len(command.sweep.cells)} cells, writing {command.run_dir}")
            try:
                figure = run.run(
                    command.sweep,
                    run_dir=command.run_dir,
                    overwrite=command.overwrite,
                    command=shlex.join(["python", *sys.argv]),
                    reporter=reporter,
                    stop_asked=stop,
                )
            except Interrupted:
                reporter.say(f"Stopped; the finished cells in {command.run_dir} are kept. The same command goes on.")
                sys.exit(stop.exit_status)
            reporter.say(f"Figure: {figure}")


if __name__ == "__main__":
    main()
