"""Progress in a notebook: one line in the output of the cell, replaced in place."""

import time
from typing import Any

from rich.text import Text

_SECONDS = 0.5
"""Between two updates: a browser cannot show more."""


class CellLine:
    """As much of `rich.live.Live` as a reporter uses; the original needs ipywidgets in a notebook."""

    def __init__(self):
        self._handle: Any = None
        self._last = float("-inf")

    def start(self) -> None:
        """Shows nothing yet: the line appears with its first text."""

    def update(self, text: Text) -> None:
        """Replaces the line."""
        if time.monotonic() - self._last >= _SECONDS:
            self._show(text.plain)
            self._last = time.monotonic()

    def stop(self) -> None:
        """Removes the line."""
        if self._handle is not None:
            self._show("")

    def _show(self, line: str) -> None:
        from IPython.display import display

        content = {"text/plain": line}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)
