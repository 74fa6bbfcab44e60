"""Accuracy on corrupted images against the severity, one panel per corruption."""

import math

import numpy as np
from matplotlib.figure import Figure

from mi_jax.plotting import captions, style
from mi_jax.plotting.figures import FigureSpec
from mi_jax.plotting.panels import trainings_of
from mi_jax.records.labels import name_of
from mi_jax.records.run_records import RunRecords
from mi_jax.statistics.intervals import Table, over_seeds
from mi_jax.studies.corruptions.study import UNCORRUPTED

_COLUMNS = 4


def _rows(run_records: RunRecords) -> Table:
    return run_records.select_final(quantity="accuracy", image_set="corrupted")


def _draw(run_records: RunRecords) -> Figure:
    rows = _rows(run_records)
    names = [name for name in dict.fromkeys(rows["distortion"]) if name != UNCORRUPTED]
    trainings = trainings_of(run_records, rows)
    count = math.ceil(len(names) / _COLUMNS)
    figure = style.new_figure(0.6 + 2.0 * count)
    panels = style.grid_of(figure, count, min(_COLUMNS, len(names)), sharey=True)
    for axes, name in zip(panels.flat, names, strict=False):
        shown = rows[rows["distortion"].isin([UNCORRUPTED, name])]
        levels = sorted(shown["level"].dropna().unique())
        named = shown.assign(level=shown["level"].fillna(max(levels) + 1))  # a set without a severity comes last
        table = over_seeds(named, ["training", "level"], within=(0.0, 1.0))
        for training in trainings:
            part = style.in_percent(table[table["training"] == training])
            colour = style.colour_of(training, run_records.trainings)
            style.draw_curve(axes, part["level"], part, colour=colour)
            style.draw_whiskers(axes, part["level"], part, colour=colour)
        ticks = sorted(named["level"].unique())
        axes.set_xticks(ticks, [f"{level:g}" if level in levels else "set" for level in ticks])
        axes.set_title(_title(name), loc="left")
        axes.set_ylim(0, 103)
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    for axes in panels[:, 0]:
        axes.set_ylabel("accuracy (%)")
    figure.supxlabel("severity, 0 the uncorrupted images", fontsize=9)
    style.legend_above(figure, style.training_handles(trainings))
    return figure


def _title(name: str) -> str:
    words = name.replace("_", " ").replace("jpeg", "JPEG")
    return words[:1].upper() + words[1:]


def _caption(run_records: RunRecords) -> str:
    rows = _rows(run_records)
    means = over_seeds(run_records.select_final(quantity="mean_corruption_accuracy"), ["training"], within=(0.0, 1.0))
    by_training = means.set_index("training")["mean"]
    overall = ", ".join(f"{name_of(t)} {100 * by_training[t]:.1f} %" for t in trainings_of(run_records, means))
    count = len(set(rows["distortion"]) - {UNCORRUPTED})
    return (
        f"Accuracy on corrupted test images of {captions.where(run_records)}. Severities as in CIFAR-10-C (Hendrycks "
        f"and Dietterich 2019), of {count} corruptions. Mean over all corrupted sets: {overall}. "
        f"{captions.samples(rows)}. {captions.seeds(rows)}"
    )


def _needs(run_records: RunRecords) -> bool:
    return bool(np.any(_rows(run_records)["distortion"] != UNCORRUPTED))


FIGURES = (
    FigureSpec(
        name="corruptions",
        title="Accuracy on corrupted images",
        alt="Accuracy against the severity of each corruption, one colour per training.",
        caption=_caption,
        needs=_needs,
        draw=_draw,
        order=108,
    ),
)
