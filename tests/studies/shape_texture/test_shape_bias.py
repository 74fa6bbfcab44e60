import numpy as np
import pytest

from mi_jax.data.shapetex import SHAPES, TEXTURES
from mi_jax.studies.shape_texture.shape_bias import bias_records, count_decisions, suppression_records

NAMES = {"shape": SHAPES, "texture": TEXTURES}


def records_by(records):
    return {(r.quantity, r.image_set if r.class_ is None else f"{r.factor} {r.class_}"): r for r in records}


def test_shape_bias_ignores_predictions_of_the_class_of_neither_cue():
    found = count_decisions(np.array([1, 1, 1, 2, 5, 5]), np.full(6, 1), np.full(6, 2))
    assert (found.shape, found.texture, found.n) == (3, 1, 6)
    assert found.bias == pytest.approx(3 / 4)
    assert found.coverage == pytest.approx(4 / 6)


def test_wilson_interval_of_a_bias_is_that_of_the_decided_images():
    predicted = np.array([1] * 9 + [2] + [7] * 90)
    low, high = count_decisions(predicted, np.full(100, 1), np.full(100, 2)).interval
    # Wilson's score interval of 9 successes in 10 trials, as published tables give it.
    assert (low, high) == (pytest.approx(0.5958, abs=1e-4), pytest.approx(0.9821, abs=1e-4))


def test_an_all_shape_network_has_an_interval_that_ends_at_one_and_has_width():
    factors = {"shape": np.arange(90) % 10, "texture": (np.arange(90) + 1) % 10}
    found = records_by(bias_records(factors["shape"], factors, class_names=NAMES, inputs="clean"))
    assert found["shape_bias", "conflict"].value == 1
    assert found["shape_bias_high", "conflict"].value == pytest.approx(1)
    assert found["shape_bias_low", "conflict"].value == pytest.approx(90 / (90 + 1.959964**2))
    half = (1 - found["shape_bias_low", "conflict"].value) / 2
    assert found["shape_bias", "conflict"].stderr == pytest.approx(half / 1.959964)


def test_bias_by_class_counts_only_images_of_that_class():
    shape, texture = np.array([3, 3, 4, 4]), np.array([5, 6, 5, 6])
    found = records_by(bias_records(np.array([3, 6, 5, 5]), {"shape": shape, "texture": texture}, class_names=NAMES))
    assert found["shape_bias", "shape 3"].value == 0.5
    assert found["shape_bias", "shape 4"].value == 0
    assert found["cue_coverage", "shape 4"].value == 0.5
    assert found["shape_bias", "shape 3"].note == SHAPES[3]


def test_no_decision_is_a_row_with_its_reason():
    factors = {"shape": np.array([0, 0]), "texture": np.array([1, 1])}
    found = records_by(bias_records(np.array([2, 3]), factors, class_names=NAMES))["shape_bias", "conflict"]
    assert not found.ok
    assert found.value is None
    assert found.note == "no prediction is the class of either cue"


def test_suppression_gap_is_paired():
    labels = np.zeros(4, int)
    found = records_by(suppression_records(np.array([0, 0, 0, 1]), np.array([0, 1, 1, 1]), labels, inputs="clean"))
    gap = found["suppression_gap", "suppressed"]
    assert gap.value == pytest.approx(0.5)
    assert gap.stderr == pytest.approx(np.std([0, 1, 1, 0], ddof=1) / 2)
    assert found["accuracy", "texture_suppressed"].value == 0.75
    assert found["accuracy", "shape_suppressed"].value == 0.25


def test_images_whose_cues_agree_are_left_out_of_the_shape_bias():
    shape, texture = np.array([0, 1, 2, 3] + [0] * 8), np.array([1, 2, 3, 0] + [0] * 8)
    found = count_decisions(np.array([0, 1, 2, 3] + [0] * 8), shape, texture)
    assert (found, found.bias, found.coverage) == ((4, 0, 4), 1.0, 1.0)


def test_a_set_without_conflicts_gives_a_failed_row_with_its_reason():
    same = np.array([0, 1])
    rows = bias_records(same, {"shape": same, "texture": same}, class_names=NAMES)
    assert [(row.quantity, row.ok) for row in rows] == [("shape_bias", False)] * 5
    assert rows[0].note == "shape and texture have the same class in every image"
