"""Accuracy on corrupted images: test sets such as CIFAR-10-C, or common corruptions of the run's own test images."""

import math
import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from mi_jax.data import Dataset
from mi_jax.data.sample import fixed_sample
from mi_jax.errors import InputError
from mi_jax.measure.accuracy import accuracy_row
from mi_jax.records.table import Record
from mi_jax.studies.corruptions.common import CORRUPTIONS, corrupted
from mi_jax.studies.registry import StudyInput, StudyResult
from mi_jax.training import predictions

UNCORRUPTED = "none"
"""The column `distortion` of the run's own test images."""
_VERSION = re.compile(r":(\d+|\*)\.(\d+|\*)\.(\d+|\*)$")
_SEVERITY = re.compile(r"(.+?)[_-]([1-9])$")


def measure(study_input: StudyInput) -> StudyResult:
    """Accuracy for every corruption and severity, and their mean.

    The corrupted sets are the test sets of the input. Without any, they are the first test images of the run's own data
    set under common corruptions, the same for all networks. Records have `image_set` `corrupted`, the corruption in the
    column `distortion` and the severity in `level` (0 the uncorrupted images; none for a set whose name has no
    severity); `mean_corruption_accuracy` is the mean over all corrupted sets, with the standard error over images
    in which sets with the same labels in the same order count as the same images.
    """
    test = study_input.dataset.test
    images, labels = fixed_sample(test.images, test.labels, study_input.samples)
    records, found, truths = [_accuracy(_correct(study_input, images, labels), UNCORRUPTED, 0)], [], []
    for name, severity, shown, truth in _sets(study_input, images, labels):
        found.append(_correct(study_input, shown, truth))
        truths.append(np.asarray(truth))
        records.append(_accuracy(found[-1], name, severity))
    return StudyResult([*records, _mean(found, truths)])


def _sets(study_input: StudyInput, images: Any, labels: Any) -> Iterator[tuple[str, int | None, Any, Any]]:
    """The name, severity, images and labels of every corrupted set, one after the other."""
    for name, load in study_input.test_sets.items():
        dataset = load()
        _check(dataset, study_input.dataset, name)
        sample = fixed_sample(dataset.test.images, dataset.test.labels, study_input.samples)
        yield (*_named(name), *sample)
    if not study_input.test_sets:
        for number, name in enumerate(CORRUPTIONS):
            for severity in range(1, 6):
                yield name, severity, corrupted(name, np.asarray(images), severity, number), labels


def _named(name: str) -> tuple[str, int | None]:
    """The corruption and the severity in the name of a test set.

    >>> _named("cifar10_corrupted/gaussian_noise_3"), _named("npz:data/cifar10.1.npz")
    (('gaussian_noise', 3), ('cifar10.1', None))
    >>> _named("cifar10_corrupted/gaussian_noise_3:1.*.*")
    ('gaussian_noise', 3)
    """
    bare = re.split(r"[/:]", _VERSION.sub("", name.rstrip("/")))[-1].removesuffix(".npz")
    found = _SEVERITY.fullmatch(bare)
    return (found[1], int(found[2])) if found else (bare, None)


def _check(corrupted_set: Dataset, dataset: Dataset, name: str) -> None:
    """Raises `InputError` unless images and classes are those of the run."""
    shapes = corrupted_set.input_shape, dataset.input_shape
    if shapes[0] != shapes[1]:
        size, own = (" x ".join(map(str, shape)) for shape in shapes)
        raise InputError(f"The images of {name} are {size}; those of the run are {own}.")
    both = corrupted_set.class_names, dataset.class_names
    moved = any(name in both[1] and both[1].index(name) != label for label, name in enumerate(both[0]))
    if len(both[0]) > len(both[1]) or moved:
        raise InputError(f"The classes of {name} are {', '.join(both[0])}; those of the run are {', '.join(both[1])}.")


def _correct(study_input: StudyInput, images: Any, labels: Any) -> np.ndarray:
    """Whether each image is classified correctly, float `[n]`."""
    logits = np.asarray(predictions(study_input.network, study_input.variables, jax.numpy.asarray(images)))
    return (logits.argmax(axis=1) == np.asarray(labels)).astype(float)


def _accuracy(correct: np.ndarray, name: str, severity: int | None) -> Record:
    columns = {"image_set": "corrupted", "inputs": "clean", "distortion": name, "level": severity}
    return accuracy_row(correct.mean(), len(correct), **columns)


def _mean(found: list[np.ndarray], truths: list[np.ndarray]) -> Record:
    """The mean over the sets; sets with the same labels in the same order are of the same images."""
    groups: dict[bytes, list[np.ndarray]] = {}
    for correct, truth in zip(found, truths, strict=True):
        groups.setdefault(truth.astype(np.int64).tobytes(), []).append(correct)
    errors = [np.sum(group, axis=0).var(ddof=len(group) > 1) / len(group[0]) for group in groups.values()]
    error = math.sqrt(sum(errors)) / len(found)
    value, n = float(np.mean([correct.mean() for correct in found])), min(map(len, found))
    return Record(
        quantity="mean_corruption_accuracy", value=value, stderr=error, unit="1", n=n, image_set="corrupted",
        inputs="clean",
    )  # fmt: skip
