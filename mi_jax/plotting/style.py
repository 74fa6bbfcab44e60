"""The look of every figure: one colour per training, one line style per kind of input, bands and points over seeds."""

import math
from collections.abc import Container, Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.typing import ColorType, LineStyleType
from numpy.typing import ArrayLike

from mi_jax.records.labels import name_of
from mi_jax.statistics.intervals import Table

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
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The colours of Okabe and Ito, distinguishable with the common colour-vision deficiencies."""
_FIXED = dict(zip(("nt", "at", "trades", "mart", "noise", "fast", "vib"), PALETTE, strict=True))
_SPARE = ("#8C6D31", "#7B3294", "#999999")
_MOST_MARKS = 40
FEW_SEEDS = 8
"""From this number of seeds on, figures show intervals without the values of the seeds."""
_FITTED, _SPREAD = "fitted", "spread"
_REACH = 0.3
"""How far bands and whiskers may widen a panel, relative to the span of the lines."""
_LINES: dict[str, LineStyleType] = {"clean": "-", "adversarial": "--"}


def colour_of(training: str, trainings: Sequence[str]) -> str:
    """The colour of a training: fixed for those of the package, distinct for up to a hundred others."""
    if training in _FIXED:
        return _FIXED[training]
    others = [name for name in trainings if name not in _FIXED]
    further = matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, max(0, len(others) - len(_SPARE))))
    return (*_SPARE, *map(to_hex, further))[others.index(training)]


def line_of(inputs: str) -> LineStyleType:
    """The line style of a kind of input: clean solid, adversarial dashed, any other dotted."""
    return _LINES.get(inputs, ":")


def layer_colours(count: int) -> list[str]:
    """Sequential colours for layers, dark first; the pale end of the map is left out."""
    return [to_hex(rgba) for rgba in matplotlib.colormaps["viridis"](np.linspace(0.0, 0.88, count))]


def new_figure(height: float, *, width: float = WIDTH) -> Figure:
    """An empty figure with automatic layout."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06))


def grid_of(figure: Figure, rows: int, columns: int, **options: Any) -> np.ndarray:
    """Axes in a grid, always as a two-dimensional array."""
    return figure.subplots(rows, columns, squeeze=False, **options)


def spread_of(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """The ends of bands and whiskers: the 95 % t-interval, or for two seeds their range; NaN for one seed.

    The t-interval of two seeds reaches 12.7 standard errors to each side and would hide everything else.
    """
    two = table["seeds"].to_numpy() == 2
    low, high = (table[name].to_numpy(dtype=float) for name in ("low", "high"))
    return np.where(two, table["least"], low), np.where(two, table["most"], high)


def in_percent(table: Table) -> Table:
    """A table from `over_seeds` of shares, with means, intervals and values in per cent."""
    scaled = table[["mean", "low", "high", "least", "most"]] * 100
    return table.assign(**scaled, values=[tuple(100 * value for value in values) for values in table["values"]])


def draw_line(axes: Axes, x: ArrayLike, y: ArrayLike, **look: Any) -> Line2D:
    """Draws a line that `fit` takes into account when it sets the limits of the panel."""
    (line,) = axes.plot(np.asarray(x, dtype=float), np.asarray(y, dtype=float), gid=_FITTED, **look)
    return line


def draw_curve(axes: Axes, x: ArrayLike, table: Table, *, colour: ColorType, line: LineStyleType = "-") -> None:
    """Draws the mean of a table from `over_seeds` with its band and the seeds' values; hollow where `saturated`."""
    x, mean = np.asarray(x, dtype=float), table["mean"].to_numpy(dtype=float)
    draw_line(axes, x, mean, color=colour, linestyle=line)
    low, high = spread_of(table)
    if np.isfinite(low).any():
        axes.fill_between(x, low, high, color=colour, alpha=0.14, linewidth=0, gid=_SPREAD)
    draw_seeds(axes, x, table, colour=colour)
    draw_marks(axes, x, mean, table["saturated"].to_numpy(dtype=bool), colour=colour)


def draw_seeds(axes: Axes, x: ArrayLike, table: Table, *, colour: ColorType) -> None:
    """The values of the seeds of a table from `over_seeds` as small points, where there are two to seven.

    Left out where a curve has so many points that they would run into one another.
    """
    if len(table) > _MOST_MARKS or not table["seeds"].between(2, FEW_SEEDS - 1).any():
        return
    points = [
        (place, v)
        for place, values in zip(np.asarray(x, dtype=float), table["values"], strict=True)
        for v in _values(values)
    ]
    across, up = zip(*points, strict=True)
    axes.plot(across, up, ".", color=colour, alpha=0.6, markersize=4, markeredgewidth=0, zorder=2.5)


def _values(values: object) -> tuple[float, ...]:
    """The values of the seeds; none for a row without any, as `reindex` makes."""
    return values if isinstance(values, tuple) and 1 < len(values) < FEW_SEEDS else ()


def draw_marks(
    axes: Axes, x: ArrayLike, y: ArrayLike, hollow: np.ndarray, *, colour: ColorType, size: float = 4.0
) -> None:
    """Points, hollow where the estimate is unreliable; left out where they would run into one another."""
    if len(hollow) > _MOST_MARKS:
        return
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    for chosen, face in ((~hollow, colour), (hollow, "white")):
        if chosen.any():
            style = {"marker": "o", "linestyle": "none", "markersize": size, "zorder": 3}
            axes.plot(x[chosen], y[chosen], markerfacecolor=face, markeredgecolor=colour, **style)


def dodged(count: int, i: int, parts: int) -> np.ndarray:
    """Positions of `count` layers for the i-th of several conditions, offset so that whiskers do not overlap."""
    return np.arange(count) + min(0.12, 0.5 / parts) * (i - (parts - 1) / 2)


def draw_whiskers(axes: Axes, x: ArrayLike, table: Table, *, colour: ColorType) -> None:
    """The spread over seeds of a table from `over_seeds` as whiskers and points; none where there is one seed."""
    mean = table["mean"].to_numpy(dtype=float)
    low, high = spread_of(table)
    if not np.isfinite(low).any():
        return
    reach = np.nan_to_num(np.stack([mean - low, high - mean]))
    bars = axes.errorbar(x, mean, yerr=reach, fmt="none", ecolor=colour, elinewidth=1, capsize=2.5).lines[2]
    for bar in bars:
        bar.set_gid(_SPREAD)
    draw_seeds(axes, x, table, colour=colour)


def fit(panels: Iterable[Axes], *, floor: float = -math.inf, ceiling: float = math.inf) -> None:
    """Gives panels one range of y: all their lines, and bands and whiskers as far as they do not flatten the lines."""
    panels = list(panels)
    lines = [np.asarray(line.get_ydata(), dtype=float) for a in panels for line in a.lines if line.get_gid() == _FITTED]
    means = np.concatenate([np.empty(0), *lines])
    means = means[np.isfinite(means)]
    if not means.size:
        return
    low, high = float(means.min()), float(means.max())
    span = high - low or max(abs(high), 1.0) / 5
    spread = [
        np.asarray(path.vertices)[:, 1]
        for axes in panels
        for drawn in axes.collections
        if drawn.get_gid() == _SPREAD
        for path in drawn.get_paths()
    ]
    ends = np.concatenate([means, *spread])
    ends = np.clip(ends[np.isfinite(ends)], low - _REACH * span, high + _REACH * span)
    margin = 0.05 * span
    for axes in panels:
        axes.set_ylim(max(float(ends.min()) - margin, floor), min(float(ends.max()) + margin, ceiling))


def epoch_axis(axes: Axes, epochs: ArrayLike) -> None:
    """Scales an axis of epochs: linear, or for long runs linear up to 1 and logarithmic beyond."""
    axes.set_xlabel("epoch")
    last = float(np.max(epochs)) if np.size(epochs) else 1.0
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
    """Labels an axis with the layers, slanted where there are many."""
    many = len(layers) > 5
    axes.set_xticks(range(len(layers)), layers, rotation=40 if many else 0, ha="right" if many else "center")
    axes.tick_params(labelbottom=True)


def condition_handles(
    trainings: Sequence[str],
    kinds: Sequence[str],
    *,
    hollow: bool = False,
    shown: Container[tuple[str, str]] | None = None,
) -> list[Line2D]:
    """Legend entries for every training and kind of input (of the pairs `shown`), and for hollow points if wanted."""
    handles = [
        Line2D([], [], color=colour_of(t, trainings), linestyle=line_of(k), label=f"{name_of(t)}, {k}")
        for t in trainings
        for k in kinds
        if shown is None or (t, k) in shown
    ]
    if hollow:
        mark = Line2D([], [], linestyle="none", marker="o", markerfacecolor="white", markeredgecolor=GREY)
        mark.set_label("unreliable")
        handles.append(mark)
    return handles


def training_handles(trainings: Sequence[str]) -> list[Line2D]:
    """Legend entries for every training."""
    return [Line2D([], [], color=colour_of(t, trainings), label=name_of(t)) for t in trainings]


_LEGEND_LETTERS, _HANDLE_LETTERS = 115, 6
"""Letters that fit in a row of a legend, and letters as long as a handle with its spaces."""


def legend_above(figure: Figure, handles: Sequence[Artist]) -> None:
    """One legend for the whole figure, above it, in rows of similar length that fit its width."""
    letters = sum(len(str(handle.get_label())) + _HANDLE_LETTERS for handle in handles)
    rows = max(1, math.ceil(len(handles) / 5), math.ceil(letters / _LEGEND_LETTERS))
    columns = max(1, math.ceil(len(handles) / rows))
    figure.legend(handles=list(handles), loc="outside upper center", ncols=columns, handlelength=2.6)


def draw_ceiling(axes: Axes, height: float) -> None:
    """A dotted line at the largest possible value."""
    axes.axhline(height, color=GREY, linestyle=":", linewidth=1.2, zorder=1, gid=_FITTED)


def draw_zero(axes: Axes) -> None:
    """The line of no difference."""
    axes.axhline(0.0, color="#222222", linewidth=0.8, gid=_FITTED)


def ceiling_handle(label: str) -> Line2D:
    """The legend entry of the ceiling."""
    return Line2D([], [], color=GREY, linestyle=":", linewidth=1.2, label=label)
