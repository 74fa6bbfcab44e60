"""Information within each class through training: I(X;T | Y = y), the H(T|y) of the paper up to a constant."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.typing import LineStyleType

from mi_jax.plotting import captions, style
from mi_jax.plotting.figures import FigureSpec, register
from mi_jax.plotting.panels import layers_of
from mi_jax.records.labels import NOISE_RULE_NAMES, name_of
from mi_jax.records.run_records import RunRecords
from mi_jax.statistics.intervals import Table, over_seeds

_MOST_LAYERS = 4
_MOST_CLASSES = 20
_LINES: tuple[LineStyleType, ...] = ("-", "--", ":")


def _rule(run_records: RunRecords) -> str | None:
    measured = set(run_records.select(quantity="i_tx_given_y_upper", inputs="clean")["noise_rule"].dropna())
    return next((rule for rule in ("scale_free", "trace", "fixed") if rule in measured), None)


def _rows(run_records: RunRecords) -> Table:
    rule = _rule(run_records)
    return run_records.select(quantity="i_tx_given_y_upper", inputs="clean", estimator="kde", noise_rule=rule)


def _classes(rows: Table) -> list[int]:
    """All classes, in ascending order."""
    return sorted(int(label) for label in rows["class"].dropna().unique())


def _layers(run_records: RunRecords, rows: Table) -> list[str]:
    """At most four layers, spread evenly over the depth, with the first and the last."""
    layers = layers_of(run_records, rows)
    places = np.unique(np.linspace(0, len(layers) - 1, min(_MOST_LAYERS, len(layers))).round().astype(int))
    return [layers[place] for place in places]


def _draw(run_records: RunRecords) -> Figure:
    rows = _rows(run_records)
    trainings = [training for training in run_records.trainings if (rows["training"] == training).any()]
    layers, classes = _layers(run_records, rows), _classes(rows)[:_MOST_CLASSES]
    looks: list[tuple[str, LineStyleType]] = [(style.PALETTE[i % 7], _LINES[i // 7]) for i in range(len(classes))]
    figure = style.new_figure(0.8 + 2.2 * len(trainings))
    panels = style.grid_of(figure, len(trainings), len(layers), sharex=True, sharey=True)
    for i, training in enumerate(trainings):
        for j, layer in enumerate(layers):
            here = rows[(rows["training"] == training) & (rows["layer"] == layer)]
            for (colour, line), label in zip(looks, classes, strict=True):
                curve = over_seeds(here[here["class"] == label], ["epoch"])
                style.draw_curve(panels[i, j], curve["epoch"], curve, colour=colour, line=line)
            style.epoch_axis(panels[i, j], rows["epoch"])
            panels[i, j].set_title(f"{name_of(training)}, {layer}", loc="left")
    style.fit(list(panels.flat))
    figure.supylabel("I(X;T | Y = y) (bits)", fontsize=9)
    handles = [
        Line2D([], [], color=colour, linestyle=line, label=f"class {label}")
        for (colour, line), label in zip(looks, classes, strict=True)
    ]
    style.legend_above(figure, handles)
    return figure


def _caption(run_records: RunRecords) -> str:
    rows = _rows(run_records)
    classes, layers = len(_classes(rows)), len(layers_of(run_records, rows))
    parts = [f"the first {_MOST_CLASSES} of {classes} classes"] if classes > _MOST_CLASSES else []
    parts += [f"{_MOST_LAYERS} of {layers} layers"] if layers > _MOST_LAYERS else []
    shown = f"Shown: {' and '.join(parts)}. " if parts else ""
    return (
        f"Information that a layer keeps within each class through training, {captions.where(run_records)}, clean "
        "inputs: KDE upper bound of I(X;T | Y = y), which is the H(T|y) of the paper minus the entropy of the noise, "
        f"on the images of one class ({NOISE_RULE_NAMES[str(_rule(run_records))]}; {captions.epochs(rows)}). A class "
        f"that collapses to one point has none. {shown}{captions.samples(rows)}. {captions.seeds(rows)}"
    )


register(
    FigureSpec(
        name="class_information",
        title="Information within each class",
        alt="One row of panels per training, one panel per layer: a curve for each class of the information within it.",
        caption=_caption,
        needs=lambda run_records: _rule(run_records) is not None and _rows(run_records)["epoch"].nunique() > 1,
        draw=_draw,
        order=60,
        minor=lambda _: True,
    )
)
