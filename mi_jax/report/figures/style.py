"""How every figure looks: a colour a training, a line style a kind of input, bands over seeds, hollow saturated points.

It reads tables of means and intervals, and chooses no data.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from mi_jax.report.intervals import Table
from mi_jax.report.names import name_of

RC: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
GREY = "#6b6b6b"
WIDTH = 9.0
"""Width of a figure in inches."""
# Okabe and Ito's palette, whose colours stay apart under the common colour-vision deficiencies.
_FIXED = {"nt": "#0072B2", "at": "#D55E00", "trades": "#009E73", "mart": "#CC79A7", "gaussian": "#E69F00"}
_SPARE = ("#56B4E9", "#000000", "#8C6D31", "#7B3294", "#999999")
_MOST_MARKS = 40
_LINES = {"clean": "-", "adversarial": "--"}


def colour_of(training: str, trainings: Sequence[str]) -> str:
    """The colour of a training: the same in every figure and report for the usual ones, distinct for the others."""
    if training in _FIXED:
        return _FIXED[training]
    others = [name for name in trainings if name not in _FIXED]
    return _SPARE[others.index(training) % len(_SPARE)]


def line_of(inputs: str) -> Any:
    """The line style of a kind of input: clean solid, adversarial dashed, any other dotted."""
    return _LINES.get(inputs, ":")


def layer_colours(count: int) -> list[str]:
    """A sequential colour a layer, dark first; the pale end of the map is left out."""
    return [to_hex(rgba) for rgba in matplotlib.colormaps["viridis"](np.linspace(0.0, 0.88, count))]


def new_figure(height: float, *, width: float = WIDTH) -> Figure:
    """An empty figure that lays itself out."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06))
    return figure


def grid_of(figure: Figure, rows: int, columns: int, **options: Any) -> np.ndarray:
    """Axes in a grid, always as a two-dimensional array."""
    return figure.subplots(rows, columns, squeeze=False, **options)


def draw_curve(axes: Axes, x: Any, table: Table, *, colour: Any, line: Any = "-", label: str | None = None) -> Line2D:
    """Draws the mean of a table from `over_seeds` with its band; points saturated in any seed are hollow."""
    x, mean = np.asarray(x, dtype=float), table["mean"].to_numpy(dtype=float)
    (curve,) = axes.plot(x, mean, color=colour, linestyle=line, label=label)
    if table["low"].notna().any():
        axes.fill_between(x, table["low"], table["high"], color=colour, alpha=0.14, linewidth=0)
    draw_marks(axes, x, mean, table["saturated"].to_numpy(dtype=bool), colour=colour)
    return curve


def draw_marks(axes: Axes, x: Any, y: Any, hollow: np.ndarray, *, colour: Any, size: float = 4) -> None:
    """Points: filled, or hollow where the estimate is saturated. Left out where they would run into one another."""
    if len(hollow) > _MOST_MARKS:
        return
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    for chosen, face in ((~hollow, colour), (hollow, "white")):
        if chosen.any():
            style = {"marker": "o", "linestyle": "none", "markersize": size, "zorder": 3}
            axes.plot(x[chosen], y[chosen], markerfacecolor=face, markeredgecolor=colour, **style)


def draw_whiskers(axes: Axes, x: Any, table: Table, *, colour: Any) -> None:
    """The 95 % intervals of a table from `over_seeds` as whiskers; none where there is no interval."""
    reach = np.nan_to_num((table["high"] - table["mean"]).to_numpy(dtype=float))
    axes.errorbar(x, table["mean"], yerr=reach, fmt="none", ecolor=colour, elinewidth=1, capsize=2.5)


def fit_to_means(panels: Iterable[Axes], *, floor: float | None = None, ceiling: float | None = None) -> None:
    """Sets y-limits by the lines, so that a band that is wide for want of seeds does not flatten the curves."""
    panels = list(panels)
    values = [np.asarray(line.get_ydata(), dtype=float) for axes in panels for line in axes.lines]
    everything = np.concatenate([v[np.isfinite(v)] for v in values] or [np.zeros(1)])
    if everything.size == 0:
        return
    low, high = float(everything.min()), float(everything.max())
    margin = 0.06 * (high - low) or 0.05 * max(abs(high), 1.0)
    low = low - margin if floor is None else max(low - margin, floor)
    high = high + margin if ceiling is None else min(high + margin, ceiling)
    for axes in panels:
        axes.set_ylim(low, high)


def epoch_axis(axes: Axes, epochs: Any) -> None:
    """Scales an axis of epochs: linear, or for long runs linear to 1 and logarithmic beyond."""
    axes.set_xlabel("epoch")
    last = float(np.max(epochs)) if len(epochs) else 1.0
    if last <= 30:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        return
    ticks = [tick for tick in (0, 1, 3, 10, 30, 100, 300, 1000, 3000) if tick <= last]
    axes.set_xscale("symlog", linthresh=1.0)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlim(-0.1, last * 1.15)


def layer_axis(axes: Axes, layers: Sequence[str]) -> None:
    """Names the layers along an axis, slanted where there are many."""
    many = len(layers) > 5
    axes.set_xticks(range(len(layers)), layers, rotation=40 if many else 0, ha="right" if many else "center")
    axes.tick_params(labelbottom=True)


def condition_handles(trainings: Sequence[str], kinds: Sequence[str], *, hollow: bool = False) -> list[Line2D]:
    """Legend entries for every training and kind of input, and for hollow points if there are any."""
    handles = [
        Line2D([], [], color=colour_of(t, trainings), linestyle=line_of(k), label=f"{name_of(t)}, {k}")
        for t in trainings
        for k in kinds
    ]
    if hollow:
        handles.append(
            Line2D(
                [], [], linestyle="none", marker="o", markerfacecolor="white", markeredgecolor=GREY, label="saturated"
            )
        )
    return handles


def legend_above(figure: Figure, handles: Sequence[Any]) -> None:
    """One legend for the whole figure, above it."""
    figure.legend(handles=list(handles), loc="outside upper center", ncols=min(len(handles), 6), handlelength=2.6)


def draw_ceiling(axes: Axes, height: float, label: str | None = None) -> None:
    """A dotted line that no estimate can exceed, with its name."""
    axes.axhline(height, color=GREY, linestyle=":", linewidth=1.0, zorder=1)
    if label:
        axes.annotate(
            label, (1.0, height), xycoords=("axes fraction", "data"), xytext=(-2, -3), textcoords="offset points",
            ha="right", va="top", fontsize=7.5, color=GREY,
        )  # fmt: skip
