"""Information against depth at the end of training, and the difference between trainings, under every noise rule."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mi_jax.plotting import captions, style
from mi_jax.plotting.figures import FigureSpec, register
from mi_jax.plotting.panels import finish_panels, handles_of, layers_of, unit_of
from mi_jax.records.labels import INFORMATION, MINUS, NOISE_RULE_NAMES, name_of
from mi_jax.records.run_records import RunRecords, compared_trainings, conditions, final_rows
from mi_jax.report.figures.information import possible, rows_of
from mi_jax.statistics.intervals import Table, over_seeds

_BRACKET = {"i_tx": ("i_tx_lower", "i_tx_upper"), "i_ty": ("i_ty_certified_lower", "i_ty_certified_upper")}


def _draw_depth(run_records: RunRecords) -> Figure:
    rules = [rule for rule in NOISE_RULE_NAMES if not rows_of(run_records, "i_tx_upper", rule).empty]
    figure = style.new_figure(0.6 + 2.7 * len(rules))
    panels = style.grid_of(figure, len(rules), 2, sharex=True, sharey="col")
    shown = []
    # The panels share an axis of layers, also where an estimate of some layer failed.
    drawn = [final_rows(rows_of(run_records, f"{symbol}_upper", rule)) for symbol in INFORMATION for rule in rules]
    layers = layers_of(run_records, pd.concat(drawn))
    for i, rule in enumerate(rules):
        for j, symbol in enumerate(INFORMATION):
            _draw_depth_panel(panels[i, j], run_records, symbol, rule, layers)
            panels[i, j].set_title(f"{INFORMATION[symbol]}, {NOISE_RULE_NAMES[rule]}", loc="left")
        shown.append(rows_of(run_records, "i_tx_upper", rule))
        panels[i, 0].set_ylabel(unit_of(shown[-1]))
    last = pd.concat([final_rows(rows) for rows in shown])
    handles = handles_of(run_records, last)
    for j, symbol in enumerate(INFORMATION):
        handles += finish_panels(run_records, last, symbol, list(panels[:, j]))
    style.legend_above(figure, handles)
    return figure


def _draw_depth_panel(axes: Axes, run_records: RunRecords, symbol: str, rule: str, layers: list[str]) -> None:
    upper = final_rows(rows_of(run_records, f"{symbol}_upper", rule))
    table = over_seeds(upper, ["training", "inputs", "layer"], within=possible(run_records, upper, symbol))
    low, high = (_end_means(run_records, quantity, rule) for quantity in _BRACKET[symbol])
    parts = list(conditions(table, run_records.trainings))
    for i, (training, inputs, part) in enumerate(parts):
        colour, line = style.colour_of(training, run_records.trainings), style.line_of(inputs)
        part = part.set_index("layer").reindex(layers)
        x = style.dodged(len(layers), i, len(parts))
        style.draw_line(axes, x, part["mean"], color=colour, linestyle=line)
        style.draw_whiskers(axes, x, part, colour=colour)
        style.draw_marks(axes, x, part["mean"], part["saturated"].eq(True).to_numpy(dtype=bool), colour=colour)
        if inputs == "clean" and training in low.columns and training in high.columns:
            ends = low[training].reindex(layers), high[training].reindex(layers)
            axes.fill_between(np.arange(len(layers)), *ends, color=colour, alpha=0.13, linewidth=0)
            style.draw_line(axes, np.arange(len(layers)), ends[0], color=colour, linewidth=0.7, alpha=0.6)
    style.layer_axis(axes, layers)


def _end_means(run_records: RunRecords, quantity: str, rule: str) -> Table:
    """Means over seeds at the end on clean inputs: one row per layer, one column per training."""
    rows = final_rows(rows_of(run_records, quantity, rule))
    return rows[rows["inputs"] == "clean"].pivot_table(index="layer", columns="training", values="value")


def _caption_depth(run_records: RunRecords) -> str:
    rules = [rule for rule in NOISE_RULE_NAMES if not rows_of(run_records, "i_tx_upper", rule).empty]
    noise = "; ".join(
        f"{NOISE_RULE_NAMES[rule]}: {captions.noise(rows_of(run_records, 'i_tx_upper', rule))}" for rule in rules
    )
    rows = rows_of(run_records, "i_tx_upper", rules[0])
    return (
        f"Information of each layer at {captions.last_epoch(rows)}, {captions.where(run_records)}. Lines: upper bound "
        "of I(X;T), difference of upper bounds for I(T;Y); whiskers: seeds. Shaded: on clean inputs, the range between "
        f"the lower and the upper bound for I(X;T), between the certified bounds for I(T;Y). Noise: {noise}; "
        f"{captions.samples(rows)}. Hollow: saturated or of too few samples. {captions.attack(run_records, rows)} "
        f"{captions.seeds(rows)} {captions.label_leak(rows)}"
    )


def differences(run_records: RunRecords, rule: str, baseline: str) -> Table:
    """Each other training minus the baseline at the end, paired by seed: training, inputs, layer, mean, low, high."""
    rows = final_rows(rows_of(run_records, "i_tx_upper", rule))
    keys = ["seed", "inputs", "layer"]
    base = rows[rows["training"] == baseline].set_index(keys)
    others = rows[rows["training"] != baseline].set_index(keys)
    paired = others.join(base[["value", "saturated"]].add_suffix("_base"), how="inner").reset_index()
    paired["value"] = paired["value"] - paired["value_base"]
    paired["saturated"] = paired["saturated"].fillna(False) | paired["saturated_base"].fillna(False)
    return over_seeds(paired, ["training", "inputs", "layer"])


def _rules_compared(run_records: RunRecords) -> list[str]:
    baseline, rules = compared_trainings(run_records)[0], []
    for rule in NOISE_RULE_NAMES:
        rows = final_rows(rows_of(run_records, "i_tx_upper", rule))
        is_baseline = rows["training"] == baseline
        if set(rows["seed"][is_baseline]) & set(rows["seed"][~is_baseline]):
            rules.append(rule)
    return rules


def _draw_difference(run_records: RunRecords) -> Figure:
    rules, baseline = _rules_compared(run_records), compared_trainings(run_records)[0]
    figure = style.new_figure(3.3)
    panels = style.grid_of(figure, 1, len(rules), sharey=True)[0]
    handles = {}
    hollow = False
    for axes, rule in zip(panels, rules, strict=True):
        table = differences(run_records, rule, baseline)
        layers = layers_of(run_records, table)
        parts = list(conditions(table, run_records.trainings))
        for i, (training, inputs, part) in enumerate(parts):
            part = part.set_index("layer").reindex(layers)
            x = style.dodged(len(layers), i, len(parts))
            colour, line = style.colour_of(training, run_records.trainings), style.line_of(inputs)
            curve = style.draw_line(axes, x, part["mean"], color=colour, linestyle=line, linewidth=1.0)
            style.draw_whiskers(axes, x, part, colour=colour)
            hollow_here = part["saturated"].eq(True).to_numpy(dtype=bool)
            style.draw_marks(axes, x, part["mean"], hollow_here, colour=colour, size=5.0)
            curve.set_label(f"{name_of(training)} {MINUS} {name_of(baseline)}, {inputs}")
            handles[curve.get_label()] = curve
        hollow = hollow or bool(table["saturated"].any())
        style.draw_zero(axes)
        axes.set_title(NOISE_RULE_NAMES[rule], loc="left")
        style.layer_axis(axes, layers)
    style.fit(panels)
    panels[0].set_ylabel("difference of I(X;T) (bits)")
    extra = style.condition_handles([], [], hollow=hollow)
    style.legend_above(figure, [*handles.values(), *extra])
    return figure


def _caption_difference(run_records: RunRecords) -> str:
    rules = _rules_compared(run_records)
    rows = rows_of(run_records, "i_tx_upper", rules[0])
    noise = "; ".join(
        f"{NOISE_RULE_NAMES[rule]}: {captions.noise(rows_of(run_records, 'i_tx_upper', rule))}" for rule in rules
    )
    return (
        f"Difference in the upper bound of I(X;T) relative to {name_of(compared_trainings(run_records)[0])} at "
        f"{captions.last_epoch(rows)}, paired by seed; below 0 the network keeps less information about the input. A "
        f"difference that vanishes under a noise rule that follows each training's scale is one of scale. "
        f"Noise: {noise}; {captions.samples(rows)}. Hollow: unreliable in one of the two. "
        f"{captions.attack(run_records, rows)} {captions.seeds(rows)}"
    )


register(
    FigureSpec(
        name="information_depth",
        title="Information by depth at the end of training",
        alt="I(X;T) and I(T;Y) against layer for each training, one row per noise rule, with bounds.",
        caption=_caption_depth,
        needs=lambda run_records: any(not rows_of(run_records, "i_tx_upper", rule).empty for rule in NOISE_RULE_NAMES),
        draw=_draw_depth,
        order=35,
    )
)
register(
    FigureSpec(
        name="information_difference",
        title="What adversarial training changes, by noise rule",
        alt="Difference in I(X;T) between trainings at each layer, one panel per noise rule, with intervals.",
        caption=_caption_difference,
        needs=lambda run_records: bool(_rules_compared(run_records)),
        draw=_draw_difference,
        order=30,
    )
)
