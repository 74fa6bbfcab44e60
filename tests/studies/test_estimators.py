"""Values of a small real network: inside their brackets, and those of the estimators called by hand."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from mi_jax import data, information, models, records
from mi_jax.attacks import PGD
from mi_jax.data.sample import fixed_sample
from mi_jax.measure.accuracy import adversarial_examples
from mi_jax.measure.information import InformationConfig, activations, frozen_noise_variances, information_plane
from mi_jax.records import run_records
from mi_jax.report import figures
from mi_jax.seeding import sample_rows
from mi_jax.studies.estimators import study
from mi_jax.studies.estimators.study import measure, without_noise
from mi_jax.studies.registry import StudyInput

INFORMATION = InformationConfig(samples=90, noise=("fixed", "trace", "scale_free"), noise_variance=0.5)
SHOWN = 70


@pytest.fixture(scope="module")
def study_input():
    network = models.create("cnn", num_classes=10, input_shape=(8, 8, 1), width=0.25)
    start, end = (network.init(jax.random.key(seed)) for seed in (0, 1))
    attack = PGD(eps=0.1, steps=1, step_size=0.1)
    return StudyInput(
        network, end, data.load("digits", limit=120), attack, SHOWN, jax.random.key(2),
        information=INFORMATION, untrained=lambda: start,
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(study_input):
    return measure(study_input).records


@pytest.fixture(scope="module")
def sample(study_input):
    return fixed_sample(study_input.dataset.test.images, study_input.dataset.test.labels, INFORMATION.samples)


def test_every_value_lies_in_the_bracket_that_the_run_measures(study_input, sample, found):
    images, labels = sample
    adversarial_images = adversarial_examples(
        study_input.network, study_input.variables, images, labels, attack=study_input.attack
    )
    noise_variances = frozen_noise_variances(study_input.network, study_input.untrained(), images, config=INFORMATION)
    bounds = {
        (r.layer, r.inputs, r.noise_rule, r.quantity): r
        for r in information_plane(
            study_input.network,
            study_input.variables,
            images,
            adversarial_images,
            labels,
            noise_variances=noise_variances,
            config=INFORMATION,
            attack=study_input.attack,
        )
        if r.class_ is None
    }
    checked = 0
    for row in found:
        if row.estimator != "monte_carlo" or row.quantity not in ("i_tx", "i_ty"):
            continue
        low, high = ("lower", "upper") if row.quantity == "i_tx" else ("certified_lower", "certified_upper")
        ends = [bounds[row.layer, row.inputs, row.noise_rule, f"{row.quantity}_{end}"] for end in (low, high)]
        assert row.noise_variance == ends[0].noise_variance
        slack = 4 * row.stderr + 1e-6
        assert ends[0].value - slack <= row.value <= ends[1].value + slack
        checked += 1
    assert checked == 2 * 2 * 3 * len(study_input.network.layers)


def test_the_panel_is_the_estimators_called_by_hand(study_input, sample, found):
    images, labels = sample
    layer = study_input.network.layers[1]
    tap = np.asarray(activations(study_input.network, study_input.variables, images)[layer])
    rows = sample_rows(len(tap), SHOWN)
    for name in without_noise():
        (row,) = [r for r in found if (r.estimator, r.layer, r.inputs) == (name, layer, "clean")]
        key = jax.random.fold_in(study_input.key, 1)
        by_hand = information.estimate(name, tap[rows], np.asarray(labels)[rows], key=key, num_classes=10)
        assert row.value == pytest.approx(by_hand.value / math.log(2), abs=1e-6)
        assert row.n == SHOWN
        assert row.unreliable == by_hand.unreliable


def test_sampling_errors_are_there_beside_the_errors_of_the_draws(found):
    errors = {(r.layer, r.inputs, r.noise_rule): r for r in found if r.quantity == "i_tx_sampling_error"}
    values = {(r.layer, r.inputs, r.noise_rule): r for r in found if r.quantity == "i_tx"}
    assert errors.keys() == values.keys()
    assert all(row.value > 0 for row in errors.values())


def test_leave_one_out_values_bracket_the_monte_carlo_values(found):
    rows = {(r.layer, r.inputs, r.noise_rule, r.quantity): r.value for r in found if r.estimator == "monte_carlo"}
    checked = [key for key in rows if key[-1] == "i_tx_leave_one_out"]
    assert len(checked) >= 2 * 3  # both inputs, all noise rules
    for *where, _ in checked:
        assert rows[*where, "i_tx"] <= rows[*where, "i_tx_leave_one_out"]
        assert rows[*where, "i_ty_leave_one_out"] <= rows[*where, "i_ty"]


def test_the_figures_are_drawn(found, tmp_path, assert_shows):
    for training in ("nt", "at"):
        for seed in (0, 1):
            columns = {"training": training, "seed": seed, "epoch": 1.0, "step": 1, "arch": "cnn", "dataset": "digits"}
            records.append(tmp_path, [dataclasses.replace(r, **columns) for r in found])
    read = run_records.read(tmp_path)
    specs = {spec.name: spec for spec in figures.available(read)}
    for name in ("information_values", "estimator_panel"):
        assert "2 seeds" in specs[name].caption(read)
    values = [r.value for r in found if r.estimator == "monte_carlo" and r.quantity in ("i_tx", "i_ty")]
    assert_shows(specs["information_values"].draw(read), values)
    rank = [r.value for r in found if r.estimator == "ksg" and r.quantity == "i_ty"]
    assert_shows(specs["estimator_panel"].draw(read), rank)
    assert "not Shannon" in specs["estimator_panel"].caption(read)
    assert "estimates are unreliable (" in specs["information_values"].caption(read)


def test_values_whose_distance_from_leave_one_out_exceeds_their_error_are_flagged(found):
    rows = {(r.layer, r.inputs, r.noise_rule, r.quantity): r for r in found if r.estimator == "monte_carlo"}
    flags = []
    for (*where, quantity), row in rows.items():
        if quantity == "i_tx" and not row.saturated and (*where, "i_tx_leave_one_out") in rows:
            gap = rows[*where, "i_tx_leave_one_out"].value - row.value
            wide = gap > max(rows[*where, "i_tx_sampling_error"].value, 0.01 / math.log(2))
            assert row.unreliable == ("sample size" if wide else None)
            flags.append(wide)
    assert any(flags), "no layer has too few samples"


def test_an_estimator_of_a_users_own_is_measured_and_drawn(study_input, tmp_path):
    @information.register("always_one", targets=("label",), title="One bit", description="a constant")
    def always_one(t, other, *, key, num_classes):
        return information.Estimate("always_one", math.log(2), None, "value", len(t), {}, unreliable="dimension")

    try:
        rows = _panel_records(study_input, ["always_one"])
        records.append(tmp_path, rows)
        read = run_records.read(tmp_path)
        (spec,) = [spec for spec in figures.available(read) if spec.name == "estimator_panel"]
        assert "One bit: a constant" in spec.caption(read)
        assert "2 of 2 estimates are unreliable (dimension 2)" in spec.caption(read)
    finally:
        information.ESTIMATORS.unregister("always_one")


def _panel_records(study_input, names):
    """The records of the estimators on one layer of two trainings, without measuring a network."""
    tap, labels = np.random.default_rng(0).standard_normal((40, 3)), np.arange(40) % 10
    columns = {"layer": "fc", "inputs": "clean", "image_set": "test", "seed": 0, "step": 1, "epoch": 1.0}
    columns |= {"arch": "cnn", "dataset": "digits"}
    rows = []
    for training in ("nt", "at"):
        rows += study._without_noise(tap, labels, 10, study_input.key, columns | {"training": training})
    return [row for row in rows if row.estimator in names]
