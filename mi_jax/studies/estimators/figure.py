"""Monte Carlo values inside their KDE brackets, and I(T;Y) by estimators without noise, by layer."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from mi_jax.information.estimator import ESTIMATORS
from mi_jax.plotting import captions, style
from mi_jax.plotting.figures import FigureSpec
from mi_jax.plotting.panels import flagged, layers_of
from mi_jax.records.labels import INFORMATION, INPUTS, NOISE_RULE_NAMES
from mi_jax.records.run_records import RunRecords, conditions
from mi_jax.statistics.intervals import Table, over_seeds

_BRACKET = {"i_tx": ("i_tx_lower", "i_tx_upper"), "i_ty": ("i_ty_certified_lower", "i_ty_certified_upper")}


def _values(run_records: RunRecords, symbol: str, rule: str) -> Table:
    return flagged(run_records.select_final(quantity=symbol, estimator="monte_carlo", noise_rule=rule))


def _rules(run_records: RunRecords) -> list[str]:
    return [rule for rule in NOISE_RULE_NAMES if not _values(run_records, "i_tx", rule).empty]


def _draw_values(run_records: RunRecords) -> Figure:
    rules = _rules(run_records)
    figure = style.new_figure(0.6 + 2.5 * len(rules))
    panels = style.grid_of(figure, len(rules), 2, sharex=True, sharey="col")
    rows: Table = pd.concat([_values(run_records, symbol, rule) for rule in rules for symbol in INFORMATION])
    # The panels share an axis of layers, also where an estimate of some layer failed.
    layers = layers_of(run_records, rows)
    for i, rule in enumerate(rules):
        for j, symbol in enumerate(INFORMATION):
            _draw_rule(panels[i, j], run_records, symbol, rule, layers)
            panels[i, j].set_title(f"{INFORMATION[symbol]}, {NOISE_RULE_NAMES[rule]}", loc="left")
        panels[i, 0].set_ylabel("bits")
    trainings = [training for training in run_records.trainings if (rows["training"] == training).any()]
    hollow = bool(rows["saturated"].any())
    style.legend_above(figure, style.condition_handles(trainings, _inputs(rows), hollow=hollow))
    return figure


def _inputs(rows: Table) -> list[str]:
    found = set(rows["inputs"])
    return [inputs for inputs in INPUTS if inputs in found]


def _draw_rule(axes: Axes, run_records: RunRecords, symbol: str, rule: str, layers: list[str]) -> None:
    rows = _values(run_records, symbol, rule)
    left_out = run_records.select_final(quantity=f"{symbol}_leave_one_out", estimator="monte_carlo", noise_rule=rule)
    _draw_layers(axes, run_records, rows, layers, left_out)
    place = np.arange(len(layers))
    for training in run_records.trainings:
        ends = []
        for quantity in _BRACKET[symbol]:
            found = run_records.select_final(
                quantity=quantity,
                estimator="kde",
                noise_rule=rule,
                training=training,
                inputs="clean",
                image_set="test",
                distortion=None,
                reference=None,
            )
            ends.append(found.groupby("layer")["value"].mean().reindex(layers))
        colour = style.colour_of(training, run_records.trainings)
        axes.fill_between(place, *ends, color=colour, alpha=0.1, linewidth=0)
    axes.set_ylim(bottom=-0.1)


def _draw_layers(
    axes: Axes, run_records: RunRecords, rows: Table, layers: list[str], left_out: Table | None = None
) -> None:
    """Draw values by layer, with thin lines to the leave-one-out values where they are given."""
    table = over_seeds(rows, ["training", "inputs", "layer"])
    parts = list(conditions(table, run_records.trainings))
    for i, (training, inputs, part) in enumerate(parts):
        part = part.set_index("layer").reindex(layers)
        x, colour = style.dodged(len(layers), i, len(parts)), style.colour_of(training, run_records.trainings)
        style.draw_line(axes, x, part["mean"], color=colour, linestyle=style.line_of(inputs), linewidth=1.2)
        style.draw_whiskers(axes, x, part, colour=colour)
        hollow = part["saturated"].eq(True).to_numpy(dtype=bool)
        style.draw_marks(axes, x, part["mean"], hollow, colour=colour)
        if left_out is not None:
            same = left_out[(left_out["training"] == training) & (left_out["inputs"] == inputs)]
            far = same.groupby("layer")["value"].mean().reindex(layers)
            lines = [[(a, b), (a, c)] for a, b, c in zip(x, part["mean"], far, strict=True)]
            axes.add_collection(LineCollection(lines, colors=colour, linewidths=0.8, alpha=0.6), autolim=False)
    style.layer_axis(axes, layers)


def _caption_values(run_records: RunRecords) -> str:
    rules = _rules(run_records)
    rows = _values(run_records, "i_tx", rules[0])
    noise = "; ".join(
        f"{NOISE_RULE_NAMES[rule]}: {captions.noise(_values(run_records, 'i_tx', rule))}" for rule in rules
    )
    largest = max(float(_values(run_records, "i_tx", rule)["stderr"].max()) for rule in rules)
    return (
        f"Information of each layer at {captions.last_epoch(rows)}, {captions.where(run_records)}: unbiased Monte "
        f"Carlo values of the mixture that the KDE bounds bracket (shaded: the bracket on clean inputs). Standard "
        f"errors of the draws are at most {largest:.2g} bits for I(X;T). Thin lines lead to the leave-one-out values, "
        f"which with the values bracket the population in expectation. {_flags(run_records, rules)} "
        f"Noise: {noise}; {captions.samples(rows)}. {captions.seeds(rows)} {captions.label_leak(rows)}"
    )


def _flags(run_records: RunRecords, rules: list[str]) -> str:
    """How many estimates are beyond which limit, as a sentence."""
    rows: Table = pd.concat([_values(run_records, symbol, rule) for rule in rules for symbol in INFORMATION])
    return captions.limits(rows) or "No estimate is flagged as unreliable."


def _panel_rows(run_records: RunRecords, estimator: str) -> Table:
    return flagged(run_records.select_final(quantity="i_ty", estimator=estimator, noise_rule=None))


def _shown(run_records: RunRecords) -> list[str]:
    """Estimators in the records that added no noise; those whose module is not imported have their name as a title."""
    rows = run_records.select_final(quantity="i_ty", noise_rule=None)
    present = list(rows["estimator"].dropna().unique())
    return [name for name in ESTIMATORS if name in present] + [name for name in present if name not in ESTIMATORS]


def _title(name: str) -> str:
    return ESTIMATORS[name].title if name in ESTIMATORS else name


def _draw_panel(run_records: RunRecords) -> Figure:
    names = _shown(run_records)
    columns = min(3, len(names))
    count = math.ceil(len(names) / columns)
    figure = style.new_figure(0.7 + 2.4 * count)
    panels = style.grid_of(figure, count, columns, sharey=True)
    for axes, name in zip(panels.flat, names, strict=False):
        rows = _panel_rows(run_records, name)
        _draw_layers(axes, run_records, rows, layers_of(run_records, rows))
        axes.set_title(_title(name), loc="left")
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    classes = run_records.select(quantity="i_tx_given_y_upper")["class"].nunique()
    hollow = any(_panel_rows(run_records, name)["saturated"].any() for name in names)
    inputs = _inputs(_panel_rows(run_records, names[0]))
    handles = style.condition_handles(run_records.trainings, inputs, hollow=hollow)
    if classes:
        for axes in panels.flat[: len(names)]:
            style.draw_ceiling(axes, math.log2(classes))
        handles.append(style.ceiling_handle(f"log\N{SUBSCRIPT TWO} {classes} = {math.log2(classes):.2f} bits"))
    figure.supylabel("I(T;Y) (bits)", fontsize=9)
    style.legend_above(figure, handles)
    return figure


def _counts(run_records: RunRecords) -> str:
    """How many samples each estimator had, or all of them."""
    counts = {_title(name): captions.samples(_panel_rows(run_records, name)) for name in _shown(run_records)}
    if len(set(counts.values())) == 1:
        return next(iter(counts.values()))
    return "; ".join(f"{name}: {count}" for name, count in counts.items())


def _caption_panel(run_records: RunRecords) -> str:
    names = _shown(run_records)
    rows = _panel_rows(run_records, names[0])
    entries = {name: ESTIMATORS[name].description for name in names if name in ESTIMATORS}
    descriptions = "; ".join(f"{_title(name)}: {what}" for name, what in entries.items() if what)
    limits = captions.limits(pd.concat([_panel_rows(run_records, name) for name in names]))
    return (
        f"I(T;Y) of each layer by estimators that add no noise, at {captions.last_epoch(rows)}, "
        f"{captions.where(run_records)}. They measure different things and are compared within a panel: "
        f"{descriptions}. {limits} {_counts(run_records)}. {captions.seeds(rows)} {captions.label_leak(rows)}"
    )


FIGURES = (
    FigureSpec(
        name="information_values",
        title="Unbiased values inside their brackets",
        alt="Monte Carlo values of I(X;T) and I(T;Y) by layer, each inside its bracket, one row per noise rule.",
        caption=_caption_values,
        needs=lambda run_records: bool(_rules(run_records)),
        draw=_draw_values,
        order=36,
    ),
    FigureSpec(
        name="estimator_panel",
        title="I(T;Y) by estimators without noise",
        alt="One panel per estimator: I(T;Y) against layer for each training, on clean and adversarial inputs.",
        caption=_caption_panel,
        needs=lambda run_records: set(_shown(run_records)) - {"binning"} != set(),
        draw=_draw_panel,
        order=37,
    ),
)
