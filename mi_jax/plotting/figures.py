"""What a figure of a report is: its text, the records that it needs, and how it is drawn and saved."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

from mi_jax.files import replacing
from mi_jax.plotting.style import RC
from mi_jax.records.run_records import RunRecords
from mi_jax.registry import Registry


@dataclass(frozen=True, kw_only=True)
class FigureSpec:
    """A figure of a report.

    Attributes:
        name: name of the file.
        title: heading.
        alt: one sentence for readers who do not see the figure.
        caption: what is shown: n, noise variance, epochs, seeds, and what bands and marks mean.
        needs: whether the records hold what the figure shows.
        draw: makes the figure.
        order: place on the page.
        minor: whether the figure is folded away at the end of the page.
        uninformative: why the figure would show nothing of interest, as a sentence; empty where it is worth drawing.
    """

    name: str
    title: str
    alt: str
    caption: Callable[[RunRecords], str]
    needs: Callable[[RunRecords], bool]
    draw: Callable[[RunRecords], Figure]
    order: int
    minor: Callable[[RunRecords], bool] = lambda _: False
    uninformative: Callable[[RunRecords], str] = lambda _: ""


_DPI = 160
FIGURES: Registry[FigureSpec] = Registry("figure")
"""The figures of every run; those of a study belong to it."""


def register(spec: FigureSpec) -> FigureSpec:
    """Adds a figure to every report whose records allow it.

    Raises:
        ValueError: when the name is taken.
    """
    return FIGURES.register(spec.name, spec, defined_by=spec.draw)


def available(run_records: RunRecords, more: Iterable[FigureSpec] = ()) -> list[FigureSpec]:
    """The registered figures, and of `more`, that the records allow, in the order of the page."""
    found = [spec for spec in (*FIGURES.values(), *more) if spec.needs(run_records)]
    return sorted(found, key=lambda spec: (spec.minor(run_records), spec.order, spec.name))


def save(spec: FigureSpec, run_records: RunRecords, directory: Path) -> Path:
    """Draws a figure of a report and writes it, see `write`."""
    return write(spec.name, lambda: spec.draw(run_records), directory)


def write(name: str, draw: Callable[[], Figure], directory: Path) -> Path:
    """Draws a figure in the style of the package as `<name>.png` and `<name>.svg`; the same data give the same bytes.

    Returns:
        The path of the PNG.
    """
    with matplotlib.rc_context({**RC, "svg.hashsalt": name}):
        figure = draw()
        figure.set_dpi(_DPI)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        figure.set_layout_engine("none")  # keeps the layout found for the PNG
        # `savefig` would draw once more without an output, as it does to find a layout.
        with replacing(directory / f"{name}.svg", durable=False) as file:
            FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    path = directory / f"{name}.png"
    # `savefig` lays out and draws twice, which was half the time of a report; three channels as nothing is transparent.
    with replacing(path, durable=False) as file:
        Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).save(file, "png")
    return path
