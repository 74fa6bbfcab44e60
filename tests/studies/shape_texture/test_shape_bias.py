import numpy as np
import pytest

from mi_jax.data.shapetex import SHAPES, TEXTURES
from mi_jax.studies.shape_texture.shape_bias import bias_records, count_choices, suppression_records

NAMES = {"shape": SHAPES, "texture": TEXTURES}


def records_by(records):
    return {(r.quantity, r.subset): r for r in records}


def test_shape_bias_ignores_answers_that_name_neither_cue():
    found = count_choices(np.array([1, 1, 1, 2, 5, 5]), np.full(6, 1), np.full(6, 2))
    assert (found.shape, found.texture, found.n) == (3, 1, 6)
    assert found.bias == pytest.approx(3 / 4)
    assert found.coverage == pytest.approx(4 / 6)


def test_wilson_interval_of_a_bias_is_that_of_the_decided_images():
    answers = np.array([1] * 9 + [2] + [7] * 90)
    low, high = count_choices(answers, np.full(100, 1), np.full(100, 2)).interval
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
    assert found["shape_bias", "conflict,shape=3"].value == 0.5
    assert found["shape_bias", "conflict,shape=4"].value == 0
    assert found["cue_coverage", "conflict,shape=4"].value == 0.5
    assert found["shape_bias", "conflict,shape=3"].note == SHAPES[3]


def test_no_decision_is_a_row_with_its_reason():
    factors = {"shape": np.array([0, 0]), "texture": np.array([1, 1])}
    found = records_by(bias_records(np.array([2, 3]), factors, class_names=NAMES))["shape_bias", "conflict"]
    assert not found.ok
    assert found.value is None
    assert "neither cue" in found.note or "either cue" in found.note


def test_suppression_gap_is_paired():
    labels = np.zeros(4, int)
    found = records_by(suppression_records(np.array([0, 0, 0, 1]), np.array([0, 1, 1, 1]), labels, inputs="clean"))
    gap = found["suppression_gap", "suppressed"]
    assert gap.value == pytest.approx(0.5)
    assert gap.stderr == pytest.approx(np.std([0, 1, 1, 0], ddof=1) / 2)
    assert found["accuracy", "texture_suppressed"].value == 0.75
    assert found["accuracy", "shape_suppressed"].value == 0.25
