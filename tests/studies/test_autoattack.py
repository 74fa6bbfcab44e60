"""The study of robust accuracy: what it adds to the evaluation of a run, and never takes the place of."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mi_jax import data, models
from mi_jax.attacks import PGD, Budget
from mi_jax.records.table import Record
from mi_jax.runs.config import Evaluation
from mi_jax.runs.evaluate import _autoattacked
from mi_jax.studies.autoattack import study
from mi_jax.studies.registry import StudyInput

IMAGES = np.zeros((12, 8, 8, 1), np.uint8)
DATASET = data.from_arrays(IMAGES, np.arange(12) % 4, IMAGES, np.arange(12) % 4)


@pytest.mark.parametrize(("autoattacked", "measured"), [(0, True), (7, True), (8, False), (12, False)])
def test_autoattack_on_no_more_images_than_in_the_evaluation_is_left_out(autoattacked, measured, monkeypatch):
    for name in ("under_autoattack", "sanity_checks", "_curve"):
        row = Record(quantity=name, value=1.0)
        monkeypatch.setattr(study, name, lambda *_, row=row, **__: [row])
    network = models.create("mlp", num_classes=4, input_shape=(8, 8, 1))
    study_input = StudyInput(network, {}, DATASET, PGD(), 8, jax.random.key(0), autoattacked=autoattacked)
    found = [row.quantity for row in study.measure(study_input).records]
    assert found == ["under_autoattack"] * measured + ["sanity_checks", "_curve"]


@pytest.mark.parametrize(
    ("evaluation", "count"),
    [
        (Evaluation(), 0),
        (Evaluation(autoattack=("standard",), autoattack_samples=10), 10),
        (Evaluation(autoattack=("standard",)), 12),
        (Evaluation(autoattack=("standard",), budget=Budget(targets=3)), 0),
        (Evaluation(autoattack=("standard",), budget=Budget(targets=11)), 12),
        (Evaluation(autoattack=("plus",)), 0),
        (Evaluation(autoattack=("apgd-ce", "apgd-t", "fab-t", "square")), 0),
    ],
)
def test_the_evaluation_counts_where_it_is_autoattack_standard_in_full(evaluation, count):
    context = SimpleNamespace(config=SimpleNamespace(evaluation=evaluation, attack=PGD()), dataset=DATASET)
    assert _autoattacked(context) == count
