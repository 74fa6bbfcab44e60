"""Conflict images of any data set: balanced pairs, the two cues, choices of networks that follow one, and figures."""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mi_jax as mj
from mi_jax import distortions, records
from mi_jax.attacks import PGD
from mi_jax.errors import InputError
from mi_jax.files import write_arrays
from mi_jax.records import run_records
from mi_jax.studies.hybrid_conflict import study
from mi_jax.studies.hybrid_conflict.images import levels, make, outlines, pairs
from mi_jax.studies.registry import StudyInput
from mi_jax.studies.shape_texture.shape_bias import reciprocal_rank

SIDE, CLASSES = 8, 3
WAVES = np.cos(2 * np.pi * np.arange(SIDE) / SIDE)
LOW = np.stack([np.add.outer(a * WAVES, b * WAVES) for a, b in ((1, 0), (0, 1), (-1, 0))])
"""The low frequencies of each class."""
HIGH = np.stack([np.outer(a, b) for a in ([1, -1], [1, 1]) for b in ([1, -1], [1, 1])])[:CLASSES]
HIGH = np.tile(HIGH, (1, SIDE // 2, SIDE // 2))


@pytest.fixture(scope="module")
def dataset() -> mj.data.Dataset:
    """Each class has low frequencies and a high one of its own."""
    labels = np.arange(36) % CLASSES
    noise = np.random.default_rng(0).normal(size=(36, SIDE, SIDE)) * 2
    images = np.clip(128 + 40 * LOW[labels] / 2 + 40 * HIGH[labels] + noise, 0, 255).astype(np.uint8)[..., None]
    return mj.data.from_arrays(images, labels, images, labels)


def follower(templates: np.ndarray) -> tuple[mj.models.Network, dict]:
    """A network whose logits are the products of the image with the templates of the classes."""
    weights = jnp.asarray(templates.reshape(CLASSES, -1).T, jnp.float32)
    return mj.models.from_function(
        lambda w, x: ((x - 0.5).reshape(len(x), -1) @ w, {"pixels": x}), weights, input_shape=(SIDE, SIDE, 1)
    )


def found_by(templates: np.ndarray, dataset: mj.data.Dataset):
    network, variables = follower(templates)
    return study.measure(StudyInput(network, variables, dataset, PGD(eps=0.01, steps=1), 36, jax.random.key(0)))


@pytest.fixture(scope="module")
def of_low(dataset):
    return found_by(LOW, dataset)


def one(found, **columns):
    (row,) = (r for r in found.records if all(getattr(r, name) == value for name, value in columns.items()))
    return row.value


def test_pairs_without_a_conflict_are_refused(dataset):
    same = dataset.test.take(dataset.test.labels == 1)
    with pytest.raises(InputError, match="pairs of test images of arrays are each of one class"):
        found_by(LOW, dataclasses.replace(dataset, test=same))


def test_pairs_are_balanced_over_the_classes_of_both_images():
    labels = np.repeat([0, 1, 2, 5], [9, 3, 4, 2])
    found = pairs(labels, 35)
    np.testing.assert_array_equal(labels[found.first], found.classes[0])
    np.testing.assert_array_equal(labels[found.second], found.classes[1])
    assert set(collections.Counter(found.classes[0].tolist()).values()) == {8}
    assert set(collections.Counter(found.classes[1].tolist()).values()) == {8}
    every = collections.Counter(zip(*(c.tolist() for c in pairs(labels, 16).classes), strict=True))
    assert len(every) == 16
    assert set(every.values()) == {1}


def test_a_hybrid_holds_the_low_frequencies_of_one_image_and_the_high_ones_of_the_other():
    x = jax.random.uniform(jax.random.key(0), (2, 16, 16, 3)) * 0.2 + 0.4
    made = make("hybrid", x[:1], x[1:], 4.0, jax.random.key(0))
    np.testing.assert_allclose(distortions.low_pass(made.combined, 4.0), distortions.low_pass(x[:1], 4.0), atol=1e-5)
    ours, theirs = (distortions.high_pass(image, 4.0) for image in (made.combined, x[1:]))
    np.testing.assert_allclose(*(image - image.mean((1, 2), keepdims=True) for image in (ours, theirs)), atol=1e-5)


def test_outlines_have_two_tones_in_equal_shares_and_patches_keep_their_pixels_at_lower_contrast():
    x = jax.random.uniform(jax.random.key(1), (3, 16, 16, 3))
    assert np.unique(outlines(x).round(3)).tolist() == pytest.approx([0.3, 0.7])
    np.testing.assert_allclose(outlines(x).mean((1, 2, 3)), 0.5, atol=0.01)
    alone = make("patches", x, x, 4.0, jax.random.key(0)).alone[1]
    own = 0.5 + 0.5 * (x - x.mean((1, 2), keepdims=True))
    np.testing.assert_allclose(jnp.sort(alone.ravel()), jnp.sort(own.ravel()), atol=1e-6)


@pytest.mark.parametrize("kind", ["hybrid", "patches"])
def test_a_cue_alone_is_what_the_conflict_image_holds_of_it(kind):
    x = jax.random.uniform(jax.random.key(2), (2, 16, 16, 3)) * 0.2 + 0.4
    made = make(kind, x[:1], x[1:], 4.0, jax.random.key(0))
    np.testing.assert_allclose(made.combined, made.alone[0] + made.alone[1] - 0.5, atol=1e-6)


def test_ranks_of_ties_lie_between_their_neighbours():
    logits = np.array([[2.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(reciprocal_rank(logits, np.array([1, 2])), [1 / 2.5, 1 / 2])


def test_a_network_that_follows_one_cue_has_that_bias_sensitivity_and_information(of_low, dataset):
    of_high = found_by(HIGH, dataset)
    level = one(of_low, quantity="balanced_level", distortion="hybrid")
    at = {"distortion": "hybrid", "level": level}
    for found, bias, cues in ((of_low, 1.0, ("low", "high")), (of_high, 0.0, ("high", "low"))):
        columns = {**at, "inputs": "clean"}
        assert one(found, quantity="cue_bias", **columns) == bias
        assert one(found, quantity="cue_coverage", **columns) == 1
        assert one(found, quantity="cue_sensitivity", factor=cues[0], **columns) == 1
        assert one(found, quantity="cue_sensitivity", factor=cues[1], **columns) < 0.7
        assert one(found, quantity="accuracy", factor=cues[0], **columns) == 1
        assert one(found, quantity="accuracy", factor=cues[1], **columns) < 0.9
        own, other = (
            one(found, quantity=f"i_t_{cue}", layer="logits", estimator="monte_carlo", **columns) for cue in cues
        )
        assert own > 2 * other
    assert one(of_low, quantity="cue_bias", inputs="adversarial", **at) is not None


def test_no_image_is_in_two_pairs_so_that_probes_are_scored_on_images_of_their_own(dataset, monkeypatch):
    drawn = []
    monkeypatch.setattr(study, "pairs", lambda *arguments: drawn.append(pairs(*arguments)) or drawn[0])
    network, variables = follower(LOW)
    study.measure(StudyInput(network, variables, dataset, PGD(eps=0.01, steps=1), 500, jax.random.key(0)))
    for place in (drawn[0].first, drawn[0].second):
        assert sorted(place) == list(range(36))


def test_levels_fit_the_image_and_small_images_are_refused():
    assert levels("hybrid", 8, 8) == (1.0, 2.0)
    assert levels("patches", 28, 30) == (2.0,)
    tiny = mj.data.from_arrays(np.zeros((4, 4, 4), np.uint8), np.arange(4) % 2)
    assert "smaller than 8 x 8" in (mj.studies.find("hybrid_conflict").unsupported_reason(tiny) or "")


def test_the_figures_are_drawn_from_the_records_and_say_how_many_choices_count(of_low, tmp_path):
    for training in ("nt", "at"):
        columns = {"training": training, "seed": 0, "checkpoint": "last", "epoch": 1, "step": 1}
        records.append(tmp_path, [dataclasses.replace(row, **columns) for row in of_low.records])
    write_arrays(tmp_path / "hybrid_conflict.npz", {f"{n}.nt.0": v for n, v in of_low.arrays.items()})
    run = run_records.read(tmp_path)
    for spec in mj.studies.find("hybrid_conflict").figures:
        assert spec.needs(run)
        assert spec.caption(run).endswith(".")
        assert spec.draw(run).axes
