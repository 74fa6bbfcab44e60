"""Progress of a run: a live line on a terminal or in a notebook, plain lines elsewhere."""

import codecs
import io
import math
import time
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from mi_jax.runs.notebook import CellLine

_ASCII = {
    "\N{MINUS SIGN}": "-",
    "\N{EN DASH}": "-",
    "\N{EM DASH}": "-",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{PLUS-MINUS SIGN}": "+-",
    "\N{HORIZONTAL ELLIPSIS}": "...",
    "\N{MIDDLE DOT}": "*",
}
"""Characters of tables in ASCII, for an output whose encoding lacks them; all others become a question mark."""


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(_ASCII.get(c, "?") for c in error.object[error.start : error.end]), error.end


codecs.register_error("mi_jax.ascii", _in_ascii)


@dataclass(frozen=True)
class Status:
    """How far a run is; numbers are None until they were measured.

    Attributes:
        stage: what is being done.
        done: completed share of the work of the run, 0 to 1.
        epoch, epochs: of the current training.
        loss, accuracy: on the images trained on.
        robust_accuracy: as last measured.
        images_per_second: images per second of the current training.
    """

    stage: str
    done: float
    epoch: float | None = None
    epochs: int | None = None
    loss: float | None = None
    accuracy: float | None = None
    robust_accuracy: float | None = None
    images_per_second: float | None = None

    def line(self, seconds_left: float | None) -> str:
        """The status as one line of text, the most important first: a narrow terminal cuts its end off."""
        parts = [] if seconds_left is None else [f"{duration(seconds_left)} left"]
        parts += [f"{self.done:.0%}", self.stage]
        if self.epoch is not None:
            parts.append(f"epoch {self.epoch:.1f}/{self.epochs}")
        if self.loss is not None:
            parts.append(f"loss {self.loss:.3f}")
        if self.accuracy is not None:
            parts.append(f"accuracy {self.accuracy:.1%}")
        if self.robust_accuracy is not None:
            parts.append(f"robust {self.robust_accuracy:.1%}")
        if self.images_per_second is not None:
            parts.append(f"{self.images_per_second:,.0f} images/s")
        return "  ".join(parts)


class Reporter:
    """Shows statuses on a console of any encoding; use as a context manager.

    Args:
        console: where to; by default standard output.
        line_seconds: seconds between two plain lines, where there is no terminal to show a live one.
    """

    def __init__(self, console: Console | None = None, *, line_seconds: float = 60.0):
        self._line_seconds = line_seconds
        self.console = console or Console(highlight=False, soft_wrap=True)
        if isinstance(self.console.file, io.TextIOWrapper):
            self.console.file.reconfigure(errors="mi_jax.ascii")
        self._live: Live | CellLine | None = None
        if self._on_terminal:
            self._live = Live(console=self.console, refresh_per_second=4, transient=True)
        elif self.console.is_jupyter:
            self._live = CellLine()
        self._began: float | None = None
        self._began_at = 0.0
        self._last_line = -math.inf

    def __enter__(self) -> "Reporter":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def start_from(self, done: float) -> None:
        """Sets how much an earlier, interrupted command had done; the time left is estimated from there."""
        self._began, self._began_at = None, done

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(Text(text))

    def show(self, shown: RenderableType) -> None:
        """A table, or another renderable of rich, that stays."""
        self.console.print(shown)

    def update(self, status: Status) -> None:
        """Replaces the live line; where there is none, as in a log file, prints a plain one now and then."""
        line = status.line(self._seconds_left(status.done))
        now = time.monotonic()
        if self._live:
            self._live.update(Text(line, no_wrap=True, overflow="ellipsis"))
        elif now - self._last_line >= self._line_seconds:
            self.say(line)
            self._last_line = now

    def _seconds_left(self, done: float) -> float | None:
        """Estimated from the first completed work on: before that, programs are compiled."""
        now = time.monotonic()
        if self._began is None:
            if done > self._began_at:
                self._began, self._began_at = now, done
            return None
        gained, elapsed = done - self._began_at, now - self._began
        return elapsed * (1 - done) / gained if gained > 0.02 and elapsed > 2 else None

    @property
    def _on_terminal(self) -> bool:
        return self.console.is_terminal


def duration(seconds: float) -> str:
    """A length of time as text.

    Examples:
        >>> duration(42.4), duration(187.0), duration(7260.0)
        ('42 s', '3 min 07 s', '2 h 01 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
