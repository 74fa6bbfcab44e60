"""Example images beside their adversarial examples and the perturbations between them.

It shows arrays that the run left beside its records; it makes no images.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from mi_jax.plotting import style
from mi_jax.plotting.figures import FigureSpec, register
from mi_jax.records.labels import name_of
from mi_jax.records.run_records import RunRecords
from mi_jax.report import examples

_MOST = 8
_WIDTH = 1.03
"""Of one image, in inches."""
_RIGHT, _WRONG = "#1B5E20", "#B00020"


def amplification(deltas: np.ndarray) -> int:
    """The whole factor by which perturbations are shown amplified: the largest that keeps all of them within +-1/2."""
    largest = float(np.abs(deltas).max(initial=0.0))
    return max(1, int(0.5 / largest + 1e-3)) if largest > 0 else 1


def _factor(found: examples.Examples) -> int:
    return amplification(
        np.stack([adversarial_images - found.images for adversarial_images in found.adversarial.values()])
    )


def _draw(run_records: RunRecords) -> Figure:
    found = examples.load(run_records)
    if found is None:
        raise ValueError("no examples beside the records")
    count, factor, name = min(_MOST, len(found.images)), _factor(found), found.class_names
    labels = found.labels[:count]
    rows = [("clean", found.images, [(name[label], "#222222") for label in labels])]
    for training, adversarial_images in found.adversarial.items():
        before, after = found.predicted_clean[training][:count], found.predicted_adversarial[training][:count]
        texts = [name[a] if a == b else f"→ {name[a]}" for a, b in zip(after, before, strict=True)]
        said = [(text, _RIGHT if a == label else _WRONG) for text, a, label in zip(texts, after, labels, strict=True)]
        rows.append((f"{name_of(training)}\nadversarial", adversarial_images, said))
        rows.append((f"{name_of(training)}\ndifference", 0.5 + factor * (adversarial_images - found.images), []))
    return _sheet([(label, images[:count], titles) for label, images, titles in rows])


def _sheet(rows: Sequence[tuple[str, np.ndarray, Sequence[tuple[str, str]]]]) -> Figure:
    """Rows of equally large images with a label at the left and, where given, a title and its colour above each.

    One picture in one panel: forty panels take ten times as long to lay out.
    """
    count, height, width = rows[0][1].shape[:3]
    side, above, below = round(0.12 * width), round(0.26 * height), round(0.06 * height)
    tops, y = [], 0
    for _, _, titles in rows:
        y += above if titles else below
        tops.append(y)
        y += height
    sheet = np.ones((y, count * (width + side) - side, 3), dtype=np.float32)
    inches = _WIDTH * count
    figure = style.new_figure(inches * y / sheet.shape[1] + 0.1, width=inches + 1.1)
    axes = figure.subplots()
    for top, (label, images, titles) in zip(tops, rows, strict=True):
        for j, image in enumerate(images):
            left = j * (width + side)
            sheet[top : top + height, left : left + width] = np.clip(image, 0.0, 1.0)
        for j, (text, colour) in enumerate(titles):
            middle = j * (width + side) + width / 2 - 0.5
            axes.text(middle, top - 0.04 * height, text, color=colour, fontsize=7.5, ha="center", va="bottom")
        axes.text(-0.06 * width, top + height / 2, label, ha="right", va="center")
    axes.imshow(sheet, interpolation="nearest")
    axes.set_axis_off()
    return figure


def _caption(run_records: RunRecords) -> str:
    found = examples.load(run_records)
    if found is None:
        return ""
    count = min(_MOST, len(found.images))
    return (
        f"{count} test images, the adversarial example of each made against each training ({found.attack}), and the "
        f"difference, amplified {_factor(found)} times around grey. Above a clean image its class; above an adversarial example the "
        "class predicted, with an arrow where the attack changed it, red where it is wrong, green where it is right. "
        "First seed."
    )


register(
    FigureSpec(
        name="examples",
        title="Adversarial examples",
        alt="Test images in columns; in rows the clean image, and for each training its adversarial example and the "
        "perturbation.",
        caption=_caption,
        needs=lambda run_records: examples.load(run_records) is not None,
        draw=_draw,
        order=25,
    )
)
