"""Sparse-RS: its budget of pixels, its schedule, and its success against an exact bound for linear models."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax.attacks import SparseRS, sparse_rs
from mi_jax.attacks.sparse_rs import move_sizes
from mi_jax.errors import InputError

PIXELS = 4


@pytest.fixture(scope="module")
def attack(linear, softmax):
    """Sparse-RS on softmax regression; 40 images of 64 pixels."""
    return functools.partial(sparse_rs, linear, softmax.variables, softmax.images[:40], softmax.labels[:40])


@pytest.fixture(scope="module")
def by_queries(attack):
    return {queries: attack(3, config=SparseRS(pixels=PIXELS, queries=queries)) for queries in (10, 500)}


def reachable_margin(net, x, y):
    """The largest margin max_k z_k - z_y that any change of `PIXELS` pixels gives, for each image [n]."""
    w, b = np.asarray(net.variables["w"]), np.asarray(net.variables["b"])
    logits, best = x.reshape(len(x), -1) @ w + b, np.full(len(x), -np.inf)
    for k in range(10):
        slope = (w[:, k] - w[:, y].T).reshape(len(x), 64, 3)
        # Each channel moves to 0 or 1, whichever the slope favours.
        gain = np.where(slope > 0, slope * (1 - x.reshape(len(x), 64, 3)), -slope * x.reshape(len(x), 64, 3)).sum(2)
        reached = logits[:, k] - logits[np.arange(len(x)), y] + np.sort(gain, axis=1)[:, -PIXELS:].sum(1)
        best = np.maximum(best, np.where(y == k, -np.inf, reached))
    return best


def test_it_breaks_the_images_that_can_be_broken_and_more_of_them_with_more_queries(by_queries, linear, softmax):
    x, y = softmax.images[:40], softmax.labels[:40]
    bound = reachable_margin(softmax, x, y)
    rates = []
    for result in by_queries.values():
        logits = np.asarray(linear(softmax.variables, result.images))
        np.testing.assert_array_equal(result.success, logits.argmax(1) != y)
        assert np.all(result.loss <= bound + 1e-4), "beyond what any change of so many pixels can reach"
        rates.append(float(result.success.mean()))
    assert rates[0] < rates[1] <= np.mean(bound > 0)
    assert rates[1] > 0.9 * np.mean(bound > 0)


def test_at_most_k_pixels_change_and_clean_errors_none(by_queries, linear, softmax):
    x, y = softmax.images[:40], softmax.labels[:40]
    wrong = np.argmax(linear(softmax.variables, x), axis=1) != y
    assert wrong.any()
    for result in by_queries.values():
        changed = (np.asarray(result.images) != x).any(axis=3).sum(axis=(1, 2))
        np.testing.assert_array_equal(result.perturbation_norm, changed)
        np.testing.assert_array_equal(changed[~wrong], PIXELS)  # every new colour differs from the clean one
        assert not changed[wrong].any()
        values = np.asarray(result.images)[np.asarray(result.images) != x]
        assert set(values.tolist()) <= {0.0, 1.0}
        assert result.warnings == ()


def test_a_model_of_one_pixel_is_broken_by_one_pixel():
    def one_pixel(variables, x):
        lead = x[:, 2, 5, 0] - variables
        return jnp.stack([lead, -lead], axis=1)

    x = np.random.default_rng(0).uniform(0.6, 0.9, (20, 6, 6, 2)).astype(np.float32)
    result = sparse_rs(one_pixel, 0.5, x, np.zeros(20, np.int32), 0, config=SparseRS(pixels=1, queries=400))
    assert result.success.all()
    differs = (np.asarray(result.images) != x).any(axis=3)
    assert differs[:, 2, 5].all()
    assert differs.sum() == 20


def test_an_image_is_attacked_by_its_own_random_numbers_which_the_key_decides(attack, linear, softmax, by_queries):
    config = SparseRS(pixels=PIXELS, queries=10)
    np.testing.assert_array_equal(attack(3, config=config).images, by_queries[10].images)
    assert not np.array_equal(attack(4, config=config).images, by_queries[10].images)
    few = sparse_rs(linear, softmax.variables, softmax.images[:9], softmax.labels[:9], 3, config=config)
    np.testing.assert_array_equal(few.images, by_queries[10].images[:9])


def test_a_proposal_moves_the_pixels_of_the_published_schedule():
    sizes = move_sizes(SparseRS(pixels=150))
    assert [sizes[i] for i in (1, 50, 51, 201, 501, 1001, 2001, 4001, 6001, 10_000)] == [
        22, 22, 11, 9, 7, 5, 4, 3, 3, 2
    ]  # fmt: skip
    assert move_sizes(SparseRS(pixels=150, queries=1000))[1:8] == (22, 22, 22, 22, 22, 11, 11)
    assert move_sizes(SparseRS(pixels=150, queries=1000, rescale_schedule=False))[1:52] == (22,) * 50 + (11,)
    assert set(move_sizes(SparseRS(pixels=3))) == {1}


@pytest.mark.parametrize(
    ("expected", "options"),
    [
        ("Invalid pixels 0: expected a whole number", {"pixels": 0}),
        ("Invalid queries 0: expected a whole number", {"queries": 0}),
        ("Invalid alpha_init 0.0: expected a number in", {"alpha_init": 0.0}),
        ("pixels is 64, but images of 8 x 8 have 64; take fewer", {"pixels": 64}),
    ],
)
def test_bad_settings_raise_a_clear_error(attack, expected, options):
    with pytest.raises(InputError, match=expected):
        attack(0, config=SparseRS(**{"pixels": PIXELS} | options))
