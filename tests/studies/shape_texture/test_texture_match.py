import numpy as np
import pytest

from mi_jax.data.shapetex import ShapeTex, scene
from mi_jax.studies.shape_texture.texture_match import match_records, similarities, texture_match_test, texture_spectra


@pytest.fixture(scope="module")
def textures():
    drawn = scene(ShapeTex(n_test=500), "factorial")
    return drawn.texture, drawn.factors["texture"]


def test_a_planted_texture_is_its_own_best_match_whatever_its_phase(textures):
    fields, index = textures
    spectra = texture_spectra(fields[:300], index[:300], 10)
    perturbations = np.repeat(8 / 255 * fields[300:, :, :, None], 3, axis=3)
    assert (similarities(perturbations, spectra).argmax(1) == index[300:]).mean() > 0.99
    rolled = np.roll(perturbations, (3, 5), axis=(1, 2))
    np.testing.assert_allclose(similarities(rolled, spectra), similarities(perturbations, spectra), atol=1e-6)


def test_the_match_knows_neither_sign_nor_size_nor_offset(textures):
    fields, index = textures
    spectra, perturbations = texture_spectra(fields, index, 10), fields[:20, :, :, None]
    np.testing.assert_allclose(
        similarities(-0.1 * perturbations + 0.3, spectra), similarities(perturbations, spectra), atol=1e-5
    )


def test_a_perturbation_of_nothing_matches_nothing(textures):
    spectra = texture_spectra(*textures, 10)
    assert not similarities(np.zeros((2, 32, 32, 3)), spectra).any()


def one_hot(best, k):
    return np.eye(k)[best]


def test_a_perturbation_with_the_texture_of_the_prediction_matches_always_and_beats_both_baselines():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 20)
    predicted = (labels + rng.integers(1, 5, 100)) % 5
    found = texture_match_test(one_hot(predicted, 5), labels, predicted, rng)
    assert found.rate == 1
    assert found.within_class == pytest.approx(0.25, abs=0.05)
    assert found.among_images == pytest.approx(0.25, abs=0.05)
    assert found.p_within_class < 0.001
    assert found.p_among_images < 0.001


def test_a_habit_of_confusing_two_classes_does_not_pass_for_carried_texture():
    labels = np.repeat(np.arange(5), 20)
    predicted = (labels + 1) % 5
    found = texture_match_test(one_hot(predicted, 5), labels, predicted, np.random.default_rng(0))
    assert (found.rate, found.within_class, found.p_within_class) == (1, 1, 1)
    assert found.among_images == pytest.approx(0.25)


def test_random_matches_are_not_significant():
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(5), 40)
    predicted = (labels + rng.integers(1, 5, 200)) % 5
    found = texture_match_test(rng.random((200, 5)), labels, predicted, rng)
    assert found.rate == pytest.approx(0.25, abs=0.1)
    assert found.p_among_images > 0.01
    assert found.p_within_class > 0.01


def test_the_expected_baselines_are_those_of_the_permutations():
    rng = np.random.default_rng(2)
    labels, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([1, 2, 1, 0, 2, 0])
    best = np.array([1, 1, 2, 2, 2, 0])
    found = texture_match_test(one_hot(best, 3), labels, predicted, rng)
    draws = [np.concatenate([rng.permutation(predicted[labels == k]) for k in range(3)]) for _ in range(4000)]
    assert found.within_class == pytest.approx(np.mean(np.array(draws) == best), abs=0.02)
    hits = fair = 0
    for _ in range(4000):
        permuted = predicted[rng.permutation(6)]
        hits, fair = hits + (permuted == best) * (permuted != labels), fair + (permuted != labels)
    assert found.among_images == pytest.approx(np.mean(hits / fair), abs=0.02)


def test_correctly_classified_images_do_not_count_and_none_is_said_so():
    labels = np.array([0, 1, 2, 0])
    assert texture_match_test(np.zeros((4, 3)), labels, labels, np.random.default_rng(0)) is None
    (record,) = match_records(None, inputs="adversarial")
    assert not record.ok
