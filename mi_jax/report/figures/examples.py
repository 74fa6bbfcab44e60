"""Example images with their adversarial examples and predictions: the file next to the records, and its figure."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from mi_jax.errors import InputError
from mi_jax.plotting import style
from mi_jax.plotting.figures import FigureSpec, register
from mi_jax.records.labels import counted, name_of
from mi_jax.records.run_records import RunRecords

_NAME = "examples"
_MOST = 8
_WIDTH = 1.03
"""Width of one image in inches."""
_LETTERS = 14
"""Letters of the name of a class that fit above an image."""
_RIGHT, _WRONG = "#1B5E20", "#B00020"


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Images in [0, 1], [n h w c]; by training, adversarial images [n h w c] and predicted classes [n] on both."""

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    adversarial: Mapping[str, np.ndarray]
    predicted_clean: Mapping[str, np.ndarray]
    predicted_adversarial: Mapping[str, np.ndarray]
    attack: str


def save(
    run_dir: str | os.PathLike[str],
    *,
    images: ArrayLike,
    labels: ArrayLike,
    class_names: Sequence[str],
    adversarial: Mapping[str, ArrayLike],
    predicted_clean: Mapping[str, ArrayLike],
    predicted_adversarial: Mapping[str, ArrayLike],
    attack: str,
) -> Path:
    """Writes `examples.npz` for the figure of examples.

    Args:
        run_dir: the run directory.
        images: [n h w c] in [0, 1], with 1 or 3 channels.
        labels: int [n].
        class_names: the names of the classes.
        adversarial: by training (`nt`, `at`, ...), adversarial images [n h w c].
        predicted_clean, predicted_adversarial: by training, predicted classes, int [n].
        attack: the label of the attack, see `mi_jax.records.labels.attack_label`.

    Returns:
        The path of the file.

    Raises:
        InputError: if shapes disagree or the mappings name different trainings.
    """
    clean = np.asarray(images, dtype=np.float32)
    if clean.ndim != 4 or clean.shape[-1] not in (1, 3):
        raise InputError(f"The example images have shape {clean.shape}; expected [n h w c] with 1 or 3 channels.")
    if not set(adversarial) == set(predicted_clean) == set(predicted_adversarial):
        raise InputError(
            "The adversarial images and predictions are of different trainings; give all three for each training."
        )
    arrays = {"images": clean, "labels": _per_image(labels, "labels", len(clean)), "class_names": np.array(class_names)}
    for training, adversarial_images in adversarial.items():
        adversarial_images = np.asarray(adversarial_images, dtype=np.float32)
        if adversarial_images.shape != clean.shape:
            raise InputError(
                f"The adversarial images of {training} have shape {adversarial_images.shape}; expected {clean.shape}."
            )
        arrays[f"adversarial.{training}"] = adversarial_images
        for kind, predicted in (("clean", predicted_clean), ("adversarial", predicted_adversarial)):
            arrays[f"predicted_{kind}.{training}"] = _per_image(
                predicted[training], f"predictions of {training}", len(clean)
            )
    path = Path(run_dir) / f"{_NAME}.npz"
    temporary = path.with_name(f"{_NAME}.tmp.npz")
    np.savez_compressed(temporary, attack=np.array(attack), **arrays)
    os.replace(temporary, path)
    return path


def load(run_records: RunRecords) -> Examples | None:
    """The examples stored with the records of a run, or None if there are none.

    Raises:
        InputError: if the file lacks an array or cannot be read.
    """
    arrays = run_records.arrays(_NAME)
    if arrays is None:
        return None
    trainings = [name.partition(".")[2] for name in arrays if name.startswith("adversarial.")]
    try:
        return Examples(
            images=arrays["images"],
            labels=arrays["labels"],
            class_names=tuple(str(name) for name in arrays["class_names"]),
            adversarial={t: arrays[f"adversarial.{t}"] for t in trainings},
            predicted_clean={t: arrays[f"predicted_clean.{t}"] for t in trainings},
            predicted_adversarial={t: arrays[f"predicted_adversarial.{t}"] for t in trainings},
            attack=str(arrays["attack"]),
        )
    except KeyError as error:
        raise InputError(
            f"{_NAME}.npz in {run_records.run_dir} lacks {error}; delete the file and resume the run."
        ) from None


def _per_image(values: ArrayLike, what: str, n: int) -> np.ndarray:
    array = np.asarray(values)
    if array.shape != (n,) or array.dtype.kind not in "iu":
        raise InputError(f"The {what} have shape {array.shape} and type {array.dtype}; expected {n} integers.")
    return array.astype(np.int32)


def amplification(deltas: np.ndarray) -> int:
    """The largest whole factor that keeps amplified perturbations within ±1/2."""
    largest = float(np.abs(deltas).max(initial=0.0))
    return max(1, int(0.5 / largest + 1e-3)) if largest > 0 else 1


def _factor(found: Examples) -> int:
    return amplification(
        np.stack([adversarial_images - found.images for adversarial_images in found.adversarial.values()])
    )


def _draw(run_records: RunRecords) -> Figure:
    found = load(run_records)
    if found is None:
        raise ValueError("There are no examples stored with the records.")
    count, factor = min(_MOST, len(found.images)), _factor(found)
    name = [text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…" for text in found.class_names]
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
    """Rows of images of one size with a label at the left and, where given, a title and its colour above each.

    All in one panel, as forty panels take ten times as long to lay out.
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
            look = {"color": colour, "fontsize": 7.5, "ha": "center", "va": "bottom", "parse_math": False}
            axes.text(middle, top - 0.04 * height, text, **look)
        axes.text(-0.06 * width, top + height / 2, label, ha="right", va="center")
    axes.imshow(sheet, interpolation="nearest")
    axes.set_axis_off()
    return figure


def _caption(run_records: RunRecords) -> str:
    found = load(run_records)
    if found is None:
        return ""
    count, factor = min(_MOST, len(found.images)), _factor(found)
    amplified = f"amplified {factor} times " if factor > 1 else ""
    return (
        f"{counted(count, 'test image')}, the adversarial example of each made against each training "
        f"({found.attack}), and the difference, {amplified}around grey. Above a clean image its class; above an "
        "adversarial example the predicted class, with an arrow where the attack changed it, red where it is wrong, "
        "green where it is right. First seed."
    )


register(
    FigureSpec(
        name="examples",
        title="Adversarial examples",
        alt="Test images in columns; in rows the clean image, and for each training its adversarial example and the "
        "perturbation.",
        caption=_caption,
        needs=lambda run_records: load(run_records) is not None,
        draw=_draw,
        order=25,
    )
)
