"""A few test images, their adversarial examples and what the networks made of both: one file beside the records.

It makes no adversarial images and draws nothing.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mi_jax.errors import InputError
from mi_jax.files import write_arrays
from mi_jax.records.run_records import RunRecords

_NAME = "examples"


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Images in [0, 1], [n h w c]; by training: adversarial images [n h w c] and predicted classes [n] on both."""

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
    images: Any,
    labels: Any,
    class_names: Sequence[str],
    adversarial: Mapping[str, Any],
    predicted_clean: Mapping[str, Any],
    predicted_adversarial: Mapping[str, Any],
    attack: str,
) -> Path:
    """Writes `examples.npz` for the report's example sheet and returns its path.

    `images`: [n h w c] in [0, 1], c 1 or 3; `labels`: int [n]; the mappings go from a training (`nt`, `at`, ...) to its
    adversarial images [n h w c] and to predicted classes, int [n]; `attack` names the attack, as in the records' notes.

    Raises InputError if shapes disagree or the trainings of the mappings differ.
    """
    clean = np.asarray(images, dtype=np.float32)
    if clean.ndim != 4 or clean.shape[-1] not in (1, 3):
        raise InputError(f"example images have shape {clean.shape}; expected [n h w c] with 1 or 3 channels")
    if not set(adversarial) == set(predicted_clean) == set(predicted_adversarial):
        raise InputError(
            "adversarial images and predictions name different trainings; give all three for each training"
        )
    arrays = {"images": clean, "labels": _per_image(labels, "labels", len(clean)), "class_names": np.array(class_names)}
    for training, adversarial_images in adversarial.items():
        adversarial_images = np.asarray(adversarial_images, dtype=np.float32)
        if adversarial_images.shape != clean.shape:
            raise InputError(
                f"adversarial images of {training} have shape {adversarial_images.shape}; expected {clean.shape}"
            )
        arrays[f"adversarial.{training}"] = adversarial_images
        for kind, predicted in (("clean", predicted_clean), ("adversarial", predicted_adversarial)):
            arrays[f"predicted_{kind}.{training}"] = _per_image(
                predicted[training], f"predictions of {training}", len(clean)
            )
    path = Path(run_dir) / f"{_NAME}.npz"
    write_arrays(path, {"attack": np.array(attack), **arrays})
    return path


def load(run_records: RunRecords) -> Examples | None:
    """The examples beside a run's records, or None if there are none. Raises InputError if the file lacks an array."""
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
        raise InputError(f"{_NAME}.npz in {run_records.run_dir} lacks {error}; delete it and make it again") from None


def _per_image(values: Any, what: str, n: int) -> np.ndarray:
    array = np.asarray(values)
    if array.shape != (n,) or array.dtype.kind not in "iu":
        raise InputError(f"{what} have shape {array.shape} and type {array.dtype}; expected {n} integers")
    return array.astype(np.int32)
