"""Which class is taken for which: matrices of counts and mean confidence, on clean images and their adversarial examples.

Rows are true classes, columns predicted ones; every image counts once. Makes no figure and trains nothing.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from mi_jax.data.sample import fixed_sample
from mi_jax.measure.accuracy import adversarial_examples, describe
from mi_jax.records.table import Record, information_record
from mi_jax.studies.registry import Study, StudyInput, StudyResult, register
from mi_jax.training import predictions


class Transfer(NamedTuple):
    """Where the images of every class go.

    counts: int `[k k]`, images of a true class (row) that are given a class (column); a row sums to the class's size.
    confidence: float `[k k]`, mean softmax probability of the predicted class over the images of a cell; NaN where a
    cell is empty.
    """

    counts: np.ndarray
    confidence: np.ndarray


def transfer(logits: Any, labels: Any) -> Transfer:
    """Counts and mean confidence of predictions.

    Args:
        logits: `[n k]`.
        labels: int `[n]`.

    Examples:
        >>> counts, confidence = transfer(np.log([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]), np.array([0, 0, 1]))
        >>> counts.tolist(), confidence.round(2).tolist()
        ([[1, 1], [1, 0]], [[0.9, 0.8], [0.7, nan]])
    """
    probability = np.asarray(jax.nn.softmax(np.asarray(logits, np.float32)), np.float64)
    true, predicted, k = np.asarray(labels), probability.argmax(1), probability.shape[1]
    counts, total = np.zeros((k, k), np.int64), np.zeros((k, k))
    np.add.at(counts, (true, predicted), 1)
    np.add.at(total, (true, predicted), probability.max(1))
    confidence = np.divide(total, counts, out=np.full((k, k), np.nan), where=counts > 0)
    return Transfer(counts, confidence)


def confusion(study_input: StudyInput) -> StudyResult:
    """The matrices on clean images and on the adversarial examples of the very network, of all that the sample holds.

    Arrays: `counts_clean`, `counts_adversarial`, `confidence_clean`, `confidence_adversarial` (see `Transfer`) and
    `class_names`. Records: `accuracy` of each class (subset `class=3`); `confidence_right` and `confidence_wrong`, mean
    over the images classified so; `error_entropy`, how evenly the errors of a class spread over the other classes, in
    bits: 0 where a class is always taken for the same other one, log2(k - 1) at most.
    """
    test = study_input.dataset.test
    images, labels = fixed_sample(test.images, test.labels, study_input.samples)
    adversarial_images = adversarial_examples(
        study_input.network, study_input.variables, images, labels, attack=study_input.attack
    )
    records: list[Record] = []
    arrays: dict[str, np.ndarray] = {"class_names": np.array(study_input.dataset.class_names)}
    for inputs, shown, note in (
        ("clean", images, None),
        ("adversarial", adversarial_images, describe(study_input.attack)),
    ):
        found = transfer(predictions(study_input.network, study_input.variables, shown), labels)
        arrays |= {f"counts_{inputs}": found.counts, f"confidence_{inputs}": found.confidence}
        records += _records(found, {"inputs": inputs, "note": note})
    return StudyResult(records, arrays)


def _records(found: Transfer, columns: dict[str, Any]) -> list[Record]:
    counts, sizes = found.counts, found.counts.sum(1)
    records = []
    for k in np.flatnonzero(sizes):
        accuracy = counts[k, k] / sizes[k]
        error = np.sqrt(accuracy * (1 - accuracy) / sizes[k])
        where = {**columns, "subset": f"class={k}", "n": sizes[k], "unit": "1"}
        records.append(Record(quantity="accuracy", value=accuracy, stderr=error, **where))
    right = np.eye(len(counts), dtype=bool)
    for quantity, cells in (("confidence_right", right), ("confidence_wrong", ~right)):
        cells = cells & (counts > 0)
        if not cells.any():  # nothing is missing: the accuracies say that there are no such images
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


register(
    Study(
        name="transfer_matrix",
        title="Which class is taken for which, and how surely",
        run=confusion,
    )
)
