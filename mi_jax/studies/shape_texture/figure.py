"""Shape or texture: what the answers follow, and what each layer tells of either cue.

It reads the records of the study `cue_conflict` only.
"""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mi_jax.plotting import captions, style
from mi_jax.plotting.figures import FigureSpec, register
from mi_jax.records.labels import INPUTS, name_of
from mi_jax.records.run_records import RunRecords
from mi_jax.statistics.intervals import Table, over_seeds

_CUES = ("shape", "texture")
_ALONE = {"texture_suppressed": "shape alone", "shape_suppressed": "texture alone"}
_HALF = 0.5


def _draw_answers(run_records: RunRecords) -> Figure:
    figure = style.new_figure(5.6)
    panels = style.grid_of(figure, 2, 2)
    bias = run_records.select_at_the_end(quantity="shape_bias", subset="conflict", inputs=INPUTS)
    trainings = [t for t in run_records.trainings if (bias["training"] == t).any()]
    _draw_bias(panels[0, 0], run_records, bias, trainings)
    _draw_alone(panels[0, 1], run_records, trainings)
    _draw_classes(panels[1, 0], run_records, trainings)
    _draw_oracle(panels[1, 1], run_records, trainings)
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


def _point(axes: Axes, x: float, table: Table, values: Any, *, colour: str, hollow: bool) -> None:
    """A mean with its interval over seeds, and the seeds themselves as small ticks beside it."""
    x_of = np.array([x])
    style.draw_whiskers(axes, x_of, table, colour=colour)
    style.draw_marks(axes, x_of, table["mean"], np.array([hollow]), colour=colour, size=6)
    if len(values) > 1:
        axes.plot(np.full(len(values), x + 0.07), values, "_", color=colour, markersize=5, alpha=0.7)


def _draw_bias(axes: Axes, run_records: RunRecords, bias: Table, trainings: list[str]) -> None:
    coverage = over_seeds(
        run_records.select_at_the_end(quantity="cue_coverage", subset="conflict"), ["training", "inputs"]
    )
    for i, training in enumerate(trainings):
        for j, inputs in enumerate(INPUTS):
            rows = bias[(bias["training"] == training) & (bias["inputs"] == inputs)]
            if rows.empty:
                continue
            x, colour = i + 0.3 * (j - 0.5), style.colour_of(training, run_records.trainings)
            _point(axes, x, over_seeds(rows, ["training"]), rows["value"], colour=colour, hollow=j == 1)
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
    for k, subset in enumerate(_ALONE):
        rows = run_records.select_at_the_end(quantity="accuracy", subset=subset, inputs=INPUTS)
        for i, training in enumerate(trainings):
            for j, inputs in enumerate(INPUTS):
                here = rows[(rows["training"] == training) & (rows["inputs"] == inputs)]
                if here.empty:
                    continue
                x = k + 0.26 * (i - (len(trainings) - 1) / 2) + 0.1 * (j - 0.5)
                colour = style.colour_of(training, run_records.trainings)
                table = style.in_percent(over_seeds(here, ["training"], within=(0.0, 1.0)))
                _point(axes, x, table, 100 * here["value"], colour=colour, hollow=j == 1)
    axes.axhline(10, color=style.GREY, linewidth=0.8, linestyle=":")
    axes.set_ylim(-3, 103)
    _categories(axes, list(_ALONE.values()))
    axes.set_title("Accuracy with one cue (dotted: chance)", loc="left")
    axes.set_ylabel("accuracy (%)")


def _draw_classes(axes: Axes, run_records: RunRecords, trainings: list[str]) -> None:
    rows = run_records.select_at_the_end(quantity="shape_bias", inputs="clean")
    rows = rows[rows["subset"].fillna("").str.startswith("conflict,shape=")]
    names = dict(zip(rows["subset"], rows["note"], strict=True))
    subsets = sorted(names, key=lambda subset: int(subset.partition("=")[2]))
    for i, training in enumerate(trainings):
        table = over_seeds(rows[rows["training"] == training], ["subset"]).set_index("subset").reindex(subsets)
        x = style.dodged(len(subsets), i, len(trainings))
        colour = style.colour_of(training, run_records.trainings)
        style.draw_whiskers(axes, x, table, colour=colour)
        style.draw_marks(axes, x, table["mean"], np.zeros(len(x), dtype=bool), colour=colour)
    axes.axhline(_HALF, color="#222222", linewidth=0.8)
    axes.set_ylim(-0.05, 1.05)
    axes.set_xticks(range(len(subsets)), [names[s] for s in subsets], rotation=40, ha="right")
    axes.set_title("Shape bias by class of the shape, clean", loc="left")
    axes.set_ylabel("texture ← → shape")


def _draw_oracle(axes: Axes, run_records: RunRecords, trainings: list[str]) -> None:
    rates = run_records.select_at_the_end(quantity="delta_oracle")
    baselines = run_records.select_at_the_end(quantity="delta_oracle_baseline")
    shown = [t for t in trainings if (rates["training"] == t).any()]
    for i, training in enumerate(shown):
        colour = style.colour_of(training, run_records.trainings)
        here = rates[rates["training"] == training]
        _point(axes, i - 0.12, over_seeds(here, ["training"]), here["value"], colour=colour, hollow=False)
        for subset, line in (("exchanged among images", ":"), ("exchanged within classes", "-")):
            level = baselines.loc[(baselines["training"] == training) & (baselines["subset"] == subset), "value"].mean()
            axes.plot([i - 0.3, i + 0.3], [level, level], color=style.GREY, linestyle=line, linewidth=1.2)
    axes.set_ylim(bottom=0)
    _categories(axes, [name_of(t) for t in shown])
    axes.set_title("Perturbation carries the texture of the answer", loc="left")
    axes.set_ylabel("share of misclassified")
    handles = [
        Line2D([], [], color=style.GREY, linestyle=":", label="exchanged among images"),
        Line2D([], [], color=style.GREY, label="exchanged within classes"),
    ]
    axes.legend(handles=handles, fontsize=7, loc="upper right")


def _categories(axes: Axes, names: list[str]) -> None:
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.6, len(names) - 0.4)


def _caption_answers(run_records: RunRecords) -> str:
    rows = run_records.select_at_the_end(quantity="shape_bias", subset="conflict", inputs="clean")
    n = run_records.select_at_the_end(quantity="cue_coverage", subset="conflict")["n"]
    return (
        f"What the answers follow at {captions.last_epoch(rows)}, {captions.where(run_records)}. Shape bias: of the answers "
        "on conflict images that name the class of the shape or of the texture, the share that name the shape's "
        f"(Geirhos et al. 2019), n = {n.min():g} images; coverage: the share that name either. Adversarial: attacked "
        "away from the network's own answer (conflict) or from the label (one cue). Last panel: of the images that "
        "the attack has misclassified, the share where the texture of another class that the perturbation resembles "
        "most, by power spectrum, is that of the answer; lines: the same with answers exchanged between images. "
        f"Small ticks: seeds. {captions.seeds(rows)}"
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
        t for t in run_records.trainings if (run_records.select_at_the_end(quantity="i_t_shape")["training"] == t).any()
    ]
    handles = style.condition_handles(trainings, INPUTS)
    handles.append(Line2D([], [], color=style.GREY, linestyle="-.", linewidth=1, label="shuffled labels"))
    handles.append(Line2D([], [], color=style.GREY, marker="v", linestyle="none", label="probe under attack"))
    style.legend_above(figure, handles)
    return figure


def _layers(run_records: RunRecords) -> list[str]:
    rows = run_records.select_at_the_end(quantity="i_t_shape", estimator="probe")
    return list(dict.fromkeys(rows["layer"].dropna()))


def _draw_information(axes: Axes, run_records: RunRecords, quantity: str, estimator: str, layers: list[str]) -> None:
    rows = run_records.select_at_the_end(quantity=quantity, estimator=estimator, inputs=INPUTS)
    control = run_records.select_at_the_end(quantity="i_t_shuffled", estimator=estimator, inputs="clean")
    for training in run_records.trainings:
        colour = style.colour_of(training, run_records.trainings)
        for inputs in INPUTS:
            _draw_by_layer(axes, rows[rows["inputs"] == inputs], training, layers, colour, style.line_of(inputs))
        if quantity != "i_t_label":
            _draw_by_layer(axes, control, training, layers, colour, "-.", width=0.8)
    ceiling = run_records.select_at_the_end(quantity=f"h_{quantity.removeprefix('i_t_')}", estimator="exact")["value"]
    if len(ceiling):
        style.draw_ceiling(axes, float(ceiling.iloc[0]))
    axes.set_ylim(-0.15, math.log2(10) + 0.2)
    style.layer_axis(axes, layers)


def _draw_by_layer(
    axes: Axes, rows: Table, training: str, layers: list[str], colour: str, line: Any, width: float = 1.5
) -> None:
    rows = rows[rows["training"] == training]
    if rows.empty:
        return
    table = over_seeds(rows, ["layer"]).set_index("layer").reindex(layers)
    x = np.arange(len(layers))
    axes.plot(x, table["mean"], color=colour, linestyle=line, linewidth=width)
    if width > 1:
        style.draw_whiskers(axes, x, table, colour=colour)


def _draw_robust(axes: Axes, run_records: RunRecords, cue: str, layers: list[str]) -> None:
    rows = run_records.select_at_the_end(quantity=f"i_t_{cue}_robust")
    for training in run_records.trainings:
        here = rows[rows["training"] == training]
        if here.empty:
            continue
        table = over_seeds(here, ["layer"])
        x = [layers.index(layer) for layer in table["layer"]]
        axes.plot(
            x, table["mean"], "v", color=style.colour_of(training, run_records.trainings), markersize=6, zorder=4,
            clip_on=False,
        )  # fmt: skip


def _draw_preference(axes: Axes, run_records: RunRecords, layers: list[str]) -> None:
    rows = run_records.select_at_the_end(quantity="cue_preference", estimator="probe", inputs="clean")
    for training in run_records.trainings:
        _draw_by_layer(axes, rows, training, layers, style.colour_of(training, run_records.trainings), "-")
    axes.axhline(0, color="#222222", linewidth=0.8)
    axes.set_ylim(-1.08, 1.08)
    axes.set_title(r"Preference $(I_S - I_T)\,/\,(I_S + I_T)$, probe", loc="left")
    axes.set_ylabel("texture ← → shape")
    style.layer_axis(axes, layers)


def _caption_layers(run_records: RunRecords) -> str:
    rows = run_records.select_at_the_end(quantity="i_t_shape", estimator="probe", inputs="clean")
    mixture = run_records.select_at_the_end(quantity="i_t_shape", estimator="monte_carlo", inputs="clean")
    return (
        f"What each layer tells of shape and texture at {captions.last_epoch(rows)}, {captions.where(run_records)}, on "
        "images that combine both cues independently, and of the class on images where they agree. Dotted: the exact "
        "ceiling, log2 10 bits. Probe: held-out lower bound; on adversarial images that of the probe fitted on clean "
        "ones; triangles: under an attack on the probe itself. Monte Carlo: value for the noisy layer on the images at "
        f"hand, {captions.noise(mixture)}; what shuffled labels read there is owed to having few images a class. "
        f"{captions.samples(rows)}. {captions.seeds(rows)}"
    )


register(
    FigureSpec(
        name="shape_bias",
        title="Shape or texture: what the answers follow",
        alt="Shape bias of each training, accuracy with one cue, shape bias by class, and the delta oracle.",
        caption=_caption_answers,
        needs=lambda run_records: not run_records.select(quantity="shape_bias", subset="conflict,shape=0").empty,
        draw=_draw_answers,
        order=26,
    )
)
register(
    FigureSpec(
        name="cue_conflict",
        title="Shape or texture: what the layers tell",
        alt="Information of each layer about shape, texture and class for each training, clean and adversarial.",
        caption=_caption_layers,
        needs=lambda run_records: (
            not run_records.select(quantity="i_t_shape", estimator="probe", inputs="adversarial").empty
        ),
        draw=_draw_layers,
        order=27,
    )
)
