"""Cue conflict on any images: the images, the choices by strength, and the information of each layer about the cues."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.typing import LineStyleType

from mi_jax.plotting import captions, style
from mi_jax.plotting.figures import FigureSpec
from mi_jax.plotting.panels import layers_of, trainings_of
from mi_jax.plotting.study_arrays import by_training
from mi_jax.records.labels import INPUTS
from mi_jax.records.run_records import RunRecords
from mi_jax.statistics.intervals import Table, over_seeds
from mi_jax.studies.hybrid_conflict.images import CUES

_STUDY = "hybrid_conflict"
_LINES: tuple[LineStyleType, LineStyleType] = ("-", (0.0, (1.0, 1.0)))
_SHARE = (0.0, 1.0)
_BALANCE, _ANY = (-1.0, 1.0), (-math.inf, math.inf)
_BESIDE = 0.12
_MARKS = ("o", "s")
"""Of the first and of the second cue."""
_COLUMNS = {
    "cue_bias": "Bias to the first cue",
    "cue_sensitivity": "Sensitivity (reciprocal rank)",
    "accuracy": "Accuracy on one cue alone",
}
_NAMES = {"hybrid": "low or high frequencies", "patches": "outline or patches"}


def _rows(run_records: RunRecords, quantity: str, kind: str) -> Table:
    image_set = "one_cue" if quantity == "accuracy" else "conflict_pairs"
    return run_records.select_final(quantity=quantity, distortion=kind, image_set=image_set)


def _kinds(run_records: RunRecords) -> list[str]:
    return [kind for kind in CUES if not _rows(run_records, "cue_sensitivity", kind).empty]


def _draw_choices(run_records: RunRecords) -> Figure:
    kinds = _kinds(run_records)
    figure = style.new_figure(0.6 + 2.2 * len(kinds))
    panels = style.grid_of(figure, len(kinds), len(_COLUMNS), sharey=True)
    trainings = trainings_of(run_records, _rows(run_records, "cue_sensitivity", kinds[0]))
    for row, kind in zip(panels, kinds, strict=True):
        for axes, (quantity, title) in zip(row, _COLUMNS.items(), strict=True):
            rows = _rows(run_records, quantity, kind)
            places = {level: place for place, level in enumerate(sorted(rows["level"].unique()))}
            for i, training in enumerate(trainings):
                own = rows[rows["training"] == training].assign(place=rows["level"].map(places))
                beside = 0.03 * (i - (len(trainings) - 1) / 2)
                colour = style.colour_of(training, run_records.trainings)
                _draw_training(axes, own, CUES[kind], colour, beside=beside)
            if quantity == "cue_bias":
                axes.axhline(0.5, color="#222222", linewidth=0.8)
            axes.set_title(title, loc="left")
            axes.set_ylim(-0.03, 1.05)
            axes.set_xlim(-0.4, len(places) - 0.6)
            axes.set_xlabel("cut-off (cycles per image)" if kind == "hybrid" else "patches per side")
            axes.set_xticks(list(places.values()), [f"{level:g}" for level in places])
        row[0].set_ylabel(_NAMES[kind])
    handles = style.training_handles(trainings)
    handles += [
        Line2D(
            [],
            [],
            marker="o",
            linestyle="none",
            markerfacecolor="white",
            markeredgecolor=style.GREY,
            label="adversarial",
        ),
        *(
            Line2D(
                [],
                [],
                color=style.GREY,
                linestyle=line,
                marker=_MARKS[i],
                label=" / ".join(CUES[kind][i] for kind in kinds),
            )
            for i, line in enumerate(_LINES)
        ),
    ]
    style.legend_above(figure, handles)
    return figure


def _draw_training(axes: Axes, rows: Table, cues: tuple[str, str], colour: str, *, beside: float) -> None:
    """One curve for each cue, or for a bias one for clean images and hollow marks next to it for adversarial ones."""
    clean, adversarial = (rows[rows["inputs"] == inputs] for inputs in INPUTS)
    has_cues = clean["factor"].notna().any()
    lines: dict[str | None, LineStyleType] = dict(zip(cues, _LINES, strict=True)) if has_cues else {None: _LINES[0]}
    for cue, line, mark in zip(lines, lines.values(), _MARKS, strict=False):
        table = over_seeds(clean[clean["factor"] == cue] if cue else clean, ["place"], within=_SHARE)
        place = table["place"] + beside + (_BESIDE if mark == _MARKS[1] and len(table) == 1 else 0.0)
        style.draw_curve(axes, place, table, colour=colour, line=line)
        style.draw_whiskers(axes, place, table, colour=colour)
        axes.plot(place, table["mean"], mark, color=colour, markersize=5, zorder=3.5)
    if not has_cues and not adversarial.empty:
        table = over_seeds(adversarial, ["place"], within=_SHARE)
        place = table["place"] + beside + _BESIDE
        style.draw_whiskers(axes, place, table, colour=colour)
        style.draw_marks(axes, place, table["mean"], np.ones(len(table), bool), colour=colour, size=5.0)


def _caption_choices(run_records: RunRecords) -> str:
    rows = _rows(run_records, "cue_sensitivity", _kinds(run_records)[0])
    coverage = run_records.select_final(quantity="cue_coverage", image_set="conflict_pairs", inputs="clean")["value"]
    return (
        f"Cue conflict on {captions.where(run_records)}: images that combine a cue of one test image with a cue of "
        "another of a different class. Top: low spatial frequencies of one and high ones of the other (Oliva et al. "
        "2006); below: the outline of one and the shuffled patches of the other. Bias: of the predictions that are "
        f"the class of either cue ({100 * coverage.min():.0f} to {100 * coverage.max():.0f} % of the images), the "
        "share that are the first's; hollow: adversarial examples at the level where the less recognisable cue on its "
        "own is recognised best. Sensitivity: mean reciprocal rank of each cue's class among all classes (Kim et al. "
        "2026). "
        f"A bias says little where a cue alone is at chance. {captions.samples(rows)}. {captions.seeds(rows)}"
    )


def _draw_layers(run_records: RunRecords) -> Figure:
    kinds = _kinds(run_records)
    figure = style.new_figure(0.6 + 2.2 * len(kinds))
    panels = style.grid_of(figure, len(kinds), 3, sharex=True)
    layers: list[str] = []
    for row, kind in zip(panels, kinds, strict=True):
        for axes, cue in zip(row, (*CUES[kind], None), strict=True):
            quantity = f"i_t_{cue}" if cue else "cue_preference"
            rows = run_records.select_final(quantity=quantity, estimator="probe", distortion=kind, inputs="clean")
            layers = layers or layers_of(run_records, rows)
            for training in trainings_of(run_records, rows):
                table = over_seeds(rows[rows["training"] == training], ["layer"], within=_ANY if cue else _BALANCE)
                table = table.set_index("layer").reindex(layers)
                colour = style.colour_of(training, run_records.trainings)
                style.draw_line(axes, range(len(layers)), table["mean"], color=colour)
                style.draw_whiskers(axes, range(len(layers)), table, colour=colour)
            style.draw_zero(axes)
            axes.set_title(
                f"I(T; {cue}), linear probe" if cue else f"Preference, {' over '.join(CUES[kind])}", loc="left"
            )
            axes.set_ylabel("bits" if cue else "")
            if not cue:
                axes.set_ylim(-1.08, 1.08)
            style.layer_axis(axes, layers)
    style.legend_above(figure, style.training_handles(run_records.trainings))
    return figure


def _caption_layers(run_records: RunRecords) -> str:
    rows = run_records.select_final(quantity="i_t_low", estimator="probe")
    return (
        f"Information of each layer about the class of either cue of conflict images, {captions.where(run_records)}: "
        "held-out lower bound by a linear probe, and the preference (I1 - I2) / (I1 + I2), where bounds below 0 "
        "count as 0, so that 1 means nothing was found about the second cue; none where nothing was found about "
        "either. Above: low and high spatial frequencies; below: outline and patches. "
        f"{captions.samples(rows)}. {captions.seeds(rows)}"
    )


def _draw_images(run_records: RunRecords) -> Figure:
    images = next(iter(by_training(run_records, _STUDY, "images").values()))[0]
    kinds = list(CUES)[: len(images)]
    columns = images.shape[2]
    figure = style.new_figure(0.3 + 0.8 * 3 * len(kinds), width=1.8 + 0.8 * columns)
    panels = style.grid_of(figure, 3 * len(kinds), columns)
    for axes, image in zip(panels.flat, images.reshape(-1, *images.shape[3:]), strict=True):
        axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
        axes.axis("off")
    names = [name for kind in kinds for name in (*CUES[kind], "both")]
    for axes, name in zip(panels[:, 0], names, strict=True):
        axes.text(-0.15, 0.5, name, transform=axes.transAxes, ha="right", va="center", fontsize=7.5)
    return figure


FIGURES = (
    FigureSpec(
        name="hybrid_conflict_images",
        title="Conflict images",
        alt="Rows of images: the first cue, the second cue, and both together.",
        caption=lambda _: (
            "A few pairs at the level that is compared: each cue alone, as it is in the conflict image, and both in it."
        ),
        needs=lambda run_records: bool(by_training(run_records, _STUDY, "images")),
        draw=_draw_images,
        order=50,
    ),
    FigureSpec(
        name="hybrid_conflict",
        title="Which cue predictions follow on conflict images",
        alt="Bias, sensitivity and accuracy on one cue against the strength of the conflict, one colour per training.",
        caption=_caption_choices,
        needs=lambda run_records: bool(_kinds(run_records)),
        draw=_draw_choices,
        order=51,
    ),
    FigureSpec(
        name="hybrid_conflict_layers",
        title="Information of the layers about conflicting cues",
        alt="Information about either cue by layer, one colour per training.",
        caption=_caption_layers,
        needs=lambda run_records: not run_records.select_final(quantity="i_t_low", estimator="probe").empty,
        draw=_draw_layers,
        order=52,
    ),
)
