"""Claims, the statistics that test them, and the rules that turn 95 % intervals into verdicts."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mi_jax.records.labels import NOISE_RULE_NAMES
from mi_jax.statistics.intervals import Interval

Verdict = Literal["supported", "contradicted", "equivalent", "mixed", "undecided"]
"""Supported, or the opposite holds, or there is no difference of interest, or parts of the claim differ, or open."""
Unit = Literal["bits", "nats", "points", "share", "relative", "score", "ratio", "epochs"]
"""The unit of a statistic; `share` is a fraction between 0 and 1, `points` a difference of two shares, `relative` a
difference as a fraction of the baseline, `score` a difference of mean reciprocal ranks, `ratio` a ratio of two
distances."""
Criterion = Callable[[float, float], Verdict]
"""The verdict on the two ends of an interval."""
SMALLEST = {"relative": 0.05, "accuracy": 0.01, "nats": 0.05, "shape bias": 0.05, "sensitivity": 0.02, "bits": 0.05}
"""Intervals within these count as no difference: of the baseline's information, share of images, nats of loss, share of
predictions, reciprocal rank, bits of information."""
_SHOWN = {"points": 0.001, "share": 0.001, "relative": 0.001}
"""The last digit shown of a unit; 0.01 for any other."""
_LOOSE = 0.1
"""Part of an interval's half-width by which its ends may be off: they are estimates themselves."""
_MANY = 0.25
"""Share of layers with too few samples for the population from which a verdict is said to hold for the images only."""


@dataclass(frozen=True, kw_only=True)
class ClaimStatistic:
    """One statistic with its 95 % interval over seeds and images and what it says about a claim.

    Attributes:
        name: what was computed.
        noise_rule: the noise rule under which it was measured; None if it needs none.
        value, low, high: the value and the ends of its interval; None where they cannot be formed.
        unit: the unit of all three.
        seeds: the number of seeds behind the interval.
        verdict: what the interval says about the claim.
        alternatives: the other verdicts that it would have if an end of the interval moved by a tenth of its
            half-width, or within the digits shown.
        over_images: whether the interval contains the error over images as well as that over seeds.
        remark: why there is no value, or what qualifies it (which layers, which reference).
        decides: whether the claim's verdict depends on it; otherwise it is context.
        undersampled: in how many of its layers the sample is too small for the information of the population, and the
            number of its layers; (0, 0) where it is not of layers.
    """

    name: str
    noise_rule: str | None
    value: float | None
    low: float | None
    high: float | None
    unit: Unit
    seeds: int
    verdict: Verdict
    alternatives: frozenset[Verdict] = frozenset()
    over_images: bool = False
    remark: str = ""
    decides: bool = True
    undersampled: tuple[int, int] = (0, 0)

    @property
    def fragile(self) -> bool:
        """Whether it would have another verdict within the accuracy of its interval."""
        return bool(self.alternatives)


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
        scope: what the verdicts are about: data set, network, images; empty where nothing was measured.
    """

    number: str
    name: str
    text: str
    method: str
    statistics: tuple[ClaimStatistic, ...]
    figures: tuple[str, ...]
    scope: str = ""

    @property
    def needs_noise(self) -> bool:
        """Whether any statistic that decides depends on a noise rule."""
        return any(s.noise_rule is not None for s in self.statistics if s.decides)

    def deciding(self, noise_rule: str | None) -> tuple[ClaimStatistic, ...]:
        """The statistics that decide under a noise rule: those measured under it and those that need none."""
        return tuple(s for s in self.statistics if s.decides and s.noise_rule in (noise_rule, None))

    def verdict(self, noise_rule: str | None) -> Verdict:
        """The verdict under a noise rule: that which all its statistics share, see `joint`.

        Each statistic is tested at 95 %. As all must share a verdict, it then holds at 95 % at least, however many
        there are (intersection-union test, Berger 1982). Single layers, of which one may make it mixed, are to be
        tested at a family-wise error of 5 % over all its statistics.
        """
        return joint(statistic.verdict for statistic in self.deciding(noise_rule))

    def fragile(self, noise_rule: str | None) -> bool:
        """Whether an alternative of any one statistic changes the verdict."""
        return self._hangs_on_one(lambda claim: claim.verdict(noise_rule))

    def testable(self, noise_rules: Sequence[str]) -> tuple[str, ...]:
        """The noise rules under which some statistic has a value that decides.

        One that needs no noise rule, such as the noise grid, makes none testable where others are.
        """
        known = [s for s in self.statistics if s.decides and s.value is not None]
        own = tuple(rule for rule in noise_rules if any(s.noise_rule == rule for s in known))
        return own if own or not known else tuple(noise_rules)

    def combined(self, noise_rules: Sequence[str]) -> Verdict:
        """One verdict for all noise rules under which the claim can be tested."""
        return joint(self.verdict(rule) for rule in self.testable(noise_rules))

    def combined_is_fragile(self, noise_rules: Sequence[str]) -> bool:
        """Whether an alternative of any one statistic changes the combined verdict."""
        return self._hangs_on_one(lambda claim: claim.combined(noise_rules))

    def of_images_alone(self, noise_rules: Sequence[str]) -> str:
        """A remark if the verdict is not on the population: a quarter of the layers or more are undersampled.

        Bounds and Monte Carlo compare the information of the images measured, however few these are. Empty where the
        verdict is on the population, or not on layers.
        """
        parts = []
        for rule in self.testable(noise_rules):
            counts = [s.undersampled for s in self.deciding(rule) if s.value is not None]
            few, layers = max(counts, key=lambda count: (count[0], -count[1]))
            if layers and few >= _MANY * layers:
                noun = "layer" if layers == 1 else "layers"
                parts.append(f"{few} of {layers} {noun} ({NOISE_RULE_NAMES[rule].removesuffix(' noise rule')})")
        if not parts:
            return ""
        return f"for the images measured only, as they are too few for the population in {', '.join(parts)}"

    def _hangs_on_one(self, verdict: Callable[["Claim"], Verdict]) -> bool:
        for i, found in enumerate(self.statistics):
            for other in found.alternatives:
                changed = (*self.statistics[:i], replace(found, verdict=other), *self.statistics[i + 1 :])
                if verdict(replace(self, statistics=changed)) != verdict(self):
                    return True
        return False

    def weakest(self, noise_rule: str | None) -> ClaimStatistic | None:
        """The statistic that settles the verdict: the first of those that contradict the claim most."""
        order = ("contradicted", "mixed", "equivalent", "undecided", "supported")
        found, verdict = self.deciding(noise_rule), self.verdict(noise_rule)
        settling = [s for s in found if s.verdict == verdict] or found
        return min(settling, key=lambda statistic: order.index(statistic.verdict), default=None)


def joint(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict of several that must all hold: the one that they share; undecided if there are none.

    Mixed where one is, where some are supported and others contradicted, or where all are decided and differ; else
    undecided.

    Examples:
        >>> joint(["supported", "supported"]), joint(["supported", "undecided"]), joint(["supported", "equivalent"])
        ('supported', 'undecided', 'mixed')
    """
    found = set(verdicts)
    if len(found) == 1:
        return found.pop()
    if found >= {"supported", "contradicted"} or "mixed" in found:
        return "mixed"
    return "undecided" if "undecided" in found or not found else "mixed"


def statistic(
    name: str,
    interval: Interval,
    unit: Unit,
    criterion: Criterion,
    remark: str,
    *,
    noise_rule: str | None = None,
    decides: bool = True,
    over_images: bool = False,
    undersampled: tuple[int, int] = (0, 0),
) -> ClaimStatistic:
    """A `ClaimStatistic` from an interval; NaN becomes None, and a single seed is remarked on."""
    if interval.count == 1:
        remark = "; ".join(filter(None, ["one paired seed: an interval needs two", remark]))
    value, low, high = (None if math.isnan(number) else number for number in interval[:3])
    verdict, alternatives = verdict_on(interval, unit, criterion)
    return ClaimStatistic(
        name=name,
        noise_rule=noise_rule,
        value=value,
        low=low,
        high=high,
        unit=unit,
        seeds=interval.count,
        verdict=verdict,
        alternatives=alternatives,
        over_images=over_images,
        remark=remark,
        decides=decides,
        undersampled=undersampled,
    )


def verdict_on(interval: Interval, unit: Unit, criterion: Criterion) -> tuple[Verdict, frozenset[Verdict]]:
    """The verdict on an interval and its alternatives, see `ClaimStatistic`; undecided without an interval."""
    low, high = interval.low, interval.high
    if math.isnan(low) or math.isnan(high):
        return "undecided", frozenset()
    verdict, by = criterion(low, high), max(_SHOWN.get(unit, 0.01) / 2, _LOOSE * (high - low) / 2)
    moved: set[Verdict] = {
        criterion(low + a * by, max(low + a * by, high + b * by)) for a, b in itertools.product((-1, 1), repeat=2)
    }
    return verdict, frozenset(moved - {verdict})


def difference(*, sign: int, smallest: float) -> Criterion:
    """Decides "the difference has this sign".

    Equivalent where the whole interval lies within ±`smallest`, the smallest difference of interest (two one-sided
    tests, Schuirmann 1987); otherwise supported or contradicted where the interval excludes 0.
    """

    def criterion(low: float, high: float) -> Verdict:
        if -smallest < low and high < smallest:
            return "equivalent"
        if low > 0 or high < 0:
            return "supported" if (low > 0) == (sign > 0) else "contradicted"
        return "undecided"

    return criterion


def at_most(threshold: float) -> Criterion:
    """Decides "the value is at most `threshold`": by the side on which the whole interval lies."""

    def criterion(low: float, high: float) -> Verdict:
        if high <= threshold:
            return "supported"
        return "contradicted" if low > threshold else "undecided"

    return criterion


def context(low: float, high: float) -> Verdict:
    """Always undecided, for statistics that do not decide."""
    return "undecided"
