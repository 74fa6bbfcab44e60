"""Example images beside their adversarial twins and the perturbations between them.

It shows arrays that the run left beside its records; it makes no images.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mi_jax.report import examples
from mi_jax.report.evidence import Evidence
from mi_jax.report.figures import style
from mi_jax.report.figures.registry import FigureSpec, register
from mi_jax.report.names import name_of

_MOST = 8


def amplification(deltas: np.ndarray) -> int:
    """The whole factor by which perturbations are shown amplified: the largest that keeps all of them within +-1/2."""
    largest = float(np.abs(deltas).max(initial=0.0))
    return max(1, int(0.5 / largest + 1e-3)) if largest > 0 else 1


def _factor(found: examples.Examples) -> int:
    return amplification(np.stack([twins - found.images for twins in found.adversarial.values()]))


def _draw(evidence: Evidence) -> Figure:
    found = examples.load(evidence)
    if found is None:
        raise ValueError("no examples beside the records")
    count, factor = min(_MOST, len(found.images)), _factor(found)
    rows = 1 + 2 * len(found.adversarial)
    figure = style.new_figure(0.1 + 1.14 * rows, width=0.8 + 1.03 * count)
    panels = style.grid_of(figure, rows, count)
    name = found.class_names
    for j in range(count):
        _show(panels[0, j], found.images[j], name[found.labels[j]])
        for i, (training, twins) in enumerate(found.adversarial.items()):
            before, after = found.predicted_clean[training][j], found.predicted_adversarial[training][j]
            wrong = after != found.labels[j]
            text = name[after] if before == after else f"→ {name[after]}"
            _show(panels[1 + 2 * i, j], twins[j], text, colour="#B00020" if wrong else "#1B5E20")
            _show(panels[2 + 2 * i, j], 0.5 + factor * (twins[j] - found.images[j]), "")
    labels = ["clean"]
    for training in found.adversarial:
        labels += [f"{name_of(training)}\nadversarial", f"{name_of(training)}\ndifference"]
    for axes, label in zip(panels[:, 0], labels, strict=True):
        axes.set_ylabel(label, rotation=0, ha="right", va="center")
    return figure


def _show(axes: Axes, image: np.ndarray, title: str, *, colour: str = "#222222") -> None:
    shown = np.clip(image, 0.0, 1.0)
    axes.imshow(shown[..., 0] if shown.shape[-1] == 1 else shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, color=colour, fontsize=7.5, pad=2)
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _caption(evidence: Evidence) -> str:
    found = examples.load(evidence)
    if found is None:
        return ""
    count = min(_MOST, len(found.images))
    return (
        f"{count} test images, the adversarial twin of each made against each training ({found.attack}), and the "
        f"difference, amplified {_factor(found)} times around grey. Above a clean image its class; above a twin the "
        "class predicted, with an arrow where the attack changed it, red where it is wrong, green where it is right. "
        "First seed."
    )


register(
    FigureSpec(
        name="examples",
        title="Adversarial examples",
        alt="Test images in columns; in rows the clean image, and for each training its adversarial twin and the "
        "perturbation.",
        caption=_caption,
        needs=lambda evidence: examples.load(evidence) is not None,
        draw=_draw,
        order=25,
    )
)
