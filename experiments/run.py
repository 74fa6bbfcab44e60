"""Runs one experiment from data to report: `python experiments/run.py --arch=vgg`; `--help` explains every option."""

import shlex
import sys

from mi_jax import cli, parallel, runs
from mi_jax.report import terminal
from mi_jax.runs.progress import Reporter
from mi_jax.runs.signals import StopSignals
from mi_jax.training import Interrupted


def main() -> None:
    """Parses the command line, runs, and prints the outcome."""
    with cli.leaving_cleanly():
        command = cli.parse_run(sys.argv[1:])
        parallel.keep_compiled_programs()
        with StopSignals() as stop, Reporter() as reporter:
            reporter.say(f"{command.config.arch} on {command.config.dataset}, writing {command.directory}")
            try:
                page = runs.run(
                    command.config,
                    run_dir=command.directory,
                    data_dir=command.data_dir,
                    overwrite=command.overwrite,
                    command=shlex.join(["python", *sys.argv]),
                    reporter=reporter,
                    stop_asked=stop,
                )
            except Interrupted:
                same = "The same command without --overwrite" if command.overwrite else "The same command"
                reporter.say(f"Stopped; {command.directory} is saved. {same} goes on from here.")
                sys.exit(stop.exit_status)
            reporter.show(terminal.table(command.directory))
            reporter.say(f"Report: {page}")


if __name__ == "__main__":
    main()
