"""Verdicts: which interval says what, when it is fragile, and how the statistics of a claim join."""

import dataclasses
import math

import pytest

from mi_jax.claims.verdicts import Claim, ClaimStatistic, at_most, difference, verdict_on
from mi_jax.statistics.intervals import Interval


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-2.0, -0.5, "supported"),
        (0.5, 2.0, "contradicted"),
        (-0.05, 0.04, "equivalent"),
        (-0.09, -0.01, "equivalent"),
        (-0.3, 0.05, "undecided"),
    ],
)
def test_verdict_on_a_negative_difference(low, high, verdict):
    assert difference(sign=-1, smallest=0.1)(low, high) == verdict
    swapped = {"supported": "contradicted", "contradicted": "supported"}
    assert difference(sign=+1, smallest=0.1)(low, high) == swapped.get(verdict, verdict)


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.5, 0.7, "supported"), (0.6, 0.9, "undecided"), (0.8, 0.9, "contradicted")]
)
def test_verdict_on_a_threshold(low, high, verdict):
    assert at_most(0.75)(low, high) == verdict


@pytest.mark.parametrize(
    ("low", "high", "unit", "expected"),
    [
        (0.001, 0.761, "points", ("supported", True)),
        (0.05, 0.761, "points", ("supported", False)),
        (-0.02, 0.761, "points", ("undecided", True)),
        (-0.4, 0.8, "points", ("undecided", False)),
        (0.004, 0.5, "bits", ("supported", True)),
        (-0.0499, 0.0, "bits", ("equivalent", True)),
        (math.nan, math.nan, "bits", ("undecided", False)),
    ],
)
def test_a_verdict_is_fragile_where_it_hangs_on_a_tenth_of_the_half_width_or_on_rounding(low, high, unit, expected):
    verdict, others = verdict_on(Interval((low + high) / 2, low, high, 3), unit, difference(sign=+1, smallest=0.05))
    assert (verdict, bool(others)) == expected


def claim(*verdicts, context=(), others=()):
    """A claim of statistics with these verdicts; `others` has the alternatives of some by their place."""
    statistics = [
        ClaimStatistic(
            name=verdict, noise_rule="fixed" if i else None, value=1.0, low=0.0, high=2.0, unit="bits",
            seeds=3, verdict=verdict, decides=i < len(verdicts),
            alternatives=frozenset(dict(others).get(i, ())),
        )
        for i, verdict in enumerate([*verdicts, *context])
    ]  # fmt: skip
    return Claim(number="1", name="n", text="t", method="m", statistics=tuple(statistics), figures=())


@pytest.mark.parametrize(
    ("verdicts", "expected", "weakest"),
    [
        (("supported", "supported"), "supported", 0),
        (("supported", "undecided"), "undecided", 1),
        (("contradicted", "undecided"), "undecided", 1),
        (("supported", "equivalent"), "mixed", 1),
        (("supported", "contradicted"), "mixed", 1),
        (("supported", "mixed"), "mixed", 1),
        (("contradicted", "contradicted"), "contradicted", 0),
        (("equivalent", "equivalent"), "equivalent", 0),
    ],
)
def test_a_claim_has_the_verdict_that_all_its_statistics_share(verdicts, expected, weakest):
    tested = claim(*verdicts, context=("contradicted",))
    assert tested.verdict("fixed") == expected
    assert tested.weakest("fixed") is tested.statistics[weakest]


def test_statistics_under_another_noise_rule_do_not_decide():
    tested = claim("supported", "contradicted")
    assert tested.verdict("trace") == "supported"
    assert tested.combined(("fixed", "trace")) == "mixed"
    assert claim().verdict("trace") == claim().combined(("fixed", "trace")) == "undecided"
    assert claim().weakest("trace") is None


def test_a_claim_is_fragile_where_an_alternative_of_one_statistic_changes_its_verdict():
    second = [(1, {"undecided"})]
    assert claim("supported", "supported", others=second).fragile("fixed")
    assert claim("supported", "supported", others=second).combined_is_fragile(("fixed", "trace"))
    assert not claim("supported", "supported", others=second).fragile("trace")
    second = [(1, {"supported"})]
    assert not claim("undecided", "undecided", others=second).fragile("fixed"), "the other one stays undecided"
    assert claim("supported", "undecided", others=second).fragile("fixed")
    second = [(1, {"contradicted"})]
    assert claim("supported", "undecided", "undecided", others=second).fragile("fixed"), "it would be mixed"
    assert not claim("supported", "contradicted", "undecided", others=[(2, {"supported"})]).fragile("fixed")


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (
            ((6, 9), (8, 9)),
            "for the images measured only, as they are too few for the population in 8 of 9 layers (fixed)",
        ),
        (
            ((0, 9), (3, 9)),
            "for the images measured only, as they are too few for the population in 3 of 9 layers (fixed)",
        ),
        (((2, 9), (2, 9)), ""),
        (((0, 0), (0, 0)), ""),
    ],
)
def test_a_verdict_says_that_it_is_on_the_images_where_many_layers_have_too_few(counts, words):
    tested = claim("supported", "supported", "supported")
    statistics = [
        dataclasses.replace(one, undersampled=count, noise_rule="fixed")
        for one, count in zip(tested.statistics, (*counts, (0, 0)), strict=True)
    ]
    tested = dataclasses.replace(tested, statistics=tuple(statistics))
    assert tested.of_images_alone(("fixed", "trace")) == words
    assert tested.combined(("fixed",)) == "supported"
