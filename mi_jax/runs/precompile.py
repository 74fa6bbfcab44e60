"""Compiles the programs that a run will need later in a background thread."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor


class BackgroundCompiler:
    """Makes calls once in one background thread, in their order, for the programs they compile.

    Args:
        calls: name to call; results are discarded.
    """

    def __init__(self, calls: Mapping[str, Callable[[], object]]):
        self._calls = dict(calls)
        self._futures: dict[str, Future] = {}
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="compile")

    def begin(self) -> None:
        """Starts the calls; does nothing the second time."""
        self._futures |= {name: self._pool.submit(call) for name, call in self._calls.items()}
        self._calls = {}

    def is_busy_with(self, name: str) -> bool:
        """Whether the call of that name is still to be done."""
        return name in self._futures and not self._futures[name].done()

    def wait_for(self, name: str) -> None:
        """Waits for the call of that name, if there is one, and raises its exception."""
        if name in self._futures:
            self._futures.pop(name).result()

    def close(self) -> None:
        """Drops the calls that have not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)
