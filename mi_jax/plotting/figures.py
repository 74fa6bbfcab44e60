"""Which figures there are: each says what it needs, so that a report shows just what its records allow.

It draws nothing itself; `save` renders without any global state of pyplot.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from mi_jax.plotting.style import RC
from mi_jax.records.run_records import RunRecords


@dataclass(frozen=True, kw_only=True)
class FigureSpec:
    """A figure: `draw` makes it from the evidence, if `needs` finds there what it takes.

    `caption` states what the records say of it: n, noise variance, epochs, seeds, what bands and marks mean. `alt` is
    one sentence for readers who do not see it. Figures appear by `order`; a `minor` one is folded away at the end.
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
    """Why the figure would show nothing of interest, as a sentence; empty where it is worth drawing."""


_DPI = 160
_REGISTRY: dict[str, FigureSpec] = {}


def register(spec: FigureSpec) -> FigureSpec:
    """Adds a figure to every report whose records allow it. Raises ValueError if the name is taken."""
    if spec.name in _REGISTRY:
        raise ValueError(f"a figure named {spec.name!r} is registered already")
    _REGISTRY[spec.name] = spec
    return spec


def available(run_records: RunRecords) -> list[FigureSpec]:
    """The registered figures that the records allow, in the order of the page."""
    found = [spec for spec in _REGISTRY.values() if spec.needs(run_records)]
    return sorted(found, key=lambda spec: (spec.minor(run_records), spec.order, spec.name))


def save(spec: FigureSpec, run_records: RunRecords, directory: Path) -> Path:
    """Draws a figure and writes `<name>.png` and `<name>.svg`; the same records give the same bytes.

    Returns:
        The path of the PNG.
    """
    with matplotlib.rc_context({**RC, "svg.hashsalt": spec.name}):
        figure = spec.draw(run_records)
        figure.set_dpi(_DPI)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        figure.set_layout_engine("none")  # keeps the layout found for the PNG
        figure.savefig(directory / f"{spec.name}.svg", metadata={"Date": None})
    path = directory / f"{spec.name}.png"
    # `savefig` lays out and draws twice, which was half the time of a report; three channels as nothing is transparent.
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).save(path)
    return path
