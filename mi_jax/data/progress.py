"""Progress of long work on stderr: a bar on a terminal, otherwise a plain line now and then."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

SECONDS_BETWEEN_LINES = 5.0


@contextlib.contextmanager
def progress(task: str, total: int) -> Iterator[Callable[[int], None]]:
    """Report a task of `total` items; the context gives a function to be called with the number of items just done."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bar:
            identity = bar.add_task(task, total=total)
            yield lambda count: bar.advance(identity, count)
        return
    done, last = 0, time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            print(f"{task}: {done} of {total}", file=sys.stderr, flush=True)

    print(f"{task}: {total} images", file=sys.stderr, flush=True)
    yield advance
