import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax import data, models, records
from mi_jax.attacks import PGD
from mi_jax.files import write_arrays
from mi_jax.records import run_records
from mi_jax.report import figures
from mi_jax.studies.confusion.study import confusion, measure
from mi_jax.studies.registry import StudyInput
from mi_jax.training import evaluate


@pytest.fixture(scope="module")
def study_input():
    dataset = data.load("digits")
    network = models.create("cnn", num_classes=10, input_shape=(8, 8, 1), width=0.25)
    attack = PGD(eps=0.2, steps=3, step_size=0.1)
    return StudyInput(network, network.init(jax.random.key(3)), dataset, attack, 10_000, jax.random.key(0))


@pytest.fixture(scope="module")
def findings(study_input):
    return measure(study_input)


@pytest.mark.parametrize("inputs", ["clean", "adversarial"])
def test_every_image_counts_once_in_the_row_of_its_class(study_input, findings, inputs):
    counts = findings.arrays[f"counts_{inputs}"]
    np.testing.assert_array_equal(counts.sum(1), np.bincount(study_input.dataset.test.labels, minlength=10))


def test_the_diagonal_of_the_clean_matrix_is_the_accuracy(study_input, findings):
    test = study_input.dataset.test
    _, accuracy = evaluate(study_input.network, study_input.variables, data.to_float(test.images), test.labels)
    assert np.trace(findings.arrays["counts_clean"]) == round(accuracy * len(test))
    by_class = {r.class_: r for r in findings.records if r.quantity == "accuracy" and r.inputs == "clean"}
    assert sum(r.value * r.n for r in by_class.values()) == pytest.approx(accuracy * len(test))


def test_the_attack_moves_images_off_the_diagonal(findings):
    assert np.trace(findings.arrays["counts_adversarial"]) < np.trace(findings.arrays["counts_clean"])


def test_confidence_is_the_mean_probability_of_the_predicted_class_and_absent_in_empty_cells():
    probability = np.array([[0.6, 0.3, 0.1], [0.8, 0.1, 0.1], [0.2, 0.7, 0.1]])
    found = confusion(np.log(probability), np.array([0, 0, 2]))
    assert found.counts.tolist() == [[2, 0, 0], [0, 0, 0], [0, 1, 0]]
    assert found.confidence[0, 0] == pytest.approx(0.7)
    assert found.confidence[2, 1] == pytest.approx(0.7)
    assert np.isnan(found.confidence).sum() == 7


def test_errors_that_all_go_to_one_class_have_entropy_0(study_input):
    blind = jax.tree.map(jnp.zeros_like, study_input.variables)  # every image is given class 0
    rows = {(r.quantity, r.inputs): r for r in measure(dataclasses.replace(study_input, variables=blind)).records}
    assert rows["error_entropy", "clean"].value == 0.0
    assert rows["confidence_wrong", "clean"].value == pytest.approx(0.1)
    assert rows["error_entropy", "clean"].n == np.sum(study_input.dataset.test.labels != 0)


def test_a_study_changes_nothing_it_was_given_and_repeats_itself(study_input, findings):
    before = jax.tree.map(np.array, study_input.variables), study_input.dataset.test.images.copy()
    again = measure(study_input)
    assert again.records == findings.records
    jax.tree.map(np.testing.assert_array_equal, before, (study_input.variables, study_input.dataset.test.images))


def test_the_figure_sums_the_counts_of_all_seeds(findings, tmp_path, assert_shows):
    trainings = ("nt", "at")
    for training in trainings:
        columns = {"training": training, "seed": 0, "epoch": 1.0, "step": 1, "arch": "cnn", "dataset": "digits"}
        records.append(tmp_path, [dataclasses.replace(r, **columns) for r in findings.records])
    arrays = {f"{k}.{t}.{s}": v for k, v in findings.arrays.items() for t in trainings for s in (0, 1)}
    write_arrays(tmp_path / "confusion.npz", arrays)
    found = run_records.read(tmp_path)
    specs = {spec.name: spec for spec in figures.available(found)}
    counts = findings.arrays["counts_clean"]
    assert_shows(specs["confusion_counts"].draw(found), counts / counts.sum(1, keepdims=True).clip(1))
    confidence = findings.arrays["confidence_clean"]
    assert_shows(specs["confusion_confidence"].draw(found), confidence[~np.isnan(confidence)])
    from mi_jax.studies.confusion.figure import confidence_of, counts_of

    images = int(findings.arrays["counts_clean"].sum())
    assert f"2 seeds, {images} images each" in specs["confusion_counts"].caption(found)
    write_arrays(tmp_path / "confusion.npz", {k: v for k, v in arrays.items() if not k.endswith("nt.1")})
    assert f"2 seeds, {images} images each" in specs["confusion_counts"].caption(run_records.read(tmp_path))
    np.testing.assert_array_equal(counts_of(found, "clean")["at"], 2 * findings.arrays["counts_clean"])
    np.testing.assert_allclose(confidence_of(found, "clean")["nt"], findings.arrays["confidence_clean"])
