"""Information of each layer against the noise variance, one panel per layer."""

import math
from functools import partial

from matplotlib.figure import Figure

from mi_jax.plotting import captions, style
from mi_jax.plotting.figures import FigureSpec
from mi_jax.plotting.panels import finish_panels, handles_of, layers_of
from mi_jax.records.labels import INFORMATION, INPUTS
from mi_jax.records.run_records import RunRecords, conditions, final_rows
from mi_jax.statistics.intervals import Table, over_seeds

_QUANTITIES = {"i_tx": ("i_tx_upper",), "i_ty": ("i_ty_certified_upper", "i_ty_certified_lower")}


def _rows(run_records: RunRecords, symbol: str) -> Table:
    return final_rows(run_records.select(quantity=_QUANTITIES[symbol], noise_rule="grid", inputs=INPUTS))


def _draw(run_records: RunRecords, *, symbol: str) -> Figure:
    rows = _rows(run_records, symbol)
    layers = layers_of(run_records, rows)
    columns = min(5, len(layers))
    count = math.ceil(len(layers) / columns)
    figure = style.new_figure(0.8 + 1.9 * count)
    panels = style.grid_of(figure, count, columns, sharey=True)
    for axes, layer in zip(panels.flat, layers, strict=False):
        _draw_layer(axes, run_records, rows[rows["layer"] == layer])
        axes.set_xscale("log")
        axes.set_title(layer, loc="left")
    for axes in panels.flat[len(layers) :]:
        axes.set_visible(False)
    ceiling = finish_panels(run_records, rows, symbol, list(panels.flat[: len(layers)]))
    figure.supylabel(f"{INFORMATION[symbol]} (bits)", fontsize=9)
    figure.supxlabel("noise variance (units of the layer, squared)", fontsize=9)
    style.legend_above(figure, handles_of(run_records, rows.assign(saturated=False)) + ceiling)
    return figure


def _draw_layer(axes, run_records: RunRecords, rows: Table) -> None:
    for quantity, of_quantity in rows.groupby("quantity"):
        # The grid of a layer differs from seed to seed: the i-th level of each is averaged, at their mean variance.
        of_quantity = of_quantity.sort_values("noise_variance")
        level = of_quantity.groupby(["training", "inputs", "seed"]).cumcount()
        table = over_seeds(of_quantity.assign(level=level), ["training", "inputs", "level"])
        variance = of_quantity.assign(level=level).groupby("level")["noise_variance"].median()
        for training, inputs, part in conditions(table, run_records.trainings):
            colour, line = style.colour_of(training, run_records.trainings), style.line_of(inputs)
            x = variance.loc[part["level"]].to_numpy(dtype=float)
            style.draw_line(axes, x, part["mean"], color=colour, linestyle=line, linewidth=1.2)
            low, high = style.spread_of(part)
            axes.fill_between(x, low, high, color=colour, alpha=0.14, linewidth=0)
            if quantity == "i_ty_certified_lower":
                axes.lines[-1].set_linewidth(0.7)


def _caption(run_records: RunRecords, *, symbol: str) -> str:
    rows = _rows(run_records, symbol)
    what = (
        "KDE upper bound (the lower one is the same curve, two levels to the left)"
        if symbol == "i_tx"
        else "the certified bracket, upper bound bold and lower bound thin"
    )
    return (
        f"{INFORMATION[symbol]} of each layer against the noise variance at {captions.last_epoch(rows)}, "
        f"{captions.where(run_records)}: {what}. Rescaling a layer only shifts its curve "
        f"sideways: curves of different shape differ in more than scale. {captions.samples(rows)}. "
        f"{captions.seeds(rows)}{' ' + captions.label_leak(rows) if symbol == 'i_ty' else ''}"
    )


FIGURES = tuple(
    FigureSpec(
        name=f"noise_grid_{symbol}",
        title=f"{INFORMATION[symbol]} against the noise variance",
        alt=f"One panel per layer: {INFORMATION[symbol]} against noise variance for each training, on clean and "
        "adversarial inputs.",
        caption=partial(_caption, symbol=symbol),
        needs=lambda run_records, symbol=symbol: not _rows(run_records, symbol).empty,
        draw=partial(_draw, symbol=symbol),
        order=33 + order,
    )
    for order, symbol in enumerate(INFORMATION)
)
