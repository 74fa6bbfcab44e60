"""Verdicts: which interval says what, and that a claim is only as strong as its weakest statistic."""

import math

import pytest

from mi_jax.claims.verdicts import Claim, ClaimStatistic, judge_difference, judge_threshold
from mi_jax.statistics.intervals import Interval


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-2.0, -0.5, "supported"),
        (0.5, 2.0, "reversed"),
        (-0.05, 0.04, "not supported"),
        (-0.09, -0.01, "not supported"),
        (-0.3, 0.05, "undecided"),
        (math.nan, math.nan, "undecided"),
    ],
)
def test_verdict_on_a_negative_difference(low, high, verdict):
    interval = Interval((low + high) / 2, low, high, 3)
    assert judge_difference(interval, sign=-1, smallest=0.1) == verdict
    swapped = {"supported": "reversed", "reversed": "supported"}
    assert judge_difference(interval, sign=+1, smallest=0.1) == swapped.get(verdict, verdict)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.75, 0.9, "supported"),
        (0.6, 0.9, "undecided"),
        (-0.2, 0.6, "not supported"),
        (-0.9, -0.1, "reversed"),
        (math.nan, math.nan, "undecided"),
    ],
)
def test_verdict_on_a_threshold(low, high, verdict):
    assert judge_threshold(Interval(0.0, low, high, 3), threshold=0.7, reversed_below=0.0) == verdict


def claim(*verdicts, context=()):
    statistics = [
        ClaimStatistic(
            name=verdict, noise_rule="fixed" if i else None, value=1.0, low=0.0, high=2.0, unit="bits",
            seeds=3, verdict=verdict, decides=i < len(verdicts),
        )
        for i, verdict in enumerate([*verdicts, *context])
    ]  # fmt: skip
    return Claim(number="1", name="n", text="t", method="m", statistics=tuple(statistics), figures=())


@pytest.mark.parametrize(
    ("verdicts", "expected", "weakest"),
    [
        (("supported", "supported"), "supported", 0),
        (("supported", "undecided"), "undecided", 1),
        (("undecided", "not supported"), "not supported", 1),
        (("supported", "reversed"), "not supported", 1),
        (("reversed", "reversed"), "reversed", 0),
    ],
)
def test_the_weakest_statistic_decides(verdicts, expected, weakest):
    tested = claim(*verdicts, context=("reversed",))
    assert tested.verdict("fixed") == expected
    assert tested.weakest("fixed") is tested.statistics[weakest]


def test_statistics_under_another_noise_rule_do_not_decide():
    tested = claim("supported", "reversed")
    assert tested.verdict("trace") == "supported"
    assert claim().verdict("trace") == "undecided"
    assert claim().weakest("trace") is None
