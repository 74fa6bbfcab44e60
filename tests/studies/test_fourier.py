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
from mi_jax.studies.fourier.study import frequencies, mean_frequency, measure, power, radial, sensitivity, waves
from mi_jax.studies.registry import StudyInput


@pytest.fixture(scope="module")
def study_input():
    dataset = data.load("digits", limit=120)
    network = models.create("cnn", num_classes=10, input_shape=(8, 8, 1), width=0.25)
    attack = PGD(eps=0.2, steps=2, step_size=0.1)
    return StudyInput(network, network.init(jax.random.key(3)), dataset, attack, 60, jax.random.key(0))


@pytest.fixture(scope="module")
def findings(study_input):
    return measure(study_input)


@pytest.mark.parametrize(("height", "width", "count"), [(8, 8, 34), (5, 6, 16), (7, 7, 25)])
def test_waves_are_orthonormal_and_there_is_one_for_each_pair_of_frequencies(height, width, count):
    basis = waves(frequencies(height, width), height=height, width=width).reshape(-1, height * width)
    assert len(basis) == count
    np.testing.assert_allclose(basis @ basis.T, np.eye(count), atol=1e-6)


def test_a_wave_is_a_frequency_and_its_opposite_at_one_magnitude_and_nothing_else():
    chosen = frequencies(8, 8)
    spectra = np.abs(np.fft.fft2(waves(chosen, height=8, width=8)))
    for (u, v), spectrum in zip(chosen, spectra, strict=True):
        there = np.zeros((8, 8), bool)
        there[[u % 8, -u % 8], [v % 8, -v % 8]] = True
        np.testing.assert_allclose(spectrum, np.where(there, 8 / np.sqrt(there.sum()), 0), atol=1e-5)


def test_a_stride_keeps_the_multiples_of_it():
    kept = frequencies(32, 32, stride=2)
    everything = {tuple(row) for row in frequencies(32, 32).tolist()}
    assert len(kept) == 130
    assert {tuple(row) for row in kept.tolist()} == {row for row in everything if row[0] % 2 == row[1] % 2 == 0}


def test_a_linear_model_is_sensitive_to_its_own_wave_alone_and_flips_where_the_sign_is_against_it():
    chosen, key = frequencies(8, 8), jax.random.key(5)
    basis = waves(chosen, height=8, width=8)
    own = int(np.flatnonzero((chosen == (2, 1)).all(1))[0])
    n, norm = 40, 0.5
    images, labels = jnp.full((n, 8, 8, 1), 0.5), jnp.zeros(n, jnp.int32)

    def logits_of(x):  # the margin of class 0 is 0.1 + <wave, x>, which a wave of norm 0.5 changes by +-0.5
        margin = 0.1 + jnp.sum(x[..., 0] * basis[own][None], axis=(1, 2))
        return jnp.stack([margin, jnp.zeros_like(margin)], axis=1)

    errors = sensitivity(logits_of, images, labels, key, basis=basis, norm=norm)
    against = np.mean(np.asarray(jax.random.rademacher(key, (n, 1))) < 0)
    assert 0.2 < against < 0.8
    np.testing.assert_allclose(errors, np.where(np.arange(len(chosen)) == own, against, 0))


def test_perturbations_have_the_stated_norm_over_all_channels_and_the_same_signs_for_every_wave():
    basis = waves(frequencies(8, 8), height=8, width=8)
    seen = []

    def logits_of(x):
        seen.append(np.asarray(x) - 0.5)
        return jnp.zeros((len(x), 2))

    images, labels = jnp.full((5, 8, 8, 3), 0.5), jnp.zeros(5, jnp.int32)
    sensitivity(logits_of, images, labels, jax.random.key(1), basis=basis, norm=0.7)
    delta = np.concatenate(seen)[: 5 * len(basis)].reshape(len(basis), 5, 8, 8, 3)
    np.testing.assert_allclose(np.sqrt((delta**2).sum((2, 3, 4))), 0.7, rtol=1e-4)
    signs = np.sign(np.einsum("mnhwc,mhw->mnc", delta, basis))
    assert (signs == signs[0]).all()


def test_white_noise_has_a_flat_radial_spectrum_of_mean_1():
    noise = np.random.default_rng(0).normal(size=(600, 16, 16, 3))
    spectrum = power(noise)
    assert spectrum.mean() == pytest.approx(1)
    radii, means = radial(spectrum)
    assert radii.tolist() == list(range(9))
    np.testing.assert_allclose(means[1:], 1, atol=0.04)


def test_the_spectrum_of_one_wave_lies_at_its_frequency():
    wave = waves([(3, 4)], height=16, width=16)
    spectrum = power(wave[..., None])
    assert spectrum[8 + 3, 8 + 4] == pytest.approx(128, rel=1e-5)
    assert spectrum[8 - 3, 8 - 4] == pytest.approx(128, rel=1e-5)
    assert mean_frequency(spectrum) == pytest.approx(5, rel=1e-5)
    assert radial(spectrum)[1].argmax() == 5


def test_rings_leave_out_frequencies_that_were_not_measured():
    values = np.full((4, 4), np.nan)
    values[2, 2], values[2, 3] = 0.25, 0.75
    np.testing.assert_array_equal(radial(values)[1], [0.25, 0.75, np.nan])


def test_the_map_of_errors_is_whole_and_symmetric(findings, study_input):
    error = findings.arrays["error"]
    assert error.shape == (8, 8)
    np.testing.assert_array_equal(error[1:, 1:], error[1:, 1:][::-1, ::-1])
    assert 0 <= error.min() <= error.max() <= 1
    rows = {r.quantity: r for r in findings.records}
    assert rows["wave_error"].n == study_input.samples // 5
    assert rows["perturbation_power"].n == study_input.samples
    assert rows["perturbation_frequency"].value == pytest.approx(mean_frequency(findings.arrays["power"]))


def test_an_attack_of_no_steps_has_no_spectrum(study_input):
    none = measure(dataclasses.replace(study_input, attack=PGD(steps=0)))
    assert not none.arrays["power"].any()
    assert all(r.quantity != "perturbation_frequency" for r in none.records)


def test_a_study_changes_nothing_it_was_given_and_repeats_itself(study_input, findings):
    before = jax.tree.map(np.array, study_input.variables), study_input.dataset.test.images.copy()
    again = measure(study_input)
    assert again.records == findings.records
    jax.tree.map(np.testing.assert_array_equal, before, (study_input.variables, study_input.dataset.test.images))


def test_the_figure_is_drawn_from_what_was_found(findings, tmp_path, assert_shows):
    for training in ("nt", "at"):
        columns = {"training": training, "seed": 0, "epoch": 1.0, "step": 1, "arch": "cnn", "dataset": "digits"}
        records.append(tmp_path, [dataclasses.replace(r, **columns) for r in findings.records])
    arrays = {f"{k}.{t}.0": v for k, v in findings.arrays.items() for t in ("nt", "at")}
    write_arrays(tmp_path / "fourier.npz", arrays)
    found = run_records.read(tmp_path)
    (spec,) = [spec for spec in figures.available(found) if spec.name == "fourier"]
    error = findings.arrays["error"]
    assert_shows(spec.draw(found), error[~np.isnan(error)])
    assert_shows(spec.draw(found), found.select(quantity="perturbation_power")["value"])


def test_frequencies_along_the_width_are_counted_per_image_height():
    across = waves([(0, 4)], height=8, width=16)[..., None]
    assert mean_frequency(power(across)) == pytest.approx(2)
    radii, means = radial(power(across))
    assert radii[np.nanargmax(means)] == 2
