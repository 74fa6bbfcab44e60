"""Sensitivity to single Fourier waves and spectra of adversarial perturbations: maps and radial curves."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

from mi_jax.plotting import captions, style
from mi_jax.plotting.figures import FigureSpec
from mi_jax.plotting.study_arrays import by_training
from mi_jax.records.labels import attack_labels, name_of
from mi_jax.records.run_records import RunRecords
from mi_jax.statistics.intervals import over_seeds

_STUDY = "fourier"
_LEAST_POWER = 1e-3


def maps(run_records: RunRecords, name: str) -> dict[str, np.ndarray]:
    """The map `[h w]` of every training, its mean over seeds."""
    return {training: np.mean(seeds, axis=0) for training, seeds in by_training(run_records, _STUDY, name).items()}


def _draw(run_records: RunRecords) -> Figure:
    errors, powers = maps(run_records, "error"), maps(run_records, "power")
    trainings = list(errors)
    side = min(3.0, 8.0 / len(trainings))
    figure = style.new_figure(2 * side + 3.2)
    parts: Any = figure.subfigures(2, 1, height_ratios=(2 * side, 2.9))
    upper, lower = parts
    panels = upper.subplots(2, len(trainings), squeeze=False)
    for i, (found, title) in enumerate(((errors, "error under a wave"), (powers, "power of perturbations"))):
        image = None
        for j, training in enumerate(trainings):
            image = _draw_map(panels[i, j], found[training], logarithmic=i == 1)
            panels[i, j].set_title(f"{name_of(training)}, {title}", loc="left")
        label = "error rate" if i == 0 else "log₁₀ power, white noise = 0"
        upper.colorbar(image, ax=panels[i], shrink=0.85, label=label)
        panels[i, 0].set_ylabel("cycles down")
    curves = lower.subplots(1, 2)
    _draw_curves(curves[0], run_records, "wave_error", "error rate")
    _draw_curves(curves[1], run_records, "perturbation_power", "power, white noise = 1")
    if any(power.any() for power in powers.values()):  # an attack without a gradient has no spectrum
        curves[1].set_yscale("log")
    curves[1].axhline(1, color=style.GREY, linestyle=":", linewidth=1)
    return figure


def _draw_map(axes: Axes, values: np.ndarray, *, logarithmic: bool) -> AxesImage:
    known = ~np.isnan(values)
    rows, columns = np.flatnonzero(known.any(1)), np.flatnonzero(known.any(0))
    shown = values[np.ix_(rows, columns)]
    down, right = rows - len(values) // 2, columns - values.shape[1] // 2
    step = (down[1] - down[0]) / 2 if len(down) > 1 else 0.5
    extent = (right[0] - step, right[-1] + step, down[-1] + step, down[0] - step)
    options = {"vmin": 0, "vmax": 1, "cmap": "inferno"}
    if logarithmic:
        shown = np.log10(np.maximum(shown, _LEAST_POWER))
        options = {"vmin": -2, "vmax": 2, "cmap": "RdBu_r"}
    axes.grid(visible=False)
    axes.set_xlabel("cycles right")
    return axes.imshow(shown, extent=extent, interpolation="nearest", **options)


def _draw_curves(axes: Axes, run_records: RunRecords, quantity: str, label: str) -> None:
    table = over_seeds(run_records.select_final(quantity=quantity), ["training", "level"])
    handles = []
    for training in run_records.trainings:
        part = table[table["training"] == training].sort_values("level")
        if len(part):
            colour = style.colour_of(training, run_records.trainings)
            style.draw_curve(axes, part["level"], part, colour=colour)
            handles.append(Line2D([], [], color=colour, label=name_of(training)))
    if quantity == "wave_error":
        for training, rows in run_records.select_final(quantity="error").groupby("training"):
            colour = style.colour_of(str(training), run_records.trainings)
            axes.axhline(rows["value"].mean(), color=colour, linestyle=":", linewidth=1)
        axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("radial frequency (cycles per image)")
    axes.set_ylabel(label)
    axes.legend(handles=handles)


def _caption(run_records: RunRecords) -> str:
    waves, power = (
        run_records.select_final(quantity="wave_error"),
        run_records.select_final(quantity="perturbation_power"),
    )
    return (
        "Above: share of images misclassified when one wave is added, with the L2 norm of a perturbation at the radius "
        "of the attack that changes all pixels equally "
        f"(frequency 0 in the middle; Yin et al. 2019), {captions.samples(waves)}. Below it: mean power of adversarial "
        f"perturbations ({attack_labels(power)}) at each frequency, as a multiple of white noise of the same energy, "
        f"{captions.samples(power)}. Curves: the same over rings of one cycle, dotted the error without a wave and the "
        f"power of white noise. {captions.where(run_records)}. {captions.seeds(waves)}"
    )


FIGURES = (
    FigureSpec(
        name="fourier",
        title="Frequencies: sensitivity of the networks, power of the attacks",
        alt="Maps over spatial frequency of error rates and of perturbation power, one column per training, and curves "
        "of both over radial frequency.",
        caption=_caption,
        needs=lambda run_records: bool(by_training(run_records, _STUDY, "error")),
        draw=_draw,
        order=150,
    ),
)
