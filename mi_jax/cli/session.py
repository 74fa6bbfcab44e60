"""What every long command shares: compiled programs on disk, a progress display, and an orderly stop."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mi_jax import parallel
from mi_jax.cli.flags import in_flags
from mi_jax.errors import InputError
from mi_jax.runs.progress import Reporter
from mi_jax.runs.signals import StopSignals
from mi_jax.training import Interrupted


@contextmanager
def session(command: type, *, when_stopped: str) -> Iterator[tuple[Reporter, StopSignals]]:
    """A reporter and the signals to stop, for the body of one command.

    Args:
        command: the dataclass of its flags; messages of the library are put in their terms.
        when_stopped: said when Ctrl-C or SIGTERM has stopped it.
    """
    parallel.keep_compiled_programs()
    with flags_in_messages(command), StopSignals() as stop, Reporter() as reporter:
        try:
            yield reporter, stop
        except Interrupted:
            reporter.say(when_stopped)
            sys.exit(stop.exit_status)


@contextmanager
def flags_in_messages(command: type) -> Iterator[None]:
    """Writes the configuration fields in an `InputError` as flags of the command."""
    try:
        yield
    except InputError as error:
        raise InputError(in_flags(str(error), command)) from error
