"""Shape bias of the predictions, and information of each layer about shape and texture, finished and by epoch."""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.typing import LineStyleType

from mi_jax.plotting import captions, style
from mi_jax.plotting.figures import FigureSpec
from mi_jax.plotting.panels import layers_of, trainings_of
from mi_jax.plotting.study_arrays import by_training
from mi_jax.records.labels import INPUTS, name_of
from mi_jax.records.run_records import RunRecords
from mi_jax.statistics.intervals import Table, over_seeds

_CUES = ("shape", "texture")
_ALONE = {"texture_suppressed": "shape alone", "shape_suppressed": "texture alone"}
_HALF = 0.5
_SHARE = (0.0, 1.0)
_PERMUTATIONS: dict[str, tuple[LineStyleType, str]] = {
    "among_images": (":", "permuted among images"),
    "within_class": ("-", "permuted within classes"),
}
_LINES: dict[str, LineStyleType] = {"shape": "-", "texture": (0.0, (1.0, 1.0))}


def _draw_predictions(run_records: RunRecords) -> Figure:
    figure = style.new_figure(5.6)
    panels = style.grid_of(figure, 2, 2)
    bias = run_records.select_final(quantity="shape_bias", image_set="conflict", factor=None, inputs=INPUTS)
    trainings = trainings_of(run_records, bias)
    _draw_bias(panels[0, 0], run_records, bias, trainings)
    _draw_alone(panels[0, 1], run_records, trainings)
    _draw_classes(panels[1, 0], run_records, trainings)
    _draw_texture_match(panels[1, 1], run_records, trainings)
    handles = [
        Line2D([], [], color=style.colour_of(t, run_records.trainings), marker="o", linestyle="none", label=name_of(t))
        for t in trainings
    ]
    for label, face in (("clean", style.GREY), ("adversarial", "white")):
        handles.append(
            Line2D([], [], marker="o", linestyle="none", markerfacecolor=face, markeredgecolor=style.GREY, label=label)
        )
    style.legend_above(figure, handles)
    return figure


def _point(axes: Axes, x: float, table: Table, *, colour: str, hollow: bool) -> None:
    """A mean with its interval over seeds and the values of the seeds."""
    x_of = np.array([x])
    style.draw_whiskers(axes, x_of, table, colour=colour)
    style.draw_marks(axes, x_of, table["mean"], np.array([hollow]), colour=colour, size=6)


def _draw_bias(axes: Axes, run_records: RunRecords, bias: Table, trainings: list[str]) -> None:
    coverage = over_seeds(
        run_records.select_final(quantity="cue_coverage", image_set="conflict", factor=None), ["training", "inputs"]
    )
    for i, training in enumerate(trainings):
        for j, inputs in enumerate(INPUTS):
            rows = bias[(bias["training"] == training) & (bias["inputs"] == inputs)]
            if rows.empty:
                continue
            x, colour = i + 0.3 * (j - 0.5), style.colour_of(training, run_records.trainings)
            _point(axes, x, over_seeds(rows, ["training"], within=_SHARE), colour=colour, hollow=j == 1)
            share = coverage.loc[(coverage["training"] == training) & (coverage["inputs"] == inputs), "mean"]
            if len(share):
                axes.annotate(
                    f"{share.iloc[0]:.0%}", (x, 0), xycoords=("data", "axes fraction"), xytext=(0, 3),
                    textcoords="offset points", ha="center", fontsize=7, color=style.GREY,
                )  # fmt: skip
    axes.axhline(_HALF, color="#222222", linewidth=0.8)
    axes.set_ylim(-0.1, 1.05)
    _categories(axes, [name_of(t) for t in trainings])
    axes.set_title("Shape bias on conflict images (below: coverage)", loc="left")
    axes.set_ylabel("texture ← → shape")


def _draw_alone(axes: Axes, run_records: RunRecords, trainings: list[str]) -> None:
    for k, image_set in enumerate(_ALONE):
        rows = run_records.select_final(quantity="accuracy", image_set=image_set, inputs=INPUTS)
        for i, training in enumerate(trainings):
            for j, inputs in enumerate(INPUTS):
                here = rows[(rows["training"] == training) & (rows["inputs"] == inputs)]
                if here.empty:
                    continue
                x = k + 0.26 * (i - (len(trainings) - 1) / 2) + 0.1 * (j - 0.5)
                colour = style.colour_of(training, run_records.trainings)
                table = style.in_percent(over_seeds(here, ["training"], within=_SHARE))
                _point(axes, x, table, colour=colour, hollow=j == 1)
    axes.axhline(10, color=style.GREY, linewidth=0.8, linestyle=":")
    axes.set_ylim(-3, 103)
    _categories(axes, list(_ALONE.values()))
    axes.set_title("Accuracy with one cue (dotted: chance)", loc="left")
    axes.set_ylabel("accuracy (%)")


def _draw_classes(axes: Axes, run_records: RunRecords, trainings: list[str]) -> None:
    rows = run_records.select_final(quantity="shape_bias", inputs="clean", factor="shape")
    classes = sorted(rows["class"].unique())
    for i, training in enumerate(trainings):
        of_training = rows[rows["training"] == training]
        table = over_seeds(of_training, ["class"], within=_SHARE).set_index("class").reindex(classes)
        x = style.dodged(len(classes), i, len(trainings))
        colour = style.colour_of(training, run_records.trainings)
        style.draw_whiskers(axes, x, table, colour=colour)
        style.draw_marks(axes, x, table["mean"], np.zeros(len(x), dtype=bool), colour=colour)
    axes.axhline(_HALF, color="#222222", linewidth=0.8)
    axes.set_ylim(-0.05, 1.05)
    axes.set_xticks(range(len(classes)), [_shape_name(run_records, k) for k in classes], rotation=40, ha="right")
    axes.set_title("Shape bias by class of the shape, clean", loc="left")
    axes.set_ylabel("texture ← → shape")


def _shape_name(run_records: RunRecords, index: int) -> str:
    """The name of a shape where a study stored it, else its number."""
    for study in ("shape_bias", "shape_texture"):
        for seeds in by_training(run_records, study, "shape_names").values():
            return str(seeds[0][index])
    return str(index)


def _draw_texture_match(axes: Axes, run_records: RunRecords, trainings: list[str]) -> None:
    rates = run_records.select_final(quantity="texture_match")
    baselines = run_records.select_final(quantity="texture_match_baseline")
    shown = [t for t in trainings if (rates["training"] == t).any()]
    for i, training in enumerate(shown):
        colour = style.colour_of(training, run_records.trainings)
        here = rates[rates["training"] == training]
        _point(axes, i - 0.12, over_seeds(here, ["training"], within=_SHARE), colour=colour, hollow=False)
        for reference, (line, _) in _PERMUTATIONS.items():
            own = (baselines["training"] == training) & (baselines["reference"] == reference)
            level = baselines.loc[own, "value"].mean()
            axes.plot([i - 0.3, i + 0.3], [level, level], color=style.GREY, linestyle=line, linewidth=1.2)
    axes.set_ylim(bottom=0)
    _categories(axes, [name_of(t) for t in shown])
    axes.set_title("Perturbation has the texture of the prediction", loc="left")
    axes.set_ylabel("share of misclassified")
    handles = [Line2D([], [], color=style.GREY, linestyle=line, label=text) for line, text in _PERMUTATIONS.values()]
    axes.legend(handles=handles, fontsize=7, loc="upper right")


def _categories(axes: Axes, names: list[str]) -> None:
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.6, len(names) - 0.4)


def _caption_predictions(run_records: RunRecords) -> str:
    rows = run_records.select_final(quantity="shape_bias", image_set="conflict", factor=None, inputs="clean")
    n = run_records.select_final(quantity="cue_coverage", image_set="conflict", factor=None)["n"]
    return (
        f"Shape or texture decisions at {captions.last_epoch(rows)}, {captions.where(run_records)}. Shape bias: of the "
        "predictions on conflict images that are the class of the shape or of the texture, the share that are the "
        f"shape's (Geirhos et al. 2019), n = {n.min():g} images; coverage: the share that are either. Adversarial: the "
        "attack is on the network's own prediction (conflict) or on the label (one cue). Last panel (texture-match "
        "test): of the misclassified adversarial images, the share where the texture that the perturbation resembles "
        "most by power spectrum, the true class left out, is that of the predicted class; lines: the same with "
        f"predictions permuted. {captions.seeds(rows)}"
    )


def _draw_layers(run_records: RunRecords) -> Figure:
    figure = style.new_figure(5.9)
    panels = style.grid_of(figure, 2, 3)
    layers = _layers(run_records)
    for j, cue in enumerate(_CUES):
        for i, estimator in enumerate(("probe", "monte_carlo")):
            axes = panels[i, j]
            _draw_information(axes, run_records, f"i_t_{cue}", estimator, layers)
            word = {"probe": "linear probe", "monte_carlo": "Monte Carlo"}[estimator]
            axes.set_title(f"I(T; {cue}), {word}", loc="left")
            axes.set_ylabel("bits" if j == 0 else "")
            if estimator == "probe":
                _draw_robust(axes, run_records, cue, layers)
    _draw_preference(panels[0, 2], run_records, layers)
    _draw_information(panels[1, 2], run_records, "i_t_label", "probe", layers)
    panels[1, 2].set_title("I(T; Y), linear probe", loc="left")
    trainings = [
        t for t in run_records.trainings if (run_records.select_final(quantity="i_t_shape")["training"] == t).any()
    ]
    handles = style.condition_handles(trainings, INPUTS)
    handles.append(Line2D([], [], color=style.GREY, linestyle="-.", linewidth=1, label="shuffled labels"))
    handles.append(Line2D([], [], color=style.GREY, marker="v", linestyle="none", label="probe under attack"))
    style.legend_above(figure, handles)
    return figure


def _layers(run_records: RunRecords) -> list[str]:
    rows = run_records.select_final(quantity="i_t_shape", estimator="probe")
    return list(dict.fromkeys(rows["layer"].dropna()))


def _draw_information(axes: Axes, run_records: RunRecords, quantity: str, estimator: str, layers: list[str]) -> None:
    rows = run_records.select_final(quantity=quantity, estimator=estimator, inputs=INPUTS)
    control = run_records.select_final(quantity="i_t_shuffled", estimator=estimator, inputs="clean")
    entropy = run_records.select_final(quantity=f"h_{quantity.removeprefix('i_t_')}", estimator="exact")["value"]
    ceiling = float(entropy.iloc[0]) if len(entropy) else math.inf
    for training in run_records.trainings:
        colour = style.colour_of(training, run_records.trainings)
        for inputs in INPUTS:
            here = rows[rows["inputs"] == inputs]
            _draw_by_layer(axes, here, training, layers, colour, style.line_of(inputs), within=(-math.inf, ceiling))
        if quantity != "i_t_label":
            _draw_by_layer(axes, control, training, layers, colour, "-.", width=0.8)
    if len(entropy):
        style.draw_ceiling(axes, ceiling)
    axes.set_ylim(-0.15, math.log2(10) + 0.2)
    style.layer_axis(axes, layers)


def _draw_by_layer(
    axes: Axes, rows: Table, training: str, layers: list[str], colour: str, line: Any, width: float = 1.5,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> None:  # fmt: skip
    rows = rows[rows["training"] == training]
    if rows.empty:
        return
    table = over_seeds(rows, ["layer"], within=within).set_index("layer").reindex(layers)
    x = np.arange(len(layers))
    axes.plot(x, table["mean"], color=colour, linestyle=line, linewidth=width)
    if width > 1:
        style.draw_whiskers(axes, x, table, colour=colour)


def _draw_robust(axes: Axes, run_records: RunRecords, cue: str, layers: list[str]) -> None:
    rows = run_records.select_final(quantity=f"i_t_{cue}_robust")
    for training in run_records.trainings:
        here = rows[rows["training"] == training]
        if here.empty:
            continue
        table = over_seeds(here, ["layer"])
        colour = style.colour_of(training, run_records.trainings)
        x = [layers.index(layer) for layer in table["layer"]]
        style.draw_whiskers(axes, x, table, colour=colour)
        axes.plot(x, table["mean"], "v", color=colour, markersize=6, zorder=4, clip_on=False)


def _draw_preference(axes: Axes, run_records: RunRecords, layers: list[str]) -> None:
    rows = run_records.select_final(quantity="cue_preference", estimator="probe", inputs="clean")
    for training in run_records.trainings:
        colour = style.colour_of(training, run_records.trainings)
        _draw_by_layer(axes, rows, training, layers, colour, "-", within=(-1.0, 1.0))
    axes.axhline(0, color="#222222", linewidth=0.8)
    axes.set_ylim(-1.08, 1.08)
    axes.set_title(r"Preference $(I_S - I_T)\,/\,(I_S + I_T)$, probe", loc="left")
    axes.set_ylabel("texture ← → shape")
    style.layer_axis(axes, layers)


def _caption_layers(run_records: RunRecords) -> str:
    rows = run_records.select_final(quantity="i_t_shape", estimator="probe", inputs="clean")
    mixture = run_records.select_final(quantity="i_t_shape", estimator="monte_carlo", inputs="clean")
    return (
        f"Information of each layer about shape and texture at {captions.last_epoch(rows)}, "
        f"{captions.where(run_records)}, on images that combine both cues independently, and about the class on images "
        "where they agree. Dotted: the exact "
        "ceiling, log2 10 bits. Probe: held-out lower bound; on adversarial images that of the probe fitted on clean "
        "ones; triangles: under an attack on the probe itself. Monte Carlo: value for the noisy layer on these "
        f"images, {captions.noise(mixture)}; above 0 for shuffled labels, as there are few images per class. "
        f"{captions.samples(rows)}. {captions.seeds(rows)}"
    )


def _by_epoch(run_records: RunRecords) -> Table:
    quantities = tuple(f"i_t_{cue}" for cue in _LINES)
    rows = run_records.select(quantity=quantities, estimator="probe", inputs="clean", cell=None)
    return rows.dropna(subset=["epoch"])


def _draw_epochs(run_records: RunRecords) -> Figure:
    rows = _by_epoch(run_records)
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


def _caption_epochs(run_records: RunRecords) -> str:
    rows = _by_epoch(run_records)
    return (
        f"Information about shape and texture by a linear probe of each layer, {captions.where(run_records)}, "
        f"on images that combine both cues independently: held-out lower bound, {captions.samples(rows)}, "
        f"{captions.epochs(rows)}. Dotted: the exact ceiling. {captions.seeds(rows)}"
    )


BIAS_FIGURES = (
    FigureSpec(
        name="shape_bias",
        title="Shape or texture: decisions",
        alt="Shape bias of each training, accuracy with one cue, shape bias by class, and the texture-match test.",
        caption=_caption_predictions,
        needs=lambda run_records: not run_records.select(quantity="shape_bias", factor="shape").empty,
        draw=_draw_predictions,
        order=26,
    ),
)
LAYER_FIGURES = (
    FigureSpec(
        name="shape_texture",
        title="Shape or texture: information of the layers",
        alt="Information of each layer about shape, texture and class for each training, clean and adversarial.",
        caption=_caption_layers,
        needs=lambda run_records: (
            not run_records.select(quantity="i_t_shape", estimator="probe", inputs="adversarial").empty
        ),
        draw=_draw_layers,
        order=27,
    ),
    FigureSpec(
        name="shape_texture_epochs",
        title="Shape and texture through training",
        alt="One panel per layer: information about shape and about texture against epoch for each training.",
        caption=_caption_epochs,
        needs=lambda run_records: _by_epoch(run_records)["epoch"].nunique() > 1,
        draw=_draw_epochs,
        order=28,
    ),
)
