"""Splits, balanced limits and the digits."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

import mi_jax as mj
from mi_jax.data.dataset import balanced_order, stratified_rows
from mi_jax.errors import InputError


@pytest.fixture(scope="module")
def digits():
    return mj.data.load("digits")


def test_digits_are_scikit_learns_stretched_to_bytes(digits):
    together = np.concatenate([digits.train.images, digits.test.images])
    labels = np.concatenate([digits.train.labels, digits.test.labels])
    pixels, target = load_digits(return_X_y=True)
    ours = {
        (image.tobytes(), label) for image, label in zip(np.round(together[..., 0] / 255 * 16), labels, strict=True)
    }
    assert together.shape == (1797, 8, 8, 1)
    assert together.dtype == np.uint8
    assert ours == {(i.tobytes(), t) for i, t in zip(np.reshape(pixels, (-1, 8, 8)), target, strict=True)}
    assert digits.num_classes == 10
    assert digits.input_shape == (8, 8, 1)


def test_digits_split_is_stratified_disjoint_and_fixed(digits):
    again = mj.data.load("digits")
    np.testing.assert_array_equal(digits.test.images, again.test.images)
    share = np.bincount(digits.test.labels) / (np.bincount(digits.test.labels) + np.bincount(digits.train.labels))
    np.testing.assert_allclose(share, 0.2, atol=0.003)
    assert len(digits.test) == 359


def test_limit_takes_balanced_prefixes_of_one_order(digits):
    small, large = mj.data.load("digits", limit=50), mj.data.load("digits", limit=200)
    assert np.array_equal(np.bincount(small.train.labels), np.full(10, 5))
    np.testing.assert_array_equal(large.train.images[:50], small.train.images)
    assert len(mj.data.load("digits", limit=10**6).test) == 359


def test_balanced_order_is_a_permutation_with_every_prefix_as_even_as_the_classes_last():
    labels = np.repeat([0, 1, 2], [3, 50, 20])
    order = balanced_order(labels, seed=4)
    assert np.array_equal(np.sort(order), np.arange(73))
    for n in range(1, 74):
        counts = np.bincount(labels[order[:n]], minlength=3)
        room = counts < [3, 50, 20]
        assert not room.any() or counts.max() - counts[room].min() <= 1
    assert not np.array_equal(order, balanced_order(labels, seed=5))


def test_taking_keeps_factors_with_their_images():
    dataset = mj.data.load("shapetex", limit=30)
    taken = dataset.train.take(np.array([7, 3]))
    for cue, values in dataset.train.factors.items():
        np.testing.assert_array_equal(taken.factors[cue], values[[7, 3]])
    np.testing.assert_array_equal(taken.images, dataset.train.images[[7, 3]])


@pytest.mark.parametrize(
    ("labels", "factors", "said"), [(3, {}, "labels of length 3"), (4, {"shape": 5}, "shape of length 5")]
)
@pytest.mark.usefixtures("as_a_user")
def test_a_split_of_unequal_lengths_is_refused(labels, factors, said):
    images = np.zeros((4, 2, 2, 1), np.uint8)
    with pytest.raises(InputError, match=rf"^A split needs one label and one value .*; got 4 images and {said}\.$"):
        mj.data.Split(
            images, np.zeros(labels, np.int32), {cue: np.zeros(count, np.int32) for cue, count in factors.items()}
        )


@pytest.mark.parametrize("limit", [0, -3, 2.5, True])
@pytest.mark.parametrize("name", ["digits", "shapetex"])
@pytest.mark.usefixtures("as_a_user")
def test_limits_that_are_not_counts_are_refused(name, limit):
    with pytest.raises(InputError, match=r"Invalid limit .*: expected a whole number of at least 1"):
        mj.data.load(name, limit=limit)


@pytest.mark.parametrize("name", [Path("pictures"), None, 5])
@pytest.mark.usefixtures("as_a_user")
def test_a_name_that_is_no_string_is_refused(name):
    with pytest.raises(InputError, match=r"is named by a string, such as 'digits', 'folder:PATH' or .*; got .*\."):
        mj.data.load(name)


def test_a_small_class_is_divided_in_proportion_and_never_whole():
    labels = np.repeat(np.arange(4), [960, 20, 20, 1])
    for share, counts in ((0.2, [192, 4, 4, 0]), (0.02, [19, 1, 1, 0]), (0.99, [950, 19, 19, 0])):
        assert np.bincount(labels[stratified_rows(labels, share)], minlength=4).tolist() == counts


@pytest.mark.usefixtures("as_a_user")
def test_a_stratified_share_takes_labels_of_any_kind_and_refuses_what_is_no_share():
    labels = [0, 0, 0, 0, 1, 1, 1, 1]
    assert stratified_rows(labels, 0.25).tolist() == stratified_rows(np.array(labels), 0.25).tolist()
    assert np.array(labels)[stratified_rows(labels, 0.25)].tolist() == [0, 1]
    for share in (1.0, -0.1, np.nan, "0.5", None):
        with pytest.raises(InputError, match=r"^Invalid share .*: expected a number in \[0, 1\)"):
            stratified_rows(labels, share)
    with pytest.raises(InputError, match=r"^Labels must be integers of shape \[8\]"):
        stratified_rows(np.eye(2)[labels[:4]], 0.5)
