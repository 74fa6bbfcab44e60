"""What each layer tells of shape and of texture through training, one panel a layer.

It reads the records of the study `cue_conflict`, where it was run at several epochs.
"""

import math

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mi_jax.plotting import captions, style
from mi_jax.plotting.figures import FigureSpec, register
from mi_jax.records.labels import name_of
from mi_jax.records.run_records import RunRecords
from mi_jax.report.figures.information import layers_of
from mi_jax.statistics.intervals import Table, over_seeds

_LINES = {"shape": "-", "texture": (0, (1, 1))}


def _rows(run_records: RunRecords) -> Table:
    quantities = tuple(f"i_t_{cue}" for cue in _LINES)
    return run_records.select(quantity=quantities, estimator="probe", inputs="clean").dropna(subset=["epoch"])


def _draw(run_records: RunRecords) -> Figure:
    rows = _rows(run_records)
    layers = layers_of(run_records, rows)
    columns = min(5, len(layers))
    count = math.ceil(len(layers) / columns)
    figure = style.new_figure(0.8 + 1.9 * count)
    panels = style.grid_of(figure, count, columns, sharey=True)
    table = over_seeds(rows, ["quantity", "layer", "training", "epoch"])
    for axes, layer in zip(panels.flat, layers, strict=False):
        for cue, line in _LINES.items():
            chosen = table[(table["layer"] == layer) & (table["quantity"] == f"i_t_{cue}")]
            for training, curve in chosen.groupby("training"):
                colour = style.colour_of(str(training), run_records.trainings)
                style.draw_curve(axes, curve["epoch"], curve, colour=colour, line=line)
        style.draw_ceiling(axes, math.log2(10))
        style.epoch_axis(axes, rows["epoch"])
        axes.set_title(layer, loc="left")
    for axes in panels.flat[len(layers) :]:
        axes.set_visible(False)
    style.fit(list(panels.flat[: len(layers)]))
    figure.supylabel("information about the cue (bits)", fontsize=9)
    handles = [
        Line2D(
            [],
            [],
            color=style.colour_of(training, run_records.trainings),
            linestyle=line,
            label=f"{name_of(training)}, {cue}",
        )
        for training in run_records.trainings
        if (rows["training"] == training).any()
        for cue, line in _LINES.items()
    ]
    style.legend_above(figure, [*handles, style.ceiling_handle("log\N{SUBSCRIPT TWO} 10 = 3.32 bits")])
    return figure


def _caption(run_records: RunRecords) -> str:
    rows = _rows(run_records)
    return (
        f"What a linear probe of each layer tells of shape and of texture through training, {captions.where(run_records)}, "
        f"on images that combine both cues independently: held-out lower bound, {captions.samples(rows)}, "
        f"{captions.epochs(rows)}. Dotted: the exact ceiling. {captions.seeds(rows)}"
    )


register(
    FigureSpec(
        name="cue_epochs",
        title="Shape and texture through training",
        alt="One panel a layer: information about shape and about texture against epoch for each training.",
        caption=_caption,
        needs=lambda run_records: _rows(run_records)["epoch"].nunique() > 1,
        draw=_draw,
        order=28,
    )
)
