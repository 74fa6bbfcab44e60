"""What each layer tells apart within every class through training: the study's H(T|y), class by class.

It reads the rows of I(X;T | Y = y) by class under the noise rule that follows each network's own scale.
"""

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mi_jax.plotting import captions, style
from mi_jax.plotting.figures import FigureSpec, register
from mi_jax.records.labels import NOISE_RULE_NAMES, name_of
from mi_jax.records.run_records import RunRecords
from mi_jax.plotting.panels import layers_of
from mi_jax.statistics.intervals import Table, over_seeds

_MOST_LAYERS = 4
_MOST_CLASSES = 20


def _rule(run_records: RunRecords) -> str | None:
    measured = set(run_records.select(quantity="i_tx_given_y_upper", inputs="clean")["noise_rule"].dropna())
    return next((rule for rule in ("scale_free", "trace", "fixed") if rule in measured), None)


def _rows(run_records: RunRecords) -> Table:
    rule = _rule(run_records)
    return run_records.select(quantity="i_tx_given_y_upper", inputs="clean", estimator="kde", noise_rule=rule)


def _classes(rows: Table) -> list[str]:
    return sorted(rows["subset"].dropna().unique(), key=lambda subset: int(subset.partition("=")[2]))[:_MOST_CLASSES]


def _layers(run_records: RunRecords, rows: Table) -> list[str]:
    """At most a few layers, spread evenly over the depth, the last one among them."""
    layers = layers_of(run_records, rows)
    places = np.unique(np.linspace(0, len(layers) - 1, min(_MOST_LAYERS, len(layers))).round().astype(int))
    return [layers[place] for place in places]


def _draw(run_records: RunRecords) -> Figure:
    rows = _rows(run_records)
    trainings = [training for training in run_records.trainings if (rows["training"] == training).any()]
    layers, classes = _layers(run_records, rows), _classes(rows)
    colours = [colormaps["tab20" if len(classes) > 10 else "tab10"](i) for i in range(len(classes))]
    figure = style.new_figure(0.8 + 2.2 * len(trainings))
    panels = style.grid_of(figure, len(trainings), len(layers), sharex=True, sharey=True)
    for i, training in enumerate(trainings):
        for j, layer in enumerate(layers):
            here = rows[(rows["training"] == training) & (rows["layer"] == layer)]
            for colour, name in zip(colours, classes, strict=True):
                curve = over_seeds(here[here["subset"] == name], ["epoch"])
                style.draw_curve(panels[i, j], curve["epoch"], curve, colour=colour)
            style.epoch_axis(panels[i, j], rows["epoch"])
            panels[i, j].set_title(f"{name_of(training)}, {layer}", loc="left")
    style.fit(list(panels.flat))
    figure.supylabel("I(X;T | Y = y) (bits)", fontsize=9)
    handles = [
        Line2D([], [], color=colour, label=name.replace("class=", "class "))
        for colour, name in zip(colours, classes, strict=True)
    ]
    style.legend_above(figure, handles)
    return figure


def _caption(run_records: RunRecords) -> str:
    rows = _rows(run_records)
    return (
        f"What a layer still tells apart within each class through training, {captions.where(run_records)}, clean inputs: "
        "KDE upper bound of I(X;T | Y = y), which is the H(T|y) of the study less the entropy of the noise, on a "
        f"class's images alone ({NOISE_RULE_NAMES[str(_rule(run_records))]}; {captions.epochs(rows)}). A class that collapses "
        f"to one point has none left. {captions.samples(rows)}. {captions.seeds(rows)}"
    )


register(
    FigureSpec(
        name="class_information",
        title="What is told apart within each class",
        alt="A row of panels a training and a panel a layer: a curve a class of the information left within it.",
        caption=_caption,
        needs=lambda run_records: _rule(run_records) is not None and _rows(run_records)["epoch"].nunique() > 1,
        draw=_draw,
        order=60,
        minor=lambda _: True,
    )
)
