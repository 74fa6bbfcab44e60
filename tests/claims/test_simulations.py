"""Every claim simulated under its null and under a known effect: false verdicts in at most 5 % of runs, and power."""

import math
from collections import Counter

import numpy as np
import pytest

from mi_jax.claims.curves import Curves
from mi_jax.claims.extracts_less import effects_of
from mi_jax.claims.geometry import CRITERION, scale_minus_rest
from mi_jax.claims.paired import Compared
from mi_jax.claims.same_trend import ratio
from mi_jax.claims.trend_band import band
from mi_jax.claims.verdicts import SMALLEST, at_most, difference, verdict_on
from mi_jax.statistics.jackknife import BLOCKS, Sample, crossed, means_without_block

RUNS = 120
ALLOWED = 0.05 + 1.64 * math.sqrt(0.05 * 0.95 / RUNS)
"""5 % and the error of the simulation."""


def shares(draw):
    """Shares of the verdicts in `RUNS` runs of `draw(rng)`."""
    rng = np.random.default_rng(0)
    found = Counter(draw(rng) for _ in range(RUNS))
    return {verdict: count / RUNS for verdict, count in found.items()}


def false(found, *true):
    """Share of verdicts that are neither open nor true."""
    return sum(share for verdict, share in found.items() if verdict not in ("undecided", *true))


# Same trend

EPOCHS = np.arange(1, 12) / 11
TREND = 2 * (1 - np.exp(-4 * EPOCHS))


def curves(rng, mean, *, seeds=5, layers=4, spread=0.2):
    """Curves of a mean with smooth and with rough deviations of every seed and layer."""
    smooth = rng.normal(size=(2, seeds, layers, 1))
    rough = rng.normal(size=(seeds, layers, len(EPOCHS)))
    return mean + spread * (smooth[0] * np.sin(2 * EPOCHS) + smooth[1] * np.cos(3 * EPOCHS) + 0.3 * rough)


def trend_verdict(a, b):
    return verdict_on(ratio(a, b)[0], "ratio", at_most(math.sqrt(2)))[0]


def test_unrelated_random_walks_have_no_common_trend_and_no_opposed_one():
    def draw(rng):
        a, b = np.cumsum(rng.normal(size=(2, 5, 1, 11)), axis=-1)
        return trend_verdict(a, b)

    assert false(shares(draw)) <= ALLOWED


@pytest.mark.parametrize(
    ("mean", "true", "power"),
    [(TREND + 1, "supported", 0.65), (-TREND, "contradicted", 0.95), (2 * EPOCHS, "contradicted", 0.8)],
    ids=["the same", "opposed", "another rise"],
)
def test_the_same_trend_is_found_and_another_one_is_told_from_it(mean, true, power):
    spread = 0.2 if true == "supported" else 0.1
    found = shares(lambda rng: trend_verdict(curves(rng, TREND, spread=spread), curves(rng, mean, spread=spread)))
    assert found.get(true, 0) >= power
    assert false(found, true) <= ALLOWED


def test_trends_as_far_apart_as_seeds_are_called_the_same_or_not_in_5_per_cent():
    rng = np.random.default_rng(1)
    deviations = curves(rng, 0.0, seeds=500, layers=1)
    of_seeds = 2 * (deviations - deviations.mean(axis=-1, keepdims=True)).var(axis=0).mean()
    apart, trend = 2 * EPOCHS - TREND, TREND - TREND.mean()
    size = math.sqrt((of_seeds + 0.01 * (trend**2).mean()) / apart.var())
    found = shares(lambda rng: trend_verdict(curves(rng, TREND), curves(rng, TREND + size * apart)))
    assert found.get("supported", 0) <= ALLOWED
    assert found.get("contradicted", 0) <= ALLOWED


DEVIATIONS = {
    "smooth": lambda rng, seeds: curves(rng, 0.0, seeds=seeds),
    "fading": lambda rng, seeds: 3 * np.exp(-3 * EPOCHS) * curves(rng, 0.0, seeds=seeds),
    "walks": lambda rng, seeds: np.cumsum(rng.normal(size=(seeds, 4, len(EPOCHS))), axis=-1),
    "heavy tails": lambda rng, seeds: rng.standard_t(3, size=(seeds, 4, 1)) * rng.normal(size=(seeds, 4, len(EPOCHS))),
}


def share_excluded(deviations, *, seeds, apart=0.0, spread=1.0):
    """Share of runs in which the band excludes 0 at some epoch; curves differ by `apart` times another rise."""
    rng = np.random.default_rng(2)
    found = []
    for _ in range(RUNS):
        first, second = TREND + deviations(rng, seeds), TREND + 1 + spread * deviations(rng, seeds)
        found.append(band(Curves(first, second + apart * (2 * EPOCHS - TREND), [], EPOCHS)).outside.any())
    return np.mean(found)


@pytest.mark.parametrize("seeds", [3, 10])
@pytest.mark.parametrize("spread", [1.0, 3.0])
@pytest.mark.parametrize("kind", DEVIATIONS)
def test_the_band_of_trends_excludes_0_somewhere_in_at_most_5_per_cent_without_a_difference(kind, spread, seeds):
    assert share_excluded(DEVIATIONS[kind], seeds=seeds, spread=spread) <= ALLOWED


@pytest.mark.parametrize(("seeds", "apart", "power"), [(3, 1.0, 0.3), (3, 4.0, 0.9), (5, 1.0, 0.95), (10, 0.5, 0.95)])
def test_the_band_of_trends_finds_another_rise(seeds, apart, power):
    assert share_excluded(DEVIATIONS["smooth"], seeds=seeds, apart=apart) >= power


# Less information


def information(rng, effect, *, seeds=5, layers=6):
    """Two trainings of `layers` layers whose information differs by a share, with errors of seeds and of images."""
    level = np.linspace(6, 2, layers) * np.array([1, 1 + effect])[:, None, None]
    values = level + 0.1 * rng.normal(size=(2, seeds, 1)) + 0.05 * rng.normal(size=(2, seeds, layers))
    images = 0.1 * rng.normal(size=(2, 1, BLOCKS, layers)) + 0.05 * rng.normal(size=(2, seeds, BLOCKS, layers))
    values = values + images.mean(axis=2)
    without = values[:, :, None] - (images - images.mean(axis=2, keepdims=True)) / (BLOCKS - 1)
    open_ = np.zeros((seeds, layers), bool)
    first, second = (Sample(*part) for part in zip(values, without, strict=True))
    cells = [str(k) for k in range(layers)]
    return Compared(first, second, open_, open_, 10.0, list(range(seeds)), cells, left_out_seeds=[], left_out_cells=[])


@pytest.mark.parametrize(
    ("effect", "true", "power"),
    [(0.0, "equivalent", 0.4), (-0.15, "supported", 0.9), (0.15, "contradicted", 0.9), (0.05, "contradicted", 0.0)],
)
def test_less_information_is_found_and_none_invented(effect, true, power):
    def draw(rng):
        (found,) = effects_of([information(rng, effect)])
        return verdict_on(found.interval, "relative", found.criterion)[0]

    found = shares(draw)
    assert found.get(true, 0) >= power
    assert false(found, true) <= ALLOWED


# Shape, and accuracy: shares of images that all seeds share


def decisions(rng, bias, *, seeds=3, images=300, coverage=0.8):
    """Per seed and image, whether the shape or the texture decides; images and seeds lean to either side."""
    lean = rng.normal(size=images) + 0.3 * rng.normal(size=(seeds, 1)) + rng.normal(size=(seeds, images))
    shape = lean / math.sqrt(2.09) < np.quantile(np.random.default_rng(9).normal(size=4000), bias)
    decided = rng.random((seeds, images)) < coverage
    return np.stack([shape & decided, decided], axis=-1).astype(float)


def bias_sample(each):
    without = np.stack([means_without_block(seed) for seed in each])
    means = each.mean(axis=1)
    return Sample(means[:, 0] / means[:, 1], without[..., 0] / without[..., 1])


@pytest.mark.parametrize(
    ("biases", "true", "power"),
    [((0.5, 0.5), "equivalent", 0.0), ((0.3, 0.8), "supported", 0.6), ((0.7, 0.3), "contradicted", 0.5)],
)
def test_a_change_of_shape_bias_is_found_and_none_invented(biases, true, power):
    judge = difference(sign=+1, smallest=SMALLEST["shape bias"])

    def draw(rng):
        first, second = (bias_sample(decisions(rng, bias)) for bias in biases)
        return verdict_on(crossed(lambda a, b: (b - a).mean(), first, second).interval(), "points", judge)[0]

    found = shares(draw)
    assert found.get(true, 0) >= power
    assert false(found, true) <= ALLOWED


def test_four_of_nine_against_five_of_nine_in_three_seeds_decides_nothing():
    def share(hits):
        each = np.zeros((3, 9, 2))
        each[..., 1], each[:, :hits, 0] = 1, 1
        return bias_sample(each)

    interval = crossed(lambda a, b: (b - a).mean(), share(4), share(5)).interval()
    assert verdict_on(interval, "points", difference(sign=+1, smallest=SMALLEST["shape bias"]))[0] == "undecided"


@pytest.mark.parametrize(("drop", "true", "power"), [(0.0, "equivalent", 0.0), (0.08, "supported", 0.7)])
def test_a_loss_of_accuracy_is_found_and_none_invented(drop, true, power):
    judge = difference(sign=-1, smallest=SMALLEST["accuracy"])

    def draw(rng):
        hard = rng.random(1000)  # the same images are hard for all networks
        samples = []
        for lost in (0.0, drop):
            rate = 0.1 + lost + 0.005 * rng.normal(size=(3, 1))
            right = 0.7 * hard + 0.3 * rng.random((3, 1000)) > np.quantile(0.7 * hard + 0.3 * 0.5, rate)
            without = np.stack([means_without_block(seed) for seed in right])
            samples.append(Sample(right.mean(axis=1), without))
        return verdict_on(crossed(lambda a, b: (b - a).mean(), *samples).interval(), "points", judge)[0]

    found = shares(draw)
    assert found.get(true, 0) >= power
    assert false(found, true) <= ALLOWED


# Geometry


@pytest.mark.parametrize(
    ("scale", "rest", "true", "power"),
    [
        ((0.0, 1.0), (0.0, 1.0), "equivalent", 0.0),
        ((0.0, 1.0), (0.0, 0.3), "equivalent", 0.0),
        ((0.5, 0.3), (0.5, 0.3), "equivalent", 0.0),
        ((0.0, 0.02), (0.0, 0.02), "equivalent", 0.9),
        ((1.0, 0.3), (0.2, 0.2), "supported", 0.85),
        ((0.2, 0.2), (1.0, 0.3), "contradicted", 0.85),
    ],
    ids=["noise", "unequal noise", "equal parts", "neither", "scale", "rest"],
)
def test_scale_is_found_where_it_is_and_not_in_noise(scale, rest, true, power):
    def draw(rng):
        parts = [mean + spread * rng.normal(size=(3, 9)) for mean, spread in (scale, rest)]
        return verdict_on(scale_minus_rest(*parts), "bits", CRITERION)[0]

    found = shares(draw)
    assert found.get(true, 0) >= power
    assert false(found, true) <= ALLOWED
