"""Accuracy and information under distortions of growing strength, and examples of the distorted images."""

import math
from functools import partial
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mi_jax.plotting import captions, style
from mi_jax.plotting.figures import FigureSpec
from mi_jax.plotting.panels import flagged
from mi_jax.plotting.study_arrays import by_training
from mi_jax.records.labels import INFORMATION, INPUTS, NOISE_RULE_NAMES, attack_labels, name_of
from mi_jax.records.run_records import RunRecords, conditions
from mi_jax.statistics.intervals import Table, over_seeds

_STUDY = "distortions"
TITLES = {
    "saturate": "saturation p",
    "patch_shuffle": "patch shuffle k x k",
    "low_pass": "low pass, cycles per image",
    "high_pass": "high pass, cycles per image",
    "phase_scramble": "phase scrambling",
    "gaussian_noise": "Gaussian noise, sd in 1/255",
    "greyscale": "greyscale",
}
_PAPER, _OTHERS = ("saturate", "patch_shuffle"), tuple(TITLES)[2:]


def rows_of(
    run_records: RunRecords, quantity: str, names: tuple[str, ...] = tuple(TITLES), rule: str | None = None
) -> Table:
    """Rows of a quantity under the named distortions; corruptions of the same names are of other images."""
    columns = {"image_set": "test", "distortion": names, "noise_rule": rule, "inputs": INPUTS}
    return flagged(run_records.select_final(quantity=quantity, **columns))


def levels_of(rows: Table, name: str) -> list[float]:
    """The levels of a distortion from the identity to the strongest."""
    return sorted(rows.loc[rows["distortion"] == name, "level"].unique(), reverse=name == "low_pass")


def level_name(name: str, level: float) -> str:
    """A level as the axes write it.

    >>> level_name("gaussian_noise", 16 / 255), level_name("saturate", 1024.0)
    ('16', '1024')
    """
    if name == "greyscale":
        return "grey" if level else "colour"
    return f"{255 * level if name == 'gaussian_noise' else level:g}"


def _draw_accuracy(run_records: RunRecords) -> Figure:
    rows = rows_of(run_records, "accuracy")
    names = [name for name in TITLES if (rows["distortion"] == name).any()]
    table = over_seeds(rows, ["training", "inputs", "distortion", "level"], within=(0.0, 1.0))
    columns = min(4, len(names))
    figure = style.new_figure(0.5 + 2.2 * math.ceil(len(names) / columns))
    panels = style.grid_of(figure, math.ceil(len(names) / columns), columns, sharey=True)
    for axes, name in zip(panels.flat, names, strict=False):
        levels = levels_of(rows, name)
        for training, inputs, part in conditions(table[table["distortion"] == name], run_records.trainings):
            part = style.in_percent(part.set_index("level").loc[levels])
            colour = style.colour_of(training, run_records.trainings)
            style.draw_curve(axes, range(len(levels)), part, colour=colour, line=style.line_of(inputs))
        axes.set_xticks(range(len(levels)), [level_name(name, level) for level in levels])
        axes.set_title(TITLES[name], loc="left")
        axes.set_ylim(0, 103)
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    for axes in panels[:, 0]:
        axes.set_ylabel("accuracy (%)")
    style.legend_above(figure, style.condition_handles(run_records.trainings, INPUTS))
    return figure


def _caption_accuracy(run_records: RunRecords) -> str:
    rows = rows_of(run_records, "accuracy")
    return (
        f"Test accuracy under distortions of growing strength, {captions.where(run_records)}; at the left of each "
        "panel the undistorted images. Solid: clean; dashed: adversarial images made first and then distorted "
        f"({attack_labels(rows)}). Images are the same for all networks; permutations, phases and noise for those of a "
        f"seed. {captions.samples(rows)}. {captions.seeds(rows)}"
    )


def _draw_information(run_records: RunRecords, *, names: tuple[str, ...], rule: str) -> Figure:
    found = rows_of(run_records, "i_tx_upper", names, rule)
    names = tuple(name for name in names if (found["distortion"] == name).any())
    trainings = [t for t in run_records.trainings if (found["training"] == t).any()]
    layers = [layer for layer in run_records.layers if (found["layer"] == layer).any()]
    figure = style.new_figure(0.4 + 2.3 * len(INFORMATION) * len(names))
    panels = style.grid_of(figure, len(INFORMATION) * len(names), len(trainings), sharex=True, sharey="row")
    pairs = [(name, symbol) for name in names for symbol in INFORMATION]
    for (name, symbol), row in zip(pairs, panels, strict=True):
        rows = rows_of(run_records, f"{symbol}_upper", (name,), rule)
        table = over_seeds(rows, ["training", "inputs", "level", "layer"])
        levels = levels_of(rows, name)
        for axes, training in zip(row, trainings, strict=True):
            _draw_levels(axes, table[table["training"] == training], levels, layers)
            axes.set_title(f"{name_of(training)}, {TITLES[name].partition(',')[0]}: {INFORMATION[symbol]}", loc="left")
        style.fit(row)
        row[0].set_ylabel(f"{INFORMATION[symbol]} (bits)")
        handles = [
            Line2D([], [], color=colour, label=level_name(name, level))
            for level, colour in zip(levels, _colours(len(levels)), strict=True)
        ]
        title = TITLES[name].replace(", ", ",\n")
        row[-1].legend(handles=handles, title=title, loc="center left", bbox_to_anchor=(1.01, 0.5), title_fontsize=8)
    kinds = [Line2D([], [], color=style.GREY, linestyle=style.line_of(kind), label=kind) for kind in INPUTS]
    hollow = style.condition_handles([], [], hollow=True) if found["saturated"].any() else []
    style.legend_above(figure, [*kinds, *hollow])
    return figure


def _draw_levels(axes: Axes, table: Table, levels: list[float], layers: list[str]) -> None:
    for inputs in INPUTS:
        for level, colour in zip(levels, _colours(len(levels)), strict=True):
            part = table[(table["inputs"] == inputs) & (table["level"] == level)].set_index("layer").reindex(layers)
            line = style.line_of(inputs)
            style.draw_line(axes, range(len(layers)), part["mean"], color=colour, linestyle=line, linewidth=1.2)
            style.draw_whiskers(axes, range(len(layers)), part, colour=colour)
            hollow = part["saturated"].eq(True).to_numpy(dtype=bool)
            style.draw_marks(axes, range(len(layers)), part["mean"], hollow, colour=colour, size=3.0)
    style.layer_axis(axes, layers)


def _colours(count: int) -> list[tuple[float, float, float, float]]:
    return [matplotlib.colormaps["plasma"](share) for share in np.linspace(0.0, 0.85, count)]


def _caption_information(run_records: RunRecords, *, names: tuple[str, ...], rule: str) -> str:
    rows = rows_of(run_records, "i_tx_upper", names, rule)
    variance = rows["noise_variance"]
    noise = (
        f"{variance.min():g}" if variance.nunique() == 1 else f"by layer, {variance.min():.2g} to {variance.max():.2g}"
    )
    source = ", set by each network's undistorted clean activations" if rule == "scale_free" else ""
    return (
        f"Information across the layers for each strength of a distortion, dark the undistorted images, "
        f"{captions.where(run_records)}; {NOISE_RULE_NAMES[rule]} with noise variance {noise}{source}. "
        "KDE upper bound of I(X;T), difference of upper bounds for I(T;Y). "
        f"Solid: clean; dashed: adversarial images ({attack_labels(rows)}), distorted afterwards. "
        f"{captions.samples(rows)}. {captions.limits(rows)} {captions.seeds(rows)} {captions.label_leak(rows)}"
    )


def _draw_examples(run_records: RunRecords) -> Figure:
    first = {training: seeds[0] for training, seeds in by_training(run_records, _STUDY, "adversarial").items()}
    training = next(iter(first))
    shown, levels, clean = (
        by_training(run_records, _STUDY, name)[training][0] for name in ("distortion", "level", "clean")
    )
    names = [name for name in TITLES if name in shown]
    blocks = {"clean": clean, **{f"adversarial to {name_of(t)}": images for t, images in first.items()}}
    most = max(int((shown == name).sum()) for name in names)
    figure = style.new_figure(0.3 + 0.78 * len(names), width=1.3 + 0.62 * most * len(blocks))
    panels = style.grid_of(figure, len(names), most * len(blocks))
    for axes in panels.flat:
        axes.axis("off")
    for i, name in enumerate(names):
        for j, place in enumerate(np.flatnonzero(shown == name)):
            for k, images in enumerate(blocks.values()):
                axes = panels[i, k * most + j]
                image = images[place]
                axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
                axes.set_title(level_name(name, levels[place]), fontsize=6.5, pad=1)
        panels[i, 0].text(
            -0.15,
            0.5,
            TITLES[name].replace(", ", ",\n"),
            transform=panels[i, 0].transAxes,
            ha="right",
            va="center",
            fontsize=7.5,
        )
    for k, block in enumerate(blocks):
        axes = panels[0, k * most]
        heading = axes.text(0, 1.45, block, transform=axes.transAxes, fontsize=9, weight="bold")
        heading.set_in_layout(False)  # else the first column would be as wide as its heading
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0, 0, 1, 0.96))
    return figure


def _caption_examples(run_records: RunRecords) -> str:
    return (
        "One test image under every distortion and level, next to its adversarial examples, which were made first and "
        f"then distorted ({attack_labels(rows_of(run_records, 'accuracy'))}; first seed). At the left of each block it "
        "is undistorted."
    )


def _has_information(run_records: RunRecords, *, names: tuple[str, ...], rule: str) -> bool:
    return not rows_of(run_records, "i_tx_upper", names, rule).empty


FIGURES = (
    FigureSpec(
        name="distortion_accuracy",
        title="Accuracy under distortions",
        alt="Accuracy against the strength of each distortion, one colour per training, dashed adversarial.",
        caption=_caption_accuracy,
        needs=lambda run_records: not rows_of(run_records, "accuracy").empty,
        draw=_draw_accuracy,
        order=110,
    ),
    FigureSpec(
        name="distortion_examples",
        title="Distorted images",
        alt="One image and its adversarial examples under each distortion (rows), from weak to strong.",
        caption=_caption_examples,
        needs=lambda run_records: bool(by_training(run_records, _STUDY, "clean")),
        draw=_draw_examples,
        order=100,
    ),
    *(
        FigureSpec(
            name=f"distortion_information_{'paper' if names == _PAPER else 'others'}_{rule}",
            title=(
                f"Information under {'saturation and patch shuffle' if names == _PAPER else 'other distortions'}, "
                f"{NOISE_RULE_NAMES[rule]}"
            ),
            alt="I(X;T) and I(T;Y) across the layers, one colour per strength, one column per training.",
            caption=partial(_caption_information, names=names, rule=rule),
            needs=partial(_has_information, names=names, rule=rule),
            draw=partial(_draw_information, names=names, rule=rule),
            order=120 + order,
            minor=lambda _, names=names: names == _OTHERS,
        )
        for order, (names, rule) in enumerate((n, r) for n in (_PAPER, _OTHERS) for r in ("scale_free", "fixed"))
    ),
)
