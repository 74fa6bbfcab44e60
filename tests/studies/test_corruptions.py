"""Accuracy on corrupted test sets: counts that are known, sets that do not fit, common corruptions, and the figure."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

import mi_jax as mj
from mi_jax import records, runs
from mi_jax.attacks import PGD
from mi_jax.errors import InputError
from mi_jax.records import run_records
from mi_jax.studies.corruptions.common import CORRUPTIONS, corrupted
from mi_jax.studies.corruptions.study import _mean, measure
from mi_jax.studies.registry import StudyInput

LABELS = np.arange(20) % 2
DARK_OR_BRIGHT = np.broadcast_to((60 + 120 * LABELS).astype(np.uint8)[:, None, None, None], (20, 4, 4, 1))


def brightness(weights: jax.Array, x: jax.Array) -> jax.Array:
    """Bright images are class 1."""
    mean = x.mean((1, 2, 3))[:, None]
    return jnp.concatenate([0.5 - mean, mean - 0.5], axis=1) * weights[None]


def arrays(images: np.ndarray, **options) -> mj.data.Dataset:
    return mj.data.from_arrays(DARK_OR_BRIGHT, LABELS, images, LABELS, **options)


@pytest.fixture(scope="module")
def study_input() -> StudyInput:
    network, variables = mj.models.from_function(brightness, np.ones(1, np.float32), input_shape=(4, 4, 1))
    return StudyInput(network, variables, arrays(DARK_OR_BRIGHT), PGD(), 20, jax.random.key(0))


def of_sets(study_input: StudyInput, sets: dict[str, mj.data.Dataset]):
    loaders = {name: (lambda test_set=test_set: test_set) for name, test_set in sets.items()}
    return measure(dataclasses.replace(study_input, test_sets=loaders)).records


def test_accuracy_of_given_sets_is_counted_by_corruption_and_severity_and_averaged(study_input):
    half = np.where(np.arange(20)[:, None, None, None] < 10, DARK_OR_BRIGHT, 255 - DARK_OR_BRIGHT)
    sets = {"npz:c/inverted_3": arrays(255 - DARK_OR_BRIGHT), "folder:half.npz": arrays(half)}
    own, inverted, halved, mean = of_sets(study_input, sets)
    assert [(r.distortion, r.level, r.value) for r in (own, inverted, halved)] == [
        ("none", 0, 1.0), ("inverted", 3, 0.0), ("half", None, 0.5),
    ]  # fmt: skip
    assert {r.image_set for r in (own, inverted, halved, mean)} == {"corrupted"}
    assert halved.stderr == pytest.approx(np.sqrt(0.25 / 20))
    assert (mean.quantity, mean.value) == ("mean_corruption_accuracy", 0.25)
    assert mean.stderr == pytest.approx(np.repeat([0.5, 0.0], 10).std(ddof=1) / np.sqrt(20))


def test_sets_of_other_images_or_classes_are_refused(study_input):
    wide = np.zeros((20, 4, 8, 1), np.uint8)
    with pytest.raises(InputError, match="images of wide are 4 x 8 x 1; those of the run are 4 x 4 x 1"):
        of_sets(study_input, {"wide": mj.data.from_arrays(wide, LABELS, wide, LABELS)})
    named = dataclasses.replace(study_input, dataset=arrays(DARK_OR_BRIGHT, class_names=["dark", "bright"]))
    with pytest.raises(InputError, match="classes of swapped are bright, dark; those of the run are dark, bright"):
        of_sets(named, {"swapped": arrays(DARK_OR_BRIGHT, class_names=["bright", "dark"])})


def test_common_corruptions_are_those_of_their_definitions_and_grow_with_severity():
    x = np.random.default_rng(0).random((4, 16, 16, 3)) / 2 + 0.2
    for name in CORRUPTIONS:
        distances = [np.abs(corrupted(name, x, severity, 0) - x).mean() for severity in range(1, 6)]
        assert distances[0] < distances[-1], name
        assert np.array_equal(corrupted(name, x, 3, 1), corrupted(name, x, 3, 1)), name
    rounding = 0.5 / 255 + 1e-6
    blurred = np.stack([ndimage.gaussian_filter(x[i, ..., c], 1.0, mode="nearest") for i in (0,) for c in range(3)], -1)
    np.testing.assert_allclose(corrupted("gaussian_blur", x, 5, 0)[0], blurred, atol=rounding)
    mean = x.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(corrupted("contrast", x, 2, 0), (x + mean) / 2, atol=rounding)
    bright = corrupted("brightness", x, 1, 0)
    np.testing.assert_allclose(bright.max(-1), np.minimum(x.max(-1) + 0.05, 1), atol=rounding)
    np.testing.assert_allclose(bright / bright.max(-1, keepdims=True), x / x.max(-1, keepdims=True), atol=0.02)
    noise = corrupted("gaussian_noise", np.full((4, 32, 32, 3), 0.5), 5, 0) - 0.5
    assert noise.std() == pytest.approx(0.10, abs=0.004)
    grey = np.full((4, 32, 32, 3), 0.5)
    assert np.isin(corrupted("impulse_noise", grey, 5, 0), (0, 1)).mean() == pytest.approx(0.07, abs=0.01)
    assert corrupted("shot_noise", grey, 5, 0).std() == pytest.approx(np.sqrt(0.5 / 50), abs=0.004)


def test_images_of_any_number_of_channels_are_compressed():
    x = np.random.default_rng(0).random((2, 16, 16, 4))
    np.testing.assert_array_equal(
        corrupted("jpeg_compression", x, 3, 0)[..., 1:2], corrupted("jpeg_compression", x[..., 1:2], 3, 0)
    )


def test_the_error_of_a_mean_over_sets_counts_the_same_images_once():
    right, labels = np.random.default_rng(0).random(500) < 0.7, np.arange(500) % 10
    one = _mean([right], [labels]).stderr
    same = _mean([right] * 15, [labels] * 15).stderr
    assert same == pytest.approx(one, rel=2e-3)
    mixed = _mean([right] * 15 + [right], [labels] * 15 + [labels[::-1]]).stderr
    assert mixed == pytest.approx(np.hypot(15 * one, one) / 16, rel=2e-3)


def test_without_sets_the_runs_own_images_are_corrupted_and_the_figure_is_drawn(study_input, tmp_path):
    rows = measure(study_input).records
    assert {r.distortion for r in rows if r.distortion} == {"none", *CORRUPTIONS}
    assert len(rows) == 2 + 5 * len(CORRUPTIONS)
    for training in ("nt", "at"):
        columns = {"training": training, "seed": 0, "checkpoint": "last", "epoch": 1, "step": 1}
        records.append(tmp_path, [dataclasses.replace(row, **columns) for row in rows])
    (spec,) = mj.studies.find("corruptions").figures
    run = run_records.read(tmp_path)
    assert spec.needs(run)
    mean = f"{100 * rows[-1].value:.1f} %"
    assert f"Mean over all corrupted sets: NT {mean}, AT {mean}." in spec.caption(run)
    figure = spec.draw(run)
    assert [axes.get_title(loc="left") for axes in figure.axes][:2] == ["Gaussian noise", "Shot noise"]


def test_studies_that_use_no_test_sets_say_so(tmp_path, quiet):
    with pytest.raises(InputError, match="study fourier takes no test_sets; leave them out, or run corruptions"):
        runs.study("fourier", run_dir=tmp_path, test_sets=["x"], reporter=quiet)


def test_an_archive_of_test_images_alone_is_a_test_set(tmp_path):
    np.savez(tmp_path / "fog_2.npz", test_images=DARK_OR_BRIGHT, test_labels=LABELS)
    found = mj.data.load(f"npz:{tmp_path / 'fog_2.npz'}")
    assert (len(found.train), len(found.test), found.num_classes) == (0, 20, 2)


def test_classes_at_another_place_than_in_the_run_are_refused_and_sets_of_other_images_are_independent(study_input):
    three = mj.data.from_arrays(
        DARK_OR_BRIGHT, LABELS + (np.arange(20) == 3), DARK_OR_BRIGHT, LABELS, class_names=["dark", "bright", "white"]
    )
    named = dataclasses.replace(study_input, dataset=three)
    with pytest.raises(InputError, match="classes of part are bright, white; those of the run are dark, bright, white"):
        of_sets(named, {"part": arrays(DARK_OR_BRIGHT, class_names=["bright", "white"])})
    half = np.where(np.arange(20)[:, None, None, None] < 10, DARK_OR_BRIGHT, 255 - DARK_OR_BRIGHT)
    other = mj.data.from_arrays(half[::-1], LABELS[::-1], half[::-1], LABELS[::-1])
    mean = of_sets(study_input, {"one": arrays(half), "two": other})[-1]
    assert mean.stderr == pytest.approx(np.sqrt(2 * 0.25 / 20) / 2)


def test_a_test_set_that_is_not_there_is_named_before_anything_is_written(finished_run, tmp_path, quiet):
    before = (finished_run / "progress.json").read_bytes(), (finished_run / "provenance.json").read_bytes()
    with pytest.raises(InputError, match="missing"):
        runs.study("corruptions", run_dir=finished_run, test_sets=[f"npz:{tmp_path / 'missing.npz'}"], reporter=quiet)
    assert before == ((finished_run / "progress.json").read_bytes(), (finished_run / "provenance.json").read_bytes())


def test_the_strengths_are_those_of_cifar_10_c():
    """From `make_cifar_c.py` of Hendrycks and Dietterich (2019)."""
    assert {name: corruption.strengths for name, corruption in CORRUPTIONS.items()} == {
        "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
        "shot_noise": (500, 250, 100, 75, 50),
        "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
        "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1),
        "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
        "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
        "jpeg_compression": (80, 65, 58, 50, 40),
    }
