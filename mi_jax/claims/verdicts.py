"""Claims, the statistics that test them, and the rules that turn a 95 % interval into a verdict."""

import math
from dataclasses import dataclass
from typing import Literal

from mi_jax.statistics.intervals import Interval

Verdict = Literal["supported", "not supported", "reversed", "undecided"]
Unit = Literal["bits", "nats", "points", "share", "correlation"]
"""Of a statistic; `share` is a fraction between 0 and 1, `points` a difference of two shares."""
SMALLEST = {"bits": 0.1, "accuracy": 0.01, "nats": 0.05, "shape bias": 0.05}
"""Differences within these count as none: bits of information, share of images, nats of loss, share of predictions."""


@dataclass(frozen=True, kw_only=True)
class ClaimStatistic:
    """One statistic with its 95 % interval over seeds and what it says about a claim.

    Attributes:
        name: what was computed.
        noise_rule: the noise rule under which it was measured; None if it needs none.
        value, low, high: the mean over seeds and the ends of its interval; None where they cannot be formed.
        unit: of the three.
        seeds: the number of values behind the interval.
        verdict: what the interval says about the claim.
        remark: why there is no value, or what qualifies it (which layers, which reference).
        decides: whether the claim's verdict depends on it; otherwise it is context.
    """

    name: str
    noise_rule: str | None
    value: float | None
    low: float | None
    high: float | None
    unit: Unit
    seeds: int
    verdict: Verdict
    remark: str = ""
    decides: bool = True


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim of the study, how it is tested, and the statistics that test it.

    Attributes:
        number: its place in the study.
        name: the claim in a few words.
        text: the claim as a sentence.
        method: how it is tested.
        statistics: what was computed.
        figures: the names of the figures that show it.
    """

    number: str
    name: str
    text: str
    method: str
    statistics: tuple[ClaimStatistic, ...]
    figures: tuple[str, ...]

    @property
    def needs_noise(self) -> bool:
        """Whether any statistic that decides depends on a noise rule."""
        return any(s.noise_rule is not None for s in self.statistics if s.decides)

    def deciding(self, noise_rule: str | None) -> tuple[ClaimStatistic, ...]:
        """The statistics that decide under a noise rule: those measured under it and those that need none."""
        return tuple(s for s in self.statistics if s.decides and s.noise_rule in (noise_rule, None))

    def verdict(self, noise_rule: str | None) -> Verdict:
        """The verdict under a noise rule. A claim asserts all its statistics at once, so the weakest one decides.

        Supported if every statistic is, reversed if every one is, not supported if any contradicts it, else undecided.
        Each is judged at 95 %. Supported and reversed, which all statistics must share, then hold at 95 % at least
        (intersection-union test, Berger 1982); a single statistic suffices for "not supported", which has no such
        guarantee.
        """
        verdicts = {statistic.verdict for statistic in self.deciding(noise_rule)}
        if verdicts == {"reversed"}:
            return "reversed"
        if verdicts & {"reversed", "not supported"}:
            return "not supported"
        return "undecided" if "undecided" in verdicts or not verdicts else "supported"

    def weakest(self, noise_rule: str | None) -> ClaimStatistic | None:
        """The statistic that settles the verdict: the first of those that contradict the claim most."""
        order = ("reversed", "not supported", "undecided", "supported")
        return min(self.deciding(noise_rule), key=lambda statistic: order.index(statistic.verdict), default=None)


def statistic(
    name: str,
    interval: Interval,
    unit: Unit,
    verdict: Verdict,
    remark: str,
    *,
    noise_rule: str | None = None,
    decides: bool = True,
) -> ClaimStatistic:
    """A `ClaimStatistic` from an interval; NaN becomes None, and a single seed is remarked on."""
    if interval.count == 1:
        remark = "; ".join(filter(None, ["one paired seed: an interval needs two", remark]))
    value, low, high = (None if math.isnan(number) else number for number in interval[:3])
    return ClaimStatistic(
        name=name,
        noise_rule=noise_rule,
        value=value,
        low=low,
        high=high,
        unit=unit,
        seeds=interval.count,
        verdict=verdict,
        remark=remark,
        decides=decides,
    )


def judge_difference(interval: Interval, *, sign: int, smallest: float) -> Verdict:
    """The verdict on "the difference has this sign", from its 95 % interval over seeds.

    Not supported where the whole interval lies within ±`smallest`, the smallest difference of interest; otherwise
    supported or reversed where the interval excludes 0, undecided where it does not.
    """
    if math.isnan(interval.low):
        return "undecided"
    if -smallest < interval.low and interval.high < smallest:
        return "not supported"
    if interval.low > 0 or interval.high < 0:
        return "supported" if (interval.low > 0) == (sign > 0) else "reversed"
    return "undecided"


def judge_threshold(interval: Interval, *, threshold: float, reversed_below: float = -math.inf) -> Verdict:
    """The verdict on "the value is at least `threshold`": by the side on which the whole 95 % interval lies.

    Reversed where the whole interval lies below `reversed_below` as well.
    """
    if math.isnan(interval.low):
        return "undecided"
    if interval.low >= threshold:
        return "supported"
    if interval.high < reversed_below:
        return "reversed"
    return "not supported" if interval.high < threshold else "undecided"
