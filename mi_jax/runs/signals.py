"""Defers SIGINT (Ctrl-C) and SIGTERM (of a scheduler) to the next safe point of a run."""

import signal
from types import FrameType

EXIT_INTERRUPTED = 130
EXIT_PREEMPTED = 75
"""EX_TEMPFAIL of sysexits.h: the state is saved, and the same command resumes."""


class StopSignals:
    """Notes the first SIGINT or SIGTERM; a second SIGINT interrupts at once. Use as a context manager."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def __call__(self) -> bool:
        """Whether a stop was asked for."""
        return self.received is not None

    @property
    def exit_status(self) -> int:
        """The exit status after a requested stop."""
        return EXIT_INTERRUPTED if self.received == signal.SIGINT else EXIT_PREEMPTED

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
