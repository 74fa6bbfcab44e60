"""The jackknife over images and the interval over seeds and images: closed forms, and its coverage."""

import numpy as np
import pytest

from mi_jax.statistics.jackknife import (
    BLOCKS,
    Sample,
    blocks_from_text,
    blocks_to_text,
    crossed,
    holm,
    image_blocks,
    means_without_block,
)


def test_without_interaction_the_variance_is_that_of_seeds_plus_that_of_images():
    rng = np.random.default_rng(0)
    seeds, images = rng.normal(size=4), rng.normal(size=100)
    each = seeds[:, None] + images
    without = np.stack([means_without_block(row) for row in each])
    found = crossed(lambda a: a.mean(), Sample(each.mean(axis=1), without))
    assert found.value == pytest.approx(each.mean())
    assert found.of_seeds == pytest.approx(seeds.var(ddof=1) / 4)
    blocks = np.array([images[image_blocks(100) == b].mean() for b in range(BLOCKS)])
    assert found.of_images == pytest.approx(blocks.var(ddof=1) / BLOCKS), "images do not average out over seeds"


def test_deviations_of_blocks_survive_as_text_and_give_the_same_error():
    values = 3.0 + 0.01 * np.random.default_rng(0).normal(size=BLOCKS)
    text = blocks_to_text(values)
    assert len(text) < 60
    np.testing.assert_allclose(blocks_from_text(text), values - values.mean(), atol=5.01e-6)
    assert blocks_to_text(np.array([1.0, np.inf])) is None


def test_holm_by_hand():
    # 0.01 x 4, then 0.02 x 3, then 0.03 x 2, then the largest seen.
    np.testing.assert_allclose(holm([0.03, 0.01, 0.04, 0.02]), [0.06, 0.04, 0.06, 0.06])


@pytest.mark.parametrize("weights", [(1.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (0.2, 1.0, 3.0)])
def test_the_interval_covers_the_population_in_95_per_cent_of_runs(weights):
    """Seeds, images and their interaction with the given variances of the mean."""
    rng = np.random.default_rng(0)
    seeds, runs = 3, 400
    covered = 0
    for _ in range(runs):
        a, b, ab = (scale**0.5 * rng.normal(size=size) for scale, size in zip(
            weights, ((seeds, 1), (1, BLOCKS), (seeds, BLOCKS)), strict=True))  # fmt: skip
        each = a * seeds**0.5 + b * BLOCKS**0.5 + ab * (seeds * BLOCKS) ** 0.5
        without = (each.sum(axis=1, keepdims=True) - each) / (BLOCKS - 1)
        interval = crossed(lambda x: x.mean(), Sample(each.mean(axis=1), without)).interval()
        covered += interval.low <= 0 <= interval.high
    assert covered / runs > 0.95 - 2 * (0.95 * 0.05 / runs) ** 0.5


def test_seeds_that_agree_exactly_are_no_evidence():
    same = crossed(lambda a: a.mean(axis=0), Sample(np.ones((2, 3))))
    np.testing.assert_array_equal(same.p_values(), np.ones(3))
