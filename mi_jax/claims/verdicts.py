"""What a claim's statistic can show: findings, the rules that turn an interval into a verdict, and claims made of both.

It does not compute any statistic from records.
"""

import math
from dataclasses import dataclass
from typing import Literal

from mi_jax.statistics.intervals import Interval

Verdict = Literal["supported", "not supported", "reversed", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One statistic with its 95 % interval over seeds and what it says about a claim.

    `value`, `low`, `high` are None where the statistic could not be formed; `remark` then says why, and otherwise what
    a reader must know (which layers, which reference). A finding that does not `decide` is context. `noise rule` is the
    noise rule under which it was measured, None if the statistic needs none.
    """

    statistic: str
    noise_rule: str | None
    value: float | None
    low: float | None
    high: float | None
    unit: str
    seeds: int
    verdict: Verdict
    remark: str = ""
    decides: bool = True


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim of the study, how it is tested, and the findings; `figures` names the figures that show it.

    `name` says in a few words what `text` says in full.
    """

    number: str
    name: str
    text: str
    method: str
    findings: tuple[Finding, ...]
    figures: tuple[str, ...]

    def deciding(self, noise_rule: str | None) -> tuple[Finding, ...]:
        """The findings that decide under a noise rule: its own and those that need no rule."""
        return tuple(f for f in self.findings if f.decides and f.noise_rule in (noise_rule, None))

    def verdict(self, noise_rule: str | None) -> Verdict:
        """The verdict under a noise rule. A claim says all its findings at once, so the weakest one decides.

        Supported if every finding is, reversed if every finding is, not supported if any speaks against it, else
        undecided. (Each at 95 %. Supported and reversed, which all findings must share, then hold at 95 % at least, an
        intersection-union test, Berger 1982; one finding is enough for not supported, which has no such level.)
        """
        verdicts = {finding.verdict for finding in self.deciding(noise_rule)}
        if verdicts == {"reversed"}:
            return "reversed"
        if verdicts & {"reversed", "not supported"}:
            return "not supported"
        return "undecided" if "undecided" in verdicts or not verdicts else "supported"

    def weakest(self, noise_rule: str | None) -> Finding | None:
        """The finding that settles the verdict: the first of those that speak against the claim most."""
        order = ("reversed", "not supported", "undecided", "supported")
        return min(self.deciding(noise_rule), key=lambda finding: order.index(finding.verdict), default=None)


def judge_difference(interval: Interval, *, sign: int, smallest: float) -> Verdict:
    """Verdict on "the difference has this sign", from its 95 % interval over seeds.

    Not supported where the whole interval lies within +-`smallest`, the smallest difference of interest (there is none,
    or none that matters); otherwise supported or reversed where the interval excludes 0, undecided where it does not.
    """
    if math.isnan(interval.low):
        return "undecided"
    if -smallest < interval.low and interval.high < smallest:
        return "not supported"
    if interval.low > 0 or interval.high < 0:
        return "supported" if (interval.low > 0) == (sign > 0) else "reversed"
    return "undecided"


def judge_threshold(interval: Interval, *, threshold: float, reversed_below: float = -math.inf) -> Verdict:
    """Verdict on "the value is at least `threshold`": by the side on which the whole 95 % interval lies.

    Reversed where the interval lies below `reversed_below` as well.
    """
    if math.isnan(interval.low):
        return "undecided"
    if interval.low >= threshold:
        return "supported"
    if interval.high < reversed_below:
        return "reversed"
    return "not supported" if interval.high < threshold else "undecided"
