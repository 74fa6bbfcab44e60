"""Loss and accuracy through training, and accuracy at its end under every attack."""

import math
import textwrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mi_jax.plotting import captions, style
from mi_jax.plotting.figures import FigureSpec, register
from mi_jax.records.labels import INPUTS, attack_labels, name_of
from mi_jax.records.run_records import RunRecords
from mi_jax.report.tables import OVER_BOTH, accuracies, accuracy_rows
from mi_jax.statistics.intervals import Table, over_seeds

_INPUTS = (*INPUTS, "noisy")
_IMAGE_SETS = {"train": "training images", "held_out": "held-out images", "test": "test images"}
_CURVE = ["training", "quantity", "inputs", "image_set", "attack", "attack_steps"]
_FLOORS = {"loss": -0.1, "accuracy": -2.0}
_CEILINGS = {"loss": math.inf, "accuracy": 102.0}
_MOST = {"loss": math.inf, "accuracy": 1.0}
_AXIS_LETTERS = 120
"""Letters that fit side by side below the bars."""
_MOST_LEVEL = 24
"""Bars above which their numbers fit side by side."""
_UNITS = {"loss": "cross-entropy (nats)", "accuracy": "accuracy (%)"}


def through_training(run_records: RunRecords) -> Table:
    """Rows of loss and accuracy that were measured at several epochs, with the column `attack` filled for grouping."""
    rows = run_records.select(
        quantity=("loss", "accuracy"),
        inputs=_INPUTS,
        image_set=tuple(_IMAGE_SETS),
        checkpoint=("epoch", None),
        cell=None,
    )
    rows = rows[rows["epoch"].notna()].assign(attack=rows["attack"].fillna(""))
    epochs = rows.groupby([*_CURVE, "seed"], dropna=False)["epoch"].transform("nunique")
    return rows[epochs > 1]


def _draw_curves(run_records: RunRecords) -> Figure:
    rows = through_training(run_records)
    quantities = [q for q in ("loss", "accuracy") if (rows["quantity"] == q).any()]
    image_sets = [name for name in _IMAGE_SETS if (rows["image_set"] == name).any()]
    figure = style.new_figure(0.4 + 2.5 * len(quantities))
    panels = style.grid_of(figure, len(quantities), len(image_sets), sharex=True, sharey="row")
    for i, quantity in enumerate(quantities):
        for j, name in enumerate(image_sets):
            axes, here = panels[i, j], rows[(rows["quantity"] == quantity) & (rows["image_set"] == name)]
            table = over_seeds(here, [*_CURVE, "epoch"], within=(0.0, _MOST[quantity]))
            if quantity == "accuracy":
                table = style.in_percent(table)
            for (training, inputs), curve in table.groupby(["training", "inputs"], sort=False):
                for _, part in curve.groupby(["attack", "attack_steps"], dropna=False):
                    colour, line = style.colour_of(training, run_records.trainings), style.line_of(inputs)
                    style.draw_curve(axes, part["epoch"], part, colour=colour, line=line)
            if i == 0:
                axes.set_title(_IMAGE_SETS[name], loc="left")
            if i == len(quantities) - 1:
                style.epoch_axis(axes, rows["epoch"])
        panels[i, 0].set_ylabel(_UNITS[quantity])
        style.fit(panels[i], floor=_FLOORS[quantity], ceiling=_CEILINGS[quantity])
    shown = set(zip(rows["training"], rows["inputs"], strict=True))
    style.legend_above(figure, style.condition_handles(run_records.trainings, _INPUTS, shown=shown))
    return figure


def _caption_curves(run_records: RunRecords) -> str:
    rows = through_training(run_records)
    test, held_out = (rows[rows["image_set"] == name] for name in ("test", "held_out"))
    dotted = ", dotted on noisy" if (rows["inputs"] == "noisy").any() else ""
    return (
        f"Cross-entropy and accuracy through training, {captions.where(run_records)}; solid on clean, dashed on "
        f"adversarial{dotted} inputs. Test images: {captions.samples(test)}. {captions.attack(run_records, test)} "
        f"{_held_out(held_out)}Training images: the batches of each epoch, as each training sees them. "
        f"{captions.seeds(rows)}"
    )


def _held_out(rows: Table) -> str:
    """The number of held-out images and the attack on them as a sentence; empty where none were held out."""
    attack = f"; adversarial inputs: {attack_labels(rows)} from a random start" if attack_labels(rows) else ""
    return "" if rows.empty else f"Held-out images: {captions.samples(rows)}{attack}. "


def _draw_robustness(run_records: RunRecords) -> Figure:
    table = accuracies(run_records)
    attacks = list(table["attack_label"].unique())
    trainings = [t for t in run_records.trainings if (table["training"] == t).any()]
    figure = style.new_figure(3.2)
    axes = figure.subplots()
    width = 0.8 / len(trainings)
    crowded = len(trainings) * len(attacks) > _MOST_LEVEL
    for i, training in enumerate(trainings):
        rows = table[table["training"] == training]
        x = np.array([attacks.index(a) for a in rows["attack_label"]]) + (i - (len(trainings) - 1) / 2) * width
        mean = 100 * rows["mean"].to_numpy()
        colour = style.colour_of(training, run_records.trainings)
        axes.bar(x, mean, width=0.92 * width, color=colour, alpha=0.85)
        reach = np.nan_to_num(np.abs(100 * rows[["low", "high"]].to_numpy().T - mean))
        axes.errorbar(x, mean, yerr=reach, fmt="none", ecolor="#222222", elinewidth=1.1, capsize=3, zorder=4)
        for at, values, top in zip(x, rows["values"], mean + reach[1], strict=True):
            if 1 < len(values) < style.FEW_SEEDS:
                axes.scatter(
                    [at] * len(values),
                    100 * np.array(values),
                    s=9,
                    color="white",
                    edgecolors="#222222",
                    linewidths=0.7,
                    zorder=5,
                )
            axes.annotate(
                f"{100 * np.mean(values):.1f}",
                (at, top),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                rotation=90 if crowded else 0,
            )
    axes.set_xticks(range(len(attacks)), [_wrapped(a, _AXIS_LETTERS // len(attacks)) for a in attacks])
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("test accuracy (%)")
    axes.set_ylim(0, 109)
    axes.set_yticks(range(0, 101, 20))
    style.legend_above(
        figure,
        [Patch(color=style.colour_of(t, run_records.trainings), alpha=0.85, label=name_of(t)) for t in trainings],
    )
    return figure


def _wrapped(attack: str, letters: int) -> str:
    name, _, details = attack.partition(" ")
    return f"{name}\n{textwrap.fill(details, letters)}" if details else name


def _caption_robustness(run_records: RunRecords) -> str:
    table = accuracies(run_records)
    rows: Table = pd.concat(accuracy_rows(run_records).values())
    counts = {a: g["n"].min() for a, g in table.groupby("attack_label", sort=False) if g["n"].notna().all()}
    images = "; ".join(f"{attack}: {n} images" for attack, n in counts.items())
    several = table["seeds"].max() > 1
    points = "points: seeds; " if table["seeds"].between(2, style.FEW_SEEDS - 1).any() else ""
    bars = f"Bars: mean over seeds; {points}whiskers: 95 % intervals, {OVER_BOTH}"
    whiskers = bars if several else "Whiskers: 95 % Wilson interval over images"
    count = f"{table['seeds'].max()} seed{'s' if several else ''}"
    end = f"{captions.epoch_range(rows)}{captions.cells(run_records)}"
    return f"Test accuracy at the end of training ({end}), {count}. {whiskers}. {images}."


register(
    FigureSpec(
        name="training_curves",
        title="Training",
        alt="Loss and accuracy against epoch on clean and adversarial inputs, one colour a training.",
        caption=_caption_curves,
        needs=lambda run_records: not through_training(run_records).empty,
        draw=_draw_curves,
        order=10,
    )
)
register(
    FigureSpec(
        name="robustness",
        title="Accuracy under attack",
        alt="Bars of clean and robust test accuracy for each attack and training, with intervals.",
        caption=_caption_robustness,
        needs=lambda run_records: not accuracies(run_records).empty,
        draw=_draw_robustness,
        order=20,
    )
)
