import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax import data, information, models, records
from mi_jax.attacks import PGD
from mi_jax.data.sample import fixed_sample
from mi_jax.files import write_arrays
from mi_jax.measure.accuracy import adversarial_examples
from mi_jax.measure.information import activations
from mi_jax.records import run_records
from mi_jax.report import figures
from mi_jax.studies.distortions.study import distort, distortions_for, measure
from mi_jax.studies.registry import StudyInput
from mi_jax.training import evaluate

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def study_input():
    dataset = data.load("digits", limit=120)
    network = models.create("cnn", num_classes=10, input_shape=SHAPE, width=0.25)
    attack = PGD(eps=0.2, steps=2, step_size=0.1)
    return StudyInput(network, network.init(jax.random.key(3)), dataset, attack, 40, jax.random.key(0))


@pytest.fixture(scope="module")
def findings(study_input):
    return measure(study_input)


@pytest.fixture(scope="module")
def sample(study_input):
    return fixed_sample(study_input.dataset.test.images, study_input.dataset.test.labels, study_input.samples)


def _chosen(findings, **columns):
    return [r for r in findings.records if all(getattr(r, name) == value for name, value in columns.items())]


@pytest.mark.parametrize("distortion", distortions_for((32, 32, 3)), ids=lambda distortion: distortion.name)
def test_the_identity_level_of_every_distortion_leaves_images_alone(distortion):
    images = jax.random.uniform(jax.random.key(0), (3, 32, 32, 3))
    changed = distortion.apply(images, distortion.identity, jax.random.key(1))
    if distortion.name == "greyscale":  # it has no strength: its identity is the coloured image itself
        changed = distort(images, distortion, distortion.identity, jax.random.key(1))
    np.testing.assert_allclose(changed, images, atol=2e-6)
    strongest = distort(images, distortion, distortion.levels[-1], jax.random.key(1))
    assert float(jnp.abs(strongest - images).max()) > 0.1


@pytest.mark.parametrize("distortion", distortions_for(SHAPE), ids=lambda distortion: distortion.name)
def test_the_identity_level_holds_the_undistorted_measurement(study_input, findings, sample, distortion):
    loss, accuracy = evaluate(study_input.network, study_input.variables, *sample)
    at = {"distortion": distortion.name, "level": distortion.identity, "inputs": "clean"}
    (found_loss,), (found_accuracy,) = (_chosen(findings, quantity=q, **at) for q in ("loss", "accuracy"))
    assert found_loss.value == pytest.approx(loss, rel=1e-5)
    assert found_accuracy.value == pytest.approx(accuracy)
    tap = activations(study_input.network, study_input.variables, sample[0])["logits"]
    noise_rule = information.noise_variance(tap, rule="trace")
    truth = information.kde(tap, sample[1], noise_variance=noise_rule, num_classes=10)
    (row,) = _chosen(findings, quantity="i_tx_upper", layer="logits", noise_rule="scale_free", **at)
    assert row.value == pytest.approx(float(truth.i_tx_upper) / np.log(2), rel=1e-5)
    assert row.noise_variance == pytest.approx(noise_rule)
    assert row.n == 40


def test_noise_is_frozen_at_the_undistorted_clean_activations(findings):
    for layer in ("dense1", "logits"):
        rows = _chosen(findings, quantity="i_tx_upper", layer=layer, noise_rule="scale_free")
        assert len({row.noise_variance for row in rows}) == 1
        assert {row.inputs for row in rows} == {"clean", "adversarial"}
    assert {row.noise_variance for row in _chosen(findings, noise_rule="fixed")} == {0.1}


def test_two_networks_meet_the_same_permutations_phases_and_noise(study_input, findings):
    other = study_input.network.init(jax.random.key(4))
    again = measure(dataclasses.replace(study_input, variables=other))
    np.testing.assert_array_equal(again.arrays["clean"], findings.arrays["clean"])
    assert [r.value for r in again.records] != [r.value for r in findings.records]


def test_another_key_moves_what_is_drawn_and_nothing_else(sample):
    for distortion in distortions_for(SHAPE):
        one, two = (distort(sample[0], distortion, distortion.levels[-2], jax.random.key(k)) for k in (0, 9))
        drawn = distortion.name in ("patch_shuffle", "phase_scramble", "gaussian_noise")
        assert np.array_equal(one, two) != drawn


def test_adversarial_images_are_made_first_and_share_the_draws_of_the_clean_ones(study_input, findings, sample):
    adversarial_images = adversarial_examples(
        study_input.network, study_input.variables, *sample, attack=study_input.attack
    )
    for number, distortion in enumerate(distortions_for(SHAPE)):
        level = distortion.levels[-1]
        changed = distort(adversarial_images, distortion, level, jax.random.fold_in(study_input.key, number))
        place = (findings.arrays["distortion"] == distortion.name) & (findings.arrays["level"] == level)
        np.testing.assert_array_equal(np.round(np.asarray(changed[0]) * 255), findings.arrays["adversarial"][place][0])
        _, accuracy = evaluate(study_input.network, study_input.variables, changed, sample[1])
        at = {"distortion": distortion.name, "level": level, "inputs": "adversarial"}
        (row,) = _chosen(findings, quantity="accuracy", **at)
        assert row.value == pytest.approx(accuracy)


def test_draws_do_not_depend_on_how_many_images_follow():
    images = jax.random.uniform(jax.random.key(0), (260, *SHAPE))
    noise = next(d for d in distortions_for(SHAPE) if d.name == "gaussian_noise")
    few, many = (distort(images[:n], noise, noise.levels[-1], jax.random.key(2)) for n in (40, 260))
    np.testing.assert_array_equal(few, many[:40])
    assert not np.array_equal(many[0] - images[0], many[250] - images[250])


def test_levels_fit_the_image():
    sides = {size: {d.name: d.levels for d in distortions_for((size, size, 1))}["patch_shuffle"] for size in (8, 28, 6)}
    assert sides == {8: (1, 2, 4, 8), 28: (1, 2, 4), 6: (1, 2)}
    assert "greyscale" not in [d.name for d in distortions_for((28, 28, 1))]
    assert "patch_shuffle" not in [d.name for d in distortions_for((7, 7, 3))]


def test_a_constant_network_gives_rows_that_say_why_there_is_no_noise_variance(study_input):
    blind = dataclasses.replace(study_input, variables=jax.tree.map(jnp.zeros_like, study_input.variables))
    found = measure(blind)
    refused = _chosen(found, noise_rule="scale_free")
    assert refused
    assert not any(row.ok for row in refused)
    assert "constant" in refused[0].note
    assert {row.value for row in _chosen(found, noise_rule="fixed", quantity="i_tx_upper")} == {0.0}


def test_a_study_changes_nothing_it_was_given_and_repeats_itself(study_input, findings):
    before = jax.tree.map(np.array, study_input.variables), study_input.dataset.test.images.copy()
    again = measure(study_input)
    assert again.records == findings.records
    jax.tree.map(np.testing.assert_array_equal, before, (study_input.variables, study_input.dataset.test.images))


def test_the_figures_are_drawn_from_what_was_found(findings, tmp_path, assert_shows):
    for training in ("nt", "at"):
        columns = {"training": training, "seed": 0, "epoch": 1.0, "step": 1, "arch": "cnn", "dataset": "digits"}
        records.append(tmp_path, [dataclasses.replace(r, **columns) for r in findings.records])
    arrays = {f"{k}.{t}.0": v for k, v in findings.arrays.items() for t in ("nt", "at")}
    write_arrays(tmp_path / "distortions.npz", arrays)
    found = run_records.read(tmp_path)
    specs = {spec.name: spec for spec in figures.available(found)}
    rows = found.records
    accuracy = rows[rows["quantity"].eq("accuracy") & rows["distortion"].notna()]
    assert_shows(specs["distortion_accuracy"].draw(found), 100 * accuracy["value"])
    of_saturation = rows[rows["distortion"].eq("saturate") & rows["noise_rule"].eq("scale_free")]
    information = of_saturation[of_saturation["quantity"].eq("i_tx_upper") & of_saturation["class"].isna()]
    assert_shows(specs["distortion_information_paper_scale_free"].draw(found), information["value"])
    assert_shows(specs["distortion_examples"].draw(found), findings.arrays["adversarial"])


def test_corruptions_of_the_same_name_are_not_drawn_as_distortions(findings, tmp_path, assert_shows):
    columns = {"training": "nt", "seed": 0, "epoch": 1.0, "step": 1, "arch": "cnn", "dataset": "digits"}
    rows = [dataclasses.replace(row, **columns) for row in findings.records]
    (noisy,) = _chosen(findings, quantity="accuracy", distortion="gaussian_noise", level=0.0, inputs="clean")
    corrupted = dataclasses.replace(noisy, **columns, image_set="corrupted", level=5.0)
    records.append(tmp_path, [*rows, corrupted])
    found = run_records.read(tmp_path)
    specs = {spec.name: spec for spec in figures.available(found)}
    measured = [100 * row.value for row in rows if row.quantity == "accuracy"]
    assert_shows(specs["distortion_accuracy"].draw(found), measured)
