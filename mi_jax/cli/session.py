"""What every long command shares: processes, compiled programs on disk, a progress display, and an orderly stop."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import jax
from rich.console import Console

from mi_jax import parallel, processes
from mi_jax.cli.flags import in_flags
from mi_jax.errors import InputError
from mi_jax.runs.progress import Reporter
from mi_jax.runs.signals import EXIT_PREEMPTED, StopSignals
from mi_jax.training import Interrupted


@contextmanager
def session(
    command: type, *, when_stopped: str, address: processes.Address | None = None
) -> Iterator[tuple[Reporter, StopSignals]]:
    """A reporter and the signals to stop, for the body of one command. Only the first process reports.

    Args:
        command: the dataclass of its flags; messages of the library are put in their terms.
        when_stopped: said when Ctrl-C or SIGTERM has stopped it.
        address: where the processes of this job meet; None for a single one.
    """
    processes.start(address)
    parallel.keep_compiled_programs()
    console = None if processes.is_first() else Console(quiet=True)
    with _leaving_together(), flags_in_messages(command), StopSignals() as stop, Reporter(console) as reporter:
        try:
            yield reporter, stop
        except Interrupted:
            reporter.say(when_stopped)
            sys.exit(stop.exit_status)


@contextmanager
def _leaving_together() -> Iterator[None]:
    """Ends this process at once where it cannot tell the others why, as they would wait for it, or it for them."""
    try:
        yield
    except (InputError, KeyboardInterrupt):
        raise
    except Exception as error:
        if processes.count() == 1:
            raise
        lost = isinstance(error, processes.OtherProcessLost | jax.errors.JaxRuntimeError)
        if lost and "RESOURCE_EXHAUSTED" not in str(error):
            reason = str(error).splitlines()[0]
            print(f"Another process of this job is gone ({reason}). The same command resumes.", file=sys.stderr)
        else:
            lost = False
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_PREEMPTED if lost else 1)


@contextmanager
def flags_in_messages(command: type) -> Iterator[None]:
    """Writes the configuration fields in an `InputError` as flags of the command."""
    try:
        yield
    except InputError as error:
        raise InputError(in_flags(str(error), command)) from error
