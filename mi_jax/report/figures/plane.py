"""The information plane: each layer's path of I(T;Y) against I(X;T) through training."""

import math
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mi_jax.plotting import captions, style
from mi_jax.plotting.figures import FigureSpec, register
from mi_jax.plotting.panels import layers_of, unit_of
from mi_jax.records.labels import INFORMATION, INPUTS, NOISE_RULE_NAMES, name_of
from mi_jax.records.run_records import RunRecords
from mi_jax.report.figures.information import is_minor, possible, rows_of, saturated_throughout
from mi_jax.statistics.intervals import Table, over_seeds

_LEGEND_ROWS = 16
"""Layers of the legend that fit beside a row of panels."""


def paths(run_records: RunRecords, rule: str) -> Table:
    """Points of the plane: training, inputs, layer, epoch with mean, low, high of I(X;T) (`_x`) and I(T;Y) (`_y`)."""
    keys = ["training", "inputs", "layer", "epoch"]
    x, y = (
        over_seeds(rows, keys, within=possible(run_records, rows, symbol))
        for symbol in INFORMATION
        for rows in [rows_of(run_records, f"{symbol}_upper", rule)]
    )
    return x.merge(y, on=keys, suffixes=("_x", "_y"))


def _draw(run_records: RunRecords, *, rule: str) -> Figure:
    table = paths(run_records, rule)
    layers = layers_of(run_records, table)
    kinds = [kind for kind in INPUTS if (table["inputs"] == kind).any()]
    trainings = [t for t in run_records.trainings if (table["training"] == t).any()]
    colours = style.layer_colours(len(layers))
    figure = style.new_figure(0.5 + 2.9 * len(kinds))
    panels = style.grid_of(figure, len(kinds), len(trainings), sharex=True, sharey=True)
    for i, kind in enumerate(kinds):
        for j, training in enumerate(trainings):
            here = table[(table["training"] == training) & (table["inputs"] == kind)]
            for layer, colour in zip(layers, colours, strict=True):
                _draw_path(panels[i, j], here[here["layer"] == layer].sort_values("epoch"), colour)
            panels[i, j].set_title(f"{name_of(training)}, {kind} inputs", loc="left")
    for side, set_limits in (("x", panels[0, 0].set_xlim), ("y", panels[0, 0].set_ylim)):
        low, high = table[f"mean_{side}"].min(), table[f"mean_{side}"].max()
        margin = 0.08 * (high - low) or 0.1
        set_limits(low - margin, high + margin)
    unit = unit_of(rows_of(run_records, "i_tx_upper", rule))
    figure.supxlabel(f"I(X;T) ({unit})", fontsize=9)
    figure.supylabel(f"I(T;Y) ({unit})", fontsize=9)
    handles = [Line2D([], [], color=c, marker="o", label=layer) for layer, c in zip(layers, colours, strict=True)]
    if table["saturated_x"].any():
        handles += style.condition_handles([], [], hollow=True)
    columns = math.ceil(len(handles) / (_LEGEND_ROWS * len(kinds)))
    figure.legend(handles=handles, loc="outside right upper", title="layer", ncols=columns)
    return figure


def _draw_path(axes: Axes, path: Table, colour: str) -> None:
    if path.empty:
        return
    x, y = path["mean_x"].to_numpy(), path["mean_y"].to_numpy()
    axes.plot(x, y, color=colour, linewidth=1.1, alpha=0.75)
    hollow = path["saturated_x"].to_numpy(dtype=bool)
    sizes = np.linspace(5, 16, len(path))
    axes.scatter(
        x,
        y,
        s=sizes,
        facecolors=[("white" if h else colour) for h in hollow],
        edgecolors=[colour],
        linewidths=0.8,
        zorder=3,
    )
    for side, reach in (("x", "xerr"), ("y", "yerr")):
        end = path.iloc[[-1]].filter(regex=f"_{side}$").rename(columns=lambda name: name[:-2])
        low, high = style.spread_of(end)
        ends: Any = {reach: np.nan_to_num(np.stack([end["mean"] - low, high - end["mean"]]))}
        axes.errorbar(x[-1:], y[-1:], **ends, fmt="none", ecolor=colour, elinewidth=0.9, zorder=2)
    axes.scatter(
        x[-1:],
        y[-1:],
        s=42,
        facecolors=["white" if hollow[-1] else colour],
        edgecolors=[colour],
        linewidths=1.2,
        zorder=4,
    )


def _caption(run_records: RunRecords, *, rule: str) -> str:
    rows = rows_of(run_records, "i_tx_upper", rule)
    return (
        f"Each layer's path through the information plane, {captions.where(run_records)}: the mean over seeds at each "
        "measured epoch; points grow with the epoch, the large one is the last, its cross the spread over seeds. KDE "
        f"upper bound of I(X;T), difference of upper bounds for I(T;Y), measured with {captions.noise(rows)}, "
        f"{captions.samples(rows)}, {captions.epochs(rows)}. {captions.attack(run_records, rows)} "
        f"{captions.seeds(rows)} Layers from dark (first) to light (last). {captions.limits(rows)} "
        f"{captions.label_leak(rows)}"
    )


for _order, _rule in enumerate(NOISE_RULE_NAMES):
    register(
        FigureSpec(
            name=f"information_plane_{_rule}",
            title=f"Information plane, {NOISE_RULE_NAMES[_rule]}",
            alt="Paths of the layers in the information plane, one column per training, one row per kind of input.",
            caption=partial(_caption, rule=_rule),
            needs=lambda run_records, rule=_rule: all(
                not rows_of(run_records, quantity, rule).empty for quantity in ("i_tx_upper", "i_ty_upper")
            ),
            draw=partial(_draw, rule=_rule),
            order=60 + _order,
            minor=partial(is_minor, rule=_rule),
            uninformative=partial(
                saturated_throughout,
                quantity="i_tx_upper",
                rule=_rule,
                figure=f"Information plane, {NOISE_RULE_NAMES[_rule]}",
            ),
        )
    )
