"""The tables of the report page as HTML: claims, headline accuracies, failed estimates.

It formats numbers; what they are is decided by claims and intervals. Every text is escaped.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape

import pandas as pd

from mi_jax.claims.claims import evaluate
from mi_jax.claims.paired import shares_noise
from mi_jax.claims.verdicts import Claim, Finding
from mi_jax.plotting import captions
from mi_jax.records.labels import DASH, MINUS, NOISE_RULE_NAMES, name_of
from mi_jax.records.run_records import RunRecords, noise_rules
from mi_jax.report.figures.training import accuracies
from mi_jax.statistics.intervals import Table, accuracy_over_seeds

_MOST_FAILURES = 50
_UNITS = {"bits": " bits", "nats": " nats", "share": " %", "points": " points"}
_PERCENT = ("share", "points")


def number(value: float | None, unit: str = "", *, signed: bool = False) -> str:
    """A number for reading: shares in per cent and their differences in points, with a true minus sign.

    >>> number(0.8312, "bits", signed=True), number(0.5, "share")
    ('+0.83 bits', '50.0 %')
    """
    if value is None or math.isnan(value):
        return DASH
    sign = "+" if signed else ""
    digits = f"{100 * value:{sign}.1f}" if unit in _PERCENT else f"{value:{sign}.{2 if abs(value) < 100 else 0}f}"
    return digits.replace("-", MINUS) + _UNITS.get(unit, "")


def interval(low: float | None, high: float | None, unit: str = "") -> str:
    """The ends of an interval in brackets, or nothing if there is none."""
    if low is None or high is None or math.isnan(low):
        return ""
    scale, digits = (100, 1) if unit in _PERCENT else (1, 2)
    return f"[{scale * low:.{digits}f}, {scale * high:.{digits}f}]".replace("-", MINUS)


def claims(run_records: RunRecords, shown: Mapping[str, str], baseline: str, treated: str) -> str:
    """The claims with a verdict under each noise rule, and every statistic behind them folded below each.

    `shown` maps the names of the figures on the page to their titles.
    """
    found, judged_by = evaluate(run_records, baseline=baseline, treated=treated), noise_rules(run_records)
    heads = "".join(f"<th>{escape(NOISE_RULE_NAMES[noise_rule].capitalize())}</th>" for noise_rule in judged_by)
    rows = "".join(_claim_row(claim, judged_by, shown) for claim in found)
    return (
        f'<table class="claims"><caption>{escape(name_of(treated))} against {escape(name_of(baseline))}, paired '
        "by seed; brackets are "
        f"95 % intervals over seeds, not corrected for the number of claims.</caption><thead><tr><th>Claim</th>{heads}"
        f"<th>Shown in</th></tr></thead><tbody>{rows}</tbody></table>{_method(found)}"
    )


def _claim_row(claim: Claim, judged_by: Sequence[str], shown: Mapping[str, str]) -> str:
    if all(finding.noise_rule is None for finding in claim.findings if finding.decides):
        cells = f'<td colspan="{len(judged_by)}" data-label="Verdict">{_verdict(claim, None)}</td>'
    else:
        cells = "".join(
            f'<td data-label="{escape(NOISE_RULE_NAMES[noise_rule].capitalize())}">{_verdict(claim, noise_rule)}</td>'
            for noise_rule in judged_by
        )
    links = "<br>".join(
        f'<a href="#{escape(name)}">{escape(shown[name])}</a>' for name in claim.figures if name in shown
    )
    return (
        f'<tr><th scope="row"><span class="number">{escape(claim.number)}</span> {escape(claim.text)}</th>{cells}'
        f'<td data-label="Shown in">{links or DASH}</td></tr>'
    )


def _verdict(claim: Claim, noise_rule: str | None) -> str:
    finding, verdict = claim.weakest(noise_rule), claim.verdict(noise_rule)
    badge = f'<span class="verdict {verdict.replace(" ", "-")}">{verdict}</span>'
    if finding is None:
        return badge
    if finding.value is None:
        return f'{badge}<span class="why">{escape(finding.remark)}</span>'
    return f'{badge}<span class="value">{value_of(finding)}</span><span class="why">{escape(finding.statistic)}</span>'


def value_of(finding: Finding) -> str:
    """The value of a statistic with its interval."""
    signed = finding.unit in ("bits", "nats", "points")
    symbol = "\N{GREEK SMALL LETTER RHO} = " if finding.unit == "correlation" else ""
    ends = interval(finding.low, finding.high, finding.unit)
    return f"{symbol}{number(finding.value, finding.unit, signed=signed)} {ends}"


def _method(found: Sequence[Claim]) -> str:
    blocks = []
    for claim in found:
        rows = "".join(
            f'<tr{"" if f.decides else " class=context"}><th scope="row">{escape(f.statistic)}</th>'
            f'<td data-label="Noise rule">{escape(NOISE_RULE_NAMES[f.noise_rule] if f.noise_rule else DASH)}</td>'
            f'<td data-label="Value">{value_of(f)}</td>'
            f'<td data-label="Seeds">{f.seeds}</td><td data-label="Verdict">{_own_verdict(f)}</td>'
            f'<td data-label="Remark">{escape(f.remark)}</td></tr>'
            for f in claim.findings
        )
        blocks.append(
            f"<h4>Claim {escape(claim.number)}</h4><p>{escape(claim.method)}</p>"
            "<table><thead><tr><th>Statistic</th><th>Noise rule</th>"
            f"<th>Value</th><th>Seeds</th><th>Verdict</th><th>Remark</th></tr></thead><tbody>{rows}</tbody></table>"
        )
    return f"<details><summary>What exactly was computed, and every statistic</summary>{''.join(blocks)}</details>"


def _own_verdict(finding: Finding) -> str:
    """The verdict of one statistic; context that is not judged has none."""
    return DASH if not finding.decides and finding.noise_rule else finding.verdict


def noise_rules_in_words(run_records: RunRecords, pair: tuple[str, str]) -> str:
    """What the noise rules were in this run, and which of them leave differences in scale between the trainings in."""
    sentences = []
    for noise_rule in noise_rules(run_records):
        rows = run_records.select(
            quantity="i_tx_upper", estimator="kde", noise_rule=noise_rule, inputs="clean", subset=None
        )
        if rows.empty:
            sentences.append(f"{NOISE_RULE_NAMES[noise_rule].capitalize()}: not measured.")
            continue
        sentences.append(f"{NOISE_RULE_NAMES[noise_rule].capitalize()}: {captions.noise(rows)}, {captions.samples(rows)}.")
        if noise_rule != "fixed" and shares_noise(rows, pair):
            sentences.append(
                "Being shared, it sets a useful level but leaves a difference in scale between trainings in."
            )
    return " ".join(sentences)


def headline(run_records: RunRecords) -> str:
    """Accuracy at the end of training: a row a training, clean and under each attack, with intervals."""
    table = accuracies(run_records)
    if table.empty:
        return "<p>No test accuracy was recorded.</p>"
    attacks = list(table["attack"].unique())
    counts = table.groupby("attack")["n"].min()
    heads = "".join(f"<th>{escape(attack)}{_images(counts[attack])}</th>" for attack in attacks)
    rows = []
    for training in run_records.trainings:
        mine = table[table["training"] == training].set_index("attack")
        if mine.empty:
            continue
        cells = "".join(
            f'<td data-label="{escape(attack)}">{_accuracy(mine.loc[attack]) if attack in mine.index else DASH}</td>'
            for attack in attacks
        )
        rows.append(
            f'<tr><th scope="row">{escape(name_of(training))}</th>{cells}'
            f'<td data-label="Seeds">{mine["seeds"].max()}</td></tr>'
        )
    over_seeds = " and Student's t over seeds" if table["seeds"].max() > 1 else ", there being one seed"
    kind = f"that enclose Wilson's over images{over_seeds}"
    return (
        f'<table class="headline"><caption>Test accuracy at the end of training; brackets are 95 % intervals '
        f"{kind}.</caption><thead><tr><th>Training</th>{heads}<th>Seeds</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _images(n: object) -> str:
    return "" if n is pd.NA else f'<span class="why">{n} images</span>'


def _accuracy(row: Table) -> str:
    ends = interval(row["low"], row["high"], "share")
    return f'<span class="value">{number(row["mean"], "share")}</span> <span class="ends">{ends}</span>'


def transfers(run_records: RunRecords) -> str:
    """Accuracy of every training on adversarial images made on the others; nothing where that was not measured."""
    rows = run_records.select(quantity="transfer_accuracy")
    if rows.empty:
        return ""
    table = accuracy_over_seeds(rows.assign(source=rows["subset"].str.removeprefix("source=")), ["training", "source"])
    known = table.set_index(["training", "source"])
    heads = "".join(f"<th>made on {escape(name_of(source))}</th>" for source in run_records.trainings)
    body = ""
    for target in run_records.trainings:
        cells = ""
        for source in run_records.trainings:
            found = (target, source) in known.index
            value = _accuracy(known.loc[(target, source)]) if found else DASH
            cells += f'<td data-label="made on {escape(name_of(source))}">{value}</td>'
        body += f'<tr><th scope="row">{escape(name_of(target))}</th>{cells}</tr>'
    made = "the strong PGD attack of the final evaluation, on networks of the same seed"
    return (
        f"<table><caption>Transfer: accuracy of each training (rows) on adversarial images made by {made}; "
        "brackets are 95 % intervals that enclose Wilson's over images and Student's t over seeds.</caption>"
        f"<thead><tr><th>Training</th>{heads}</tr></thead><tbody>{body}</tbody></table>"
    )


def self_checks(run_records: RunRecords) -> str:
    """What the self-checks of the attacks say of each training: whether robust accuracies can be believed."""
    counts, signs = run_records.select(quantity="attack_checks"), run_records.select(quantity="attack_sign")
    if counts.empty:
        command = "<code>python experiments/study.py autoattack RUN_DIR</code>"
        return f'<p class="small">The attacks were not checked for signs of masked gradients: {command}</p>'
    items = []
    for training in run_records.trainings:
        mine = counts[counts["training"] == training]
        if mine.empty:
            continue
        notes = [note for note in dict.fromkeys(signs[signs["training"] == training]["note"].dropna()) if note]
        passed = f"{int((mine['value'] == 0).sum())} of {len(mine)} seeds passed"
        items.append(f"<li><b>{escape(name_of(training))}</b>: {passed}. {escape(' '.join(notes))}</li>")
    return f"<p>Signs that the attacks mislead, such as masked gradients:</p><ul>{''.join(items)}</ul>"


def failures(run_records: RunRecords) -> str:
    """The estimates that failed, with their reasons; a sentence if none did."""
    failed = run_records.failed
    if failed.empty:
        return "<p>No estimate failed.</p>"
    columns = ["training", "seed", "epoch", "inputs", "layer", "estimator", "quantity", "note"]
    heads = "".join(f"<th>{column}</th>" for column in columns)
    rows = "".join(
        "<tr>" + "".join(f'<td data-label="{c}">{_cell(row[c])}</td>' for c in columns) + "</tr>"
        for _, row in failed.head(_MOST_FAILURES).iterrows()
    )
    more = f"<p>and {len(failed) - _MOST_FAILURES} more in the records.</p>" if len(failed) > _MOST_FAILURES else ""
    count = f"{len(failed)} estimate{'s' if len(failed) > 1 else ''} failed"
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<details open><summary>{count}</summary>{table}{more}</details>"


def _cell(value: object) -> str:
    if value is None or value is pd.NA or value != value:
        return DASH
    return escape(f"{value:g}" if isinstance(value, float) else str(value))
