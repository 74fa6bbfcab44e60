"""Tables for terminals show every cell whole, at any width and with any characters."""

import io

import pytest
from rich.console import Console

from mi_jax.text_table import TextTable

HEADS = ["network", "clean", "after apgd-ce", "robust"]
ROWS = [["runs/[bold]a", "84.40%", "27.30%", "27.00% [24.3%, 29.9%]"], ["RobustBench: b", "89.69%", "", "59.53%"]]


def shown(width: int, **options) -> str:
    screen = io.StringIO()
    Console(width=width, file=screen).print(TextTable("AutoAttack [Linf]", HEADS, ROWS, **options))
    return screen.getvalue()


def test_a_wide_terminal_shows_one_line_per_row():
    lines = shown(120, show_lines=False).splitlines()
    assert lines[0].strip() == "AutoAttack [Linf]"
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert cells == ROWS


@pytest.mark.parametrize("width", [60, 40, 25])
def test_a_narrow_terminal_shows_every_number_whole(width):
    text = shown(width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    words = text.split()
    for number in ("84.40%", "27.30%", "27.00%", "[24.3%,", "29.9%]", "59.53%"):
        assert number in words
    assert "runs/[bold]a" in words


def test_a_list_leaves_out_cells_without_text():
    lines = [line.rstrip() for line in shown(25).splitlines()]
    assert lines[-3:] == ["RobustBench: b", "  clean: 89.69%", "  robust: 59.53%"]
