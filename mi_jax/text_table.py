"""A table for a terminal of any width and encoding: a list where it does not fit, so that no number is cut off."""

from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mi_jax.records.labels import DASH, MINUS

_ASCII = str.maketrans({MINUS: "-", DASH: "-", "\N{GREEK SMALL LETTER RHO}": "r", "\N{SQUARE ROOT}": "sqrt"})


@dataclass(frozen=True)
class TextTable:
    """A titled table of texts, which rich prints in the width and the encoding of the console.

    Attributes:
        title: what is above the table.
        heads: names of the columns.
        rows: cells of every row, the first of which names the row.
        show_lines: whether there are lines between rows, for cells of several lines.
    """

    title: str
    heads: list[str]
    rows: list[list[str]]
    show_lines: bool = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        def encodable(text: str) -> str:
            try:
                text.encode(options.encoding)
            except UnicodeEncodeError:
                return text.translate(_ASCII).encode(options.encoding, "replace").decode(options.encoding)
            return text

        table = self._as_table(encodable)
        fits = Measurement.get(console, options.update(max_width=10_000), table).minimum <= options.max_width
        yield from [table] if fits else self._as_list(encodable)

    def _as_table(self, encodable: Callable[[str], str]) -> Table:
        # As `Text`, in which brackets are brackets and not markup.
        shown = Table(title=Text(encodable(self.title)), title_justify="left", show_lines=self.show_lines)
        for head in self.heads:
            shown.add_column(Text(encodable(head)), overflow="fold")
        for row in self.rows:
            shown.add_row(*(Text(encodable(cell), overflow="fold") for cell in row))
        return shown

    def _as_list(self, encodable: Callable[[str], str]) -> list[Text | Padding]:
        """The rows below one another: the first cell, then the others with the names of their columns."""
        shown: list[Text | Padding] = [Text(encodable(self.title), style="italic", overflow="fold")]
        for first, *others in self.rows:
            shown.append(Text(encodable(first), style="bold", overflow="fold"))
            for head, cell in zip(self.heads[1:], others, strict=True):
                if cell:
                    shown.append(Padding(Text(encodable(f"{head}: {cell}"), overflow="fold"), (0, 0, 0, 2)))
        return shown
