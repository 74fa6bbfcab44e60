"""Confusion matrices on clean images and on adversarial examples: counts and mean confidence.

Rows are true classes, columns predicted ones.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from mi_jax.data.sample import fixed_sample
from mi_jax.measure.accuracy import adversarial_examples, attack_columns
from mi_jax.records.table import Record, information_record
from mi_jax.studies.registry import StudyInput, StudyResult
from mi_jax.training import predictions


class Confusion(NamedTuple):
    """Counts and mean confidence of predictions, by true and predicted class.

    Attributes:
        counts: int `[k k]`, images of a true class (row) with a predicted class (column).
        confidence: float `[k k]`, mean softmax probability of the predicted class over the images of a cell; NaN where
            a cell is empty.
    """

    counts: np.ndarray
    confidence: np.ndarray


def confusion(logits: Any, labels: Any) -> Confusion:
    """Counts and mean confidence of predictions.

    Args:
        logits: `[n k]`.
        labels: int `[n]`.

    Examples:
        >>> counts, confidence = confusion(np.log([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]), np.array([0, 0, 1]))
        >>> counts.tolist(), confidence.round(2).tolist()
        ([[1, 1], [1, 0]], [[0.9, 0.8], [0.7, nan]])
    """
    probability = np.asarray(jax.nn.softmax(np.asarray(logits, np.float32)), np.float64)
    true, predicted, k = np.asarray(labels), probability.argmax(1), probability.shape[1]
    counts, total = np.zeros((k, k), np.int64), np.zeros((k, k))
    np.add.at(counts, (true, predicted), 1)
    np.add.at(total, (true, predicted), probability.max(1))
    confidence = np.divide(total, counts, out=np.full((k, k), np.nan), where=counts > 0)
    return Confusion(counts, confidence)


def measure(study_input: StudyInput) -> StudyResult:
    """Confusion matrices on the sample, and on the adversarial examples of the network.

    Arrays: `counts_clean`, `counts_adversarial`, `confidence_clean`, `confidence_adversarial` (see `Confusion`) and
    `class_names`. Records: `accuracy` of each class; `confidence_right` and `confidence_wrong`, mean over the images
    that are classified correctly, incorrectly; `error_entropy`, the entropy in bits of the predicted class given the
    true one over the errors: 0 where a class is always confused with the same other one, at most log2(k - 1).
    """
    test = study_input.dataset.test
    images, labels = fixed_sample(test.images, test.labels, study_input.samples)
    adversarial_images = adversarial_examples(
        study_input.network, study_input.variables, images, labels, attack=study_input.attack
    )
    records: list[Record] = []
    arrays: dict[str, np.ndarray] = {"class_names": np.array(study_input.dataset.class_names)}
    for inputs, shown, attack in (
        ("clean", images, {}),
        ("adversarial", adversarial_images, attack_columns(study_input.attack)),
    ):
        found = confusion(predictions(study_input.network, study_input.variables, shown), labels)
        arrays |= {f"counts_{inputs}": found.counts, f"confidence_{inputs}": found.confidence}
        records += _records(found, {"image_set": "test", "inputs": inputs, **attack})
    return StudyResult(records, arrays)


def _records(found: Confusion, columns: dict[str, Any]) -> list[Record]:
    counts, sizes = found.counts, found.counts.sum(1)
    records = []
    for k in np.flatnonzero(sizes):
        accuracy = counts[k, k] / sizes[k]
        error = np.sqrt(accuracy * (1 - accuracy) / sizes[k])
        where = {**columns, "class_": k, "n": sizes[k], "unit": "1"}
        records.append(Record(quantity="accuracy", value=accuracy, stderr=error, **where))
    right = np.eye(len(counts), dtype=bool)
    for quantity, cells in (("confidence_right", right), ("confidence_wrong", ~right)):
        cells = cells & (counts > 0)
        if not cells.any():  # the accuracies show that there are no such images
            continue
        mean = np.average(found.confidence[cells], weights=counts[cells])
        records.append(Record(quantity=quantity, value=mean, unit="1", n=counts[cells].sum(), **columns))
    errors = np.where(right, 0, counts)
    if errors.any():
        records.append(information_record("error_entropy", _conditional_entropy(errors), n=errors.sum(), **columns))
    return records


def _conditional_entropy(counts: np.ndarray) -> float:
    """H(column | row) of a table of counts, in nats."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    terms = np.where(counts > 0, counts * np.log(np.where(counts > 0, share, 1)), 0)
    return float(-terms.sum() / counts.sum())
