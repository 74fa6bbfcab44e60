"""The study of robust accuracy: what it adds to the evaluation of a run, and never takes the place of."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mi_jax import data, models, records
from mi_jax.attacks import PGD, Budget
from mi_jax.records import run_records
from mi_jax.records.table import Record
from mi_jax.runs.config import Evaluation
from mi_jax.runs.evaluate import _autoattacked
from mi_jax.studies.autoattack import figure, study
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


def test_parts_of_a_sample_that_is_ordered_by_class_are_of_all_classes(monkeypatch):
    images, labels = np.zeros((400, 8, 8, 1), np.uint8), np.repeat(np.arange(4), 100)
    seen = []
    monkeypatch.setattr(study, "under_autoattack", lambda *_, **__: [])
    monkeypatch.setattr(study, "sanity_checks", lambda network, variables, x, y, key, **_: seen.append(y) or [])
    monkeypatch.setattr(study, "_curve", lambda study_input, x, y: seen.append(y) or [])
    network = models.create("mlp", num_classes=4, input_shape=(8, 8, 1))
    dataset = data.from_arrays(images, labels, images, labels)
    study.measure(StudyInput(network, {}, dataset, PGD(), 400, jax.random.key(0)))
    assert [len(y) for y in seen] == [100, 200]
    assert all(np.bincount(y).min() >= 15 for y in seen)


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


def test_the_figure_shows_the_curve_of_each_training_and_autoattack_in_per_cent(tmp_path, assert_shows):
    columns = {"image_set": "test", "inputs": "adversarial", "norm": "linf", "unit": "1", "n": 50, "checkpoint": "last"}
    of_run = {"seed": 0, "epoch": 1.0, "step": 1, "arch": "mlp", "dataset": "digits"}
    values = {"nt": (0.9, 0.2, 0.05), "at": (0.8, 0.65, 0.6)}
    rows = []
    for training, (clean, robust, autoattack) in values.items():
        for eps, value in ((0.0, clean), (8 / 255, robust)):
            of_curve = {"quantity": "robust_accuracy", "attack": "autoattack: apgd-ce", "eps": eps, "value": value}
            rows.append(Record(training=training, **columns, **of_run, **of_curve))
        of_attack = {"quantity": "accuracy", "attack": "autoattack", "eps": 8 / 255, "value": autoattack}
        rows.append(Record(training=training, **columns, **of_run, **of_attack))
    records.append(tmp_path, rows)
    (spec,) = figure.FIGURES
    drawn = spec.draw(run_records.read(tmp_path))
    assert_shows(drawn, 100 * np.array(list(values.values())))
    assert drawn.axes[0].get_ylabel() == "accuracy (%)"
    assert [label.get_text() for label in drawn.axes[0].get_xticklabels()] == ["0/255", "8/255"]
