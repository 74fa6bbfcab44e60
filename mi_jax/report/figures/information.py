"""Information of each layer against epoch, one panel a layer.

It reads rows of I(X;T) and I(T;Y) by layer; depth at the end of training and the plane are other modules.
"""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mi_jax.plotting import captions, style
from mi_jax.plotting.figures import FigureSpec, register
from mi_jax.plotting.panels import ceiling_of, finish_panels, handles_of, layers_of, unit_of
from mi_jax.records.labels import INFORMATION, INPUTS, NOISE_RULE_NAMES
from mi_jax.records.run_records import RunRecords, conditions, noise_rules
from mi_jax.statistics.intervals import Table, over_seeds


def rows_of(run_records: RunRecords, quantity: str, rule: str | None, *, estimator: str = "kde") -> Table:
    """Rows of one quantity for whole samples of clean and adversarial inputs, under one noise rule."""
    return run_records.select(
        quantity=quantity,
        estimator=estimator,
        noise_rule=rule,
        inputs=INPUTS,
        image_set="test",
        class_=None,
        distortion=None,
    ).dropna(subset=["epoch"])


def is_minor(run_records: RunRecords, *, rule: str) -> bool:
    """Whether figures under a rule are folded away: those of noise rules between the fixed and the most scale-free one."""
    return rule not in (noise_rules(run_records)[0], noise_rules(run_records)[-1])


def _draw_epochs(run_records: RunRecords, *, quantity: str, rule: str | None, estimator: str = "kde") -> Figure:
    rows = rows_of(run_records, quantity, rule, estimator=estimator)
    symbol, layers = quantity[:4], layers_of(run_records, rows)
    table = over_seeds(rows, ["layer", "training", "inputs", "epoch"])
    columns = min((4, 3, 5), key=lambda wide: -len(layers) % wide) if len(layers) > 4 else len(layers)
    count = math.ceil(len(layers) / columns)
    figure = style.new_figure(0.6 + 1.75 * count)
    panels = style.grid_of(figure, count, columns, sharex=True, sharey=True)
    for axes, layer in zip(panels.flat, layers, strict=False):
        for training, inputs, curve in conditions(table[table["layer"] == layer], run_records.trainings):
            colour, line = style.colour_of(training, run_records.trainings), style.line_of(inputs)
            style.draw_curve(axes, curve["epoch"], curve, colour=colour, line=line)
        axes.set_title(layer, loc="left")
    used, empty = panels.flat[: len(layers)], panels.flat[len(layers) :]
    ceiling = finish_panels(run_records, rows, symbol, list(used))
    for axes in empty:
        axes.set_visible(False)
    for j in range(columns):
        lowest = max(i for i in range(count) if i * columns + j < len(layers))
        style.epoch_axis(panels[lowest, j], rows["epoch"])
        panels[lowest, j].tick_params(labelbottom=True)
    figure.supylabel(f"{INFORMATION[symbol]} ({unit_of(rows)})", fontsize=9)
    style.legend_above(figure, handles_of(run_records, rows) + ceiling)
    return figure


def _caption_epochs(run_records: RunRecords, *, quantity: str, rule: str | None, estimator: str = "kde") -> str:
    rows = rows_of(run_records, quantity, rule, estimator=estimator)
    symbol = quantity[:4]
    what = "binning (0 or log N in wide layers)" if estimator == "binning" else _estimate_words(quantity)
    noise = "" if rule is None else f"{captions.noise(rows)}, "
    ceiling = ceiling_of(run_records, rows, symbol)
    dotted = f" Dotted: {ceiling[1]} = {ceiling[0]:.2f} bits." if ceiling else ""
    hollow = " Hollow: saturated (J > 0.95 log N), the estimate only counts samples." if rows["saturated"].any() else ""
    return (
        f"{INFORMATION[symbol]} of each layer through training, {captions.where(run_records)}: {what}. Solid on clean, "
        f"dashed on adversarial inputs. Measured with {noise}{captions.samples(rows)}, {captions.epochs(rows)}. "
        f"{captions.seeds(rows)}{dotted}{hollow}"
    )


def _estimate_words(quantity: str) -> str:
    if quantity == "i_tx_upper":
        return "KDE upper bound"
    return "KDE, difference of upper bounds (the study's “upper”, not itself a bound)"


for _order, (_rule, _symbol) in enumerate([(r, s) for s in INFORMATION for r in NOISE_RULE_NAMES]):
    _quantity = f"{_symbol}_upper"
    register(
        FigureSpec(
            name=f"information_epochs_{_quantity}_{_rule}",
            title=f"{INFORMATION[_symbol]} through training, {NOISE_RULE_NAMES[_rule]}",
            alt=f"One panel a layer: {INFORMATION[_symbol]} against epoch for each training, on clean and "
            "adversarial inputs.",
            caption=partial(_caption_epochs, quantity=_quantity, rule=_rule),
            needs=lambda run_records, quantity=_quantity, rule=_rule: not rows_of(run_records, quantity, rule).empty,
            draw=partial(_draw_epochs, quantity=_quantity, rule=_rule),
            order=40 + _order,
            minor=partial(is_minor, rule=_rule),
        )
    )
for _order, _symbol in enumerate(INFORMATION):
    register(
        FigureSpec(
            name=f"information_epochs_{_symbol}_binning",
            title=f"{INFORMATION[_symbol]} through training, binning",
            alt=f"One panel a layer: {INFORMATION[_symbol]} by binning against epoch for each training.",
            caption=partial(_caption_epochs, quantity=_symbol, rule=None, estimator="binning"),
            needs=lambda run_records, symbol=_symbol: not rows_of(run_records, symbol, None, estimator="binning").empty,
            draw=partial(_draw_epochs, quantity=_symbol, rule=None, estimator="binning"),
            order=90 + _order,
            minor=lambda _: True,
        )
    )
