"""The geometry of each layer, and how much of a change of I(X;T) is a change of scale."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mi_jax.plotting import captions, style
from mi_jax.plotting.figures import FigureSpec
from mi_jax.plotting.panels import layers_of, trainings_of
from mi_jax.records.labels import MINUS, NOISE_RULE_NAMES, name_of
from mi_jax.records.run_records import RunRecords, compared_trainings, final_rows
from mi_jax.statistics.intervals import Table, over_seeds

_RULES = ("fixed", "trace")
_SCALE, _SHAPE = "#b9b9b9", "#4a4a4a"


def _described(run_records: RunRecords, quantity: str) -> Table:
    return final_rows(run_records.select(quantity=quantity, estimator="geometry"))


def _draw_geometry(run_records: RunRecords) -> Figure:
    figure = style.new_figure(5.6)
    panels = style.grid_of(figure, 2, 2)
    _draw_distances(panels[0, 0], run_records)
    _draw_by_layer(panels[0, 1], run_records, "effective_rank")
    panels[0, 1].set_title("Effective rank", loc="left")
    _draw_by_layer(panels[1, 0], run_records, "nearest_over_noise")
    panels[1, 0].set_yscale("log")
    panels[1, 0].set_title("Nearest squared distance / noise variance", loc="left")
    rows = _described(run_records, "nearest_over_noise")
    panels[1, 0].axhline(2 * math.log(float(rows["n"].max())), color=style.GREY, linestyle=":", linewidth=1.2)
    _draw_by_layer(panels[1, 1], run_records, "distinguishable_upper")
    panels[1, 1].axhline(float(rows["n"].max()), color=style.GREY, linestyle=":", linewidth=1.2)
    panels[1, 1].set_title("Distinguishable samples, exp I(X;T)", loc="left")
    handles = [
        Line2D([], [], color=style.colour_of(training, run_records.trainings), marker="o", label=name_of(training))
        for training in trainings_of(run_records, rows)
    ]
    handles.append(Line2D([], [], color=style.GREY, linestyle="--", label="within a class"))
    handles.append(Line2D([], [], color=style.GREY, linestyle="-", label="between classes"))
    handles.append(style.ceiling_handle("above: every sample distinguishable"))
    style.legend_above(figure, handles)
    return figure


def _draw_distances(axes: Axes, run_records: RunRecords) -> None:
    for quantity, line in (("within", "--"), ("between", "-")):
        _draw_by_layer(axes, run_records, quantity, line=line)
    axes.set_ylim(bottom=0)
    axes.set_title("Mean squared distance / total variance", loc="left")


def _draw_by_layer(axes: Axes, run_records: RunRecords, quantity: str, *, line: str = "-") -> None:
    rows = _described(run_records, quantity)
    layers = layers_of(run_records, _described(run_records, "variance"))
    trainings = trainings_of(run_records, rows)
    for i, training in enumerate(trainings):
        table = over_seeds(rows[rows["training"] == training], ["layer"]).set_index("layer").reindex(layers)
        x, colour = style.dodged(len(layers), i, len(trainings)), style.colour_of(training, run_records.trainings)
        axes.plot(x, table["mean"], color=colour, linestyle=line)
        style.draw_whiskers(axes, x, table, colour=colour)
        style.draw_marks(axes, x, table["mean"], np.zeros(len(layers), dtype=bool), colour=colour)
    style.layer_axis(axes, layers)


def _caption_geometry(run_records: RunRecords) -> str:
    rows = run_records.select(quantity="nearest_over_noise", estimator="geometry")
    return (
        f"Geometry of each layer at {captions.last_epoch(rows)}, {captions.where(run_records)}, on clean inputs. "
        "Distances are squared and in units of the total variance, so that two independent rows are at distance 2. "
        "Nearest: median over samples of the distance to the nearest other sample; above the dotted line, 2 ln N, the "
        "noise confuses no samples and the estimate only counts them. Effective rank: exp of the entropy of the "
        "covariance spectrum. Distinguishable samples: exp of the upper bound on I(X;T); dotted: N. "
        f"Measured with {captions.noise(rows)}; {captions.samples(rows)}. {captions.seeds(rows)}"
    )


def _changes(run_records: RunRecords, rule: str) -> Table:
    return run_records.select(quantity=("i_tx_change", "i_tx_change_scale", "i_tx_change_shape"), noise_rule=rule)


def _draw_split(run_records: RunRecords) -> Figure:
    rules = [rule for rule in _RULES if len(_changes(run_records, rule))]
    columns = _columns(run_records)
    figure = style.new_figure(0.7 + 2.4 * len(rules))
    panels = style.grid_of(figure, len(rules), len(columns), sharex=True, sharey="row")
    # The panels share an axis of layers, also where an estimate of some layer failed.
    layers = layers_of(run_records, pd.concat([_changes(run_records, rule) for rule in rules]))
    for i, rule in enumerate(rules):
        rows = _changes(run_records, rule)
        for j, (title, training, reference) in enumerate(columns):
            chosen = rows[(rows["training"] == training) & (rows["reference"] == reference)]
            _draw_parts(panels[i, j], chosen, layers)
            panels[i, j].set_title(f"{title}, {NOISE_RULE_NAMES[rule]}", loc="left")
        panels[i, 0].set_ylabel("change of I(X;T) (bits)")
    bars = [Patch(facecolor=_SCALE, label="scale alone"), Patch(facecolor=_SHAPE, label="at equal variance")]
    points = Line2D([], [], color="black", marker="o", linestyle="none", label="whole change")
    style.legend_above(figure, [*bars, points])
    return figure


def _columns(run_records: RunRecords) -> list[tuple[str, str, str]]:
    """Title, training and reference of each column: first against the baseline, then against the untrained network."""
    rows = run_records.select(quantity="i_tx_change")
    baseline = name_of(compared_trainings(run_records)[0])
    compared = trainings_of(run_records, rows[rows["reference"] == "baseline"])
    begun = trainings_of(run_records, rows[rows["reference"] == "untrained"])
    return [(f"{name_of(t)} {MINUS} {baseline}", t, "baseline") for t in compared] + [
        (f"{name_of(t)} since untrained", t, "untrained") for t in begun
    ]


def _draw_parts(axes: Axes, rows: Table, layers: list[str]) -> None:
    """Bars of the two parts, stacked by sign from 0, and the whole change with its spread over seeds."""
    tables = {
        quantity: over_seeds(final_rows(part), ["layer"]).set_index("layer").reindex(layers)
        for quantity, part in rows.groupby("quantity")
    }
    x = np.arange(len(layers))
    scale, shape = (tables[f"i_tx_change_{part}"]["mean"].to_numpy(dtype=float) for part in ("scale", "shape"))
    axes.bar(x, scale, width=0.7, color=_SCALE)
    axes.bar(x, shape, width=0.7, color=_SHAPE, bottom=np.where(np.sign(scale) == np.sign(shape), scale, 0.0))
    whole = tables["i_tx_change"]
    style.draw_whiskers(axes, x, whole, colour="black")
    style.draw_marks(axes, x, whole["mean"], np.zeros(len(layers), dtype=bool), colour="black")
    axes.axhline(0.0, color="#222222", linewidth=0.8)
    style.layer_axis(axes, layers)


def _caption_split(run_records: RunRecords) -> str:
    rows = run_records.select(quantity="i_tx_change")
    noise = "; ".join(
        f"{NOISE_RULE_NAMES[rule]}: {captions.noise(part)}"
        for rule in _RULES
        if len(part := rows[rows["noise_rule"] == rule])
    )
    return (
        f"How much of a change in the upper bound of I(X;T) is scale, at {captions.last_epoch(rows)}, "
        f"{captions.where(run_records)}, clean inputs. Light: what rescaling the first network's activations to the "
        "variance of the second does to the estimate (the noise is rescaled instead, which is the same); "
        f"dark: what is left at equal variance; points: their sum. Noise: {noise}; {captions.samples(rows)}. "
        f"{captions.seeds(rows)}"
    )


FIGURES = (
    FigureSpec(
        name="geometry",
        title="The geometry behind the estimates",
        alt="Distances within and between classes, effective rank, nearest distance over noise, and distinguishable "
        "samples of each layer.",
        caption=_caption_geometry,
        needs=lambda run_records: not _described(run_records, "nearest_over_noise").empty,
        draw=_draw_geometry,
        order=31,
    ),
    FigureSpec(
        name="scale_split",
        title="How much of a change in I(X;T) is scale",
        alt="Bars of the change in I(X;T) of each layer, split into the effect of scale alone and the rest.",
        caption=_caption_split,
        needs=lambda run_records: not run_records.select(quantity="i_tx_change").empty,
        draw=_draw_split,
        order=32,
    ),
)
