"""Confusion matrices: counts and mean confidence, one column per training."""

from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from mi_jax.plotting import style
from mi_jax.plotting.figures import FigureSpec
from mi_jax.plotting.study_arrays import by_training
from mi_jax.records.labels import INPUTS, attack_labels, name_of
from mi_jax.records.run_records import RunRecords

_STUDY = "confusion"
_MOST_NAMED = 12


def counts_of(run_records: RunRecords, inputs: str) -> dict[str, np.ndarray]:
    """Counts `[k k]` of every training, summed over seeds."""
    return {
        training: np.sum(seeds, axis=0)
        for training, seeds in by_training(run_records, _STUDY, f"counts_{inputs}").items()
    }


def confidence_of(run_records: RunRecords, inputs: str) -> dict[str, np.ndarray]:
    """Mean confidence `[k k]` of every training over the images of all seeds; NaN where a cell is empty."""
    found = {}
    counts = by_training(run_records, _STUDY, f"counts_{inputs}")
    for training, confidence in by_training(run_records, _STUDY, f"confidence_{inputs}").items():
        total = sum(n * np.nan_to_num(c) for n, c in zip(counts[training], confidence, strict=True))
        size = np.sum(counts[training], axis=0)
        found[training] = np.divide(total, size, out=np.full(size.shape, np.nan), where=size > 0)
    return found


def _draw(run_records: RunRecords, *, shown: str) -> Figure:
    trainings = list(counts_of(run_records, INPUTS[0]))
    names = [str(name) for name in by_training(run_records, _STUDY, "class_names")[trainings[0]][0]]
    figure = style.new_figure(0.6 + 2 * min(4.0, 8.4 / len(trainings)))
    panels = style.grid_of(figure, 2, len(trainings), sharex=True, sharey=True)
    image: Any = None
    for i, inputs in enumerate(INPUTS):
        counts, confidence = counts_of(run_records, inputs), confidence_of(run_records, inputs)
        for j, training in enumerate(trainings):
            share = counts[training] / np.maximum(counts[training].sum(1, keepdims=True), 1)
            values = share if shown == "counts" else confidence[training]
            numbers = counts[training] if shown == "counts" else np.round(100 * confidence[training])
            image = _draw_matrix(panels[i, j], values, numbers, names)
            panels[i, j].set_title(f"{name_of(training)}, {inputs} images", loc="left")
    label = "share of the true class" if shown == "counts" else "mean confidence"
    figure.colorbar(image, ax=panels, shrink=0.6, label=label)
    figure.supxlabel("predicted class", fontsize=9)
    figure.supylabel("true class", fontsize=9)
    return figure


def _draw_matrix(axes: Axes, values: np.ndarray, numbers: np.ndarray, names: list[str]) -> AxesImage:
    image = axes.imshow(values, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.set_facecolor("#f4f4f4")
    axes.grid(visible=False)
    if len(names) > _MOST_NAMED:
        return image
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    for (i, j), number in np.ndenumerate(numbers):
        if number > 0:
            colour = "white" if values[i, j] > 0.55 else "#222222"
            axes.text(j, i, f"{number:.0f}", ha="center", va="center", fontsize=6.5, color=colour)
    return image


def _caption(run_records: RunRecords, *, shown: str) -> str:
    counts = list(by_training(run_records, _STUDY, "counts_clean").values())
    seeds, images = {len(of_seeds) for of_seeds in counts}, int(counts[0][0].sum())
    rows = run_records.select(quantity="confidence_right", inputs="adversarial")
    attack = attack_labels(rows)
    what = (
        "Numbers: images, summed over seeds; colour: share of the true class"
        if shown == "counts"
        else "Numbers (%) and colour: mean softmax probability of the predicted class over the images of a cell, grey "
        "where there is none"
    )
    several = f"{max(seeds)} seeds, {images} images each" if max(seeds) > 1 else f"1 seed, {images} images"
    return (
        f"True class (rows) against predicted class (columns) of the finished networks, on clean test images and on "
        f"the adversarial examples of each network ({attack}). {what}. {several}."
    )


FIGURES = tuple(
    FigureSpec(
        name=f"confusion_{shown}",
        title=title,
        alt="Matrices of true against predicted class, one column per training, clean above adversarial.",
        caption=partial(_caption, shown=shown),
        needs=lambda run_records: bool(by_training(run_records, _STUDY, "counts_clean")),
        draw=partial(_draw, shown=shown),
        order=140 + order,
        minor=lambda _, shown=shown: shown == "confidence",
    )
    for order, (shown, title) in enumerate(
        {"counts": "Confusion matrices", "confidence": "Confusion matrices: mean confidence"}.items()
    )
)
