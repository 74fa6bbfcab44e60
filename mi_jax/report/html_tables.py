"""The tables of the report page as HTML: claims, accuracies, transfer, sanity checks, failed estimates.

All text is escaped.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape

import pandas as pd

from mi_jax.claims import Claim, ClaimStatistic
from mi_jax.claims.paired import Pair, layer_information, shares_noise
from mi_jax.plotting import captions
from mi_jax.records.labels import DASH, MINUS, NOISE_RULE_NAMES, attack_labels, counted, name_of
from mi_jax.records.run_records import RunRecords
from mi_jax.report import tables
from mi_jax.report.tables import OVER_BOTH
from mi_jax.statistics.intervals import Table

_MOST_FAILURES = 50
_UNITS = {"bits": " bits", "nats": " nats", "share": " %", "points": " points", "relative": " %", "epochs": " epochs"}
_PERCENT = ("share", "points", "relative")
_SIGNED = ("bits", "nats", "points", "relative", "score", "epochs")


def number(value: float | None, unit: str = "", *, signed: bool = False) -> str:
    """A number as text: shares in per cent and their differences in points, with a true minus sign.

    >>> number(0.8312, "bits", signed=True), number(0.5, "share")
    ('+0.83 bits', '50.0 %')
    """
    if value is None or math.isnan(value):
        return DASH
    sign = "+" if signed else ""
    digits = f"{100 * value:{sign}z.1f}" if unit in _PERCENT else f"{value:{sign}z.{2 if abs(value) < 100 else 0}f}"
    return digits.replace("-", MINUS) + _UNITS.get(unit, "")


def interval(low: float | None, high: float | None, unit: str = "") -> str:
    """The ends of an interval in brackets, or nothing if there is none.

    >>> interval(-0.0052, -0.0002, "points"), interval(0.0, 0.005, "share")
    ('[−0.52, −0.02]', '[0.0, 0.5]')
    """
    if low is None or high is None or math.isnan(low):
        return ""
    scale, digits = (100, 1) if unit in _PERCENT else (1, 2)
    # An end near 0 has one digit more, which tells on which side it is.
    digits += any(end and abs(scale * end) < 0.5 * 10.0**-digits for end in (low, high))
    return f"[{scale * low:z.{digits}f}, {scale * high:z.{digits}f}]".replace("-", MINUS)


def value_of(statistic: ClaimStatistic) -> str:
    """The value of a statistic with its interval."""
    signed = statistic.unit in _SIGNED
    symbol = "ratio " if statistic.unit == "ratio" else ""
    ends = interval(statistic.low, statistic.high, statistic.unit)
    return f"{symbol}{number(statistic.value, statistic.unit, signed=signed)} {ends}".rstrip()


def claims(run_records: RunRecords, found: Sequence[Claim], shown: Mapping[str, str], pair: Pair) -> str:
    """The claims with a verdict under each noise rule, and every statistic behind them folded below.

    Args:
        run_records: the records of the run.
        found: the claims for the pair.
        shown: titles of the figures on the page by name.
        pair: the baseline and the training that is compared with it.
    """
    rules = run_records.noise_rules
    body = [
        [
            f'<th scope="row"><span class="number">{escape(claim.number)}</span> {escape(claim.text)}</th>',
            _td("Verdict", _combined(claim, rules)),
            *_verdicts(claim, rules),
            _td("Shown in", _links(claim, shown)),
        ]
        for claim in found
    ]
    caption = (
        f"{name_of(pair[1])} against {name_of(pair[0])}, paired by seed and images; brackets are 95 % intervals over "
        "seeds and, where the table below says so, images; not corrected for the number of claims."
    )
    heads = ["Claim", "Verdict", *(NOISE_RULE_NAMES[rule].capitalize() for rule in rules), "Shown in"]
    return _table(heads, body, caption, kind="claims") + _method(found)


def _combined(claim: Claim, rules: Sequence[str]) -> str:
    shown, alone = badge(claim.combined(rules), fragile=claim.combined_is_fragile(rules)), claim.of_images_alone(rules)
    return f'{shown}<span class="why">{escape(alone)}</span>' if alone else shown


def _links(claim: Claim, shown: Mapping[str, str]) -> str:
    links = [f'<a href="#{escape(name)}">{escape(shown[name])}</a>' for name in claim.figures if name in shown]
    return "<br>".join(links) or DASH


def _verdicts(claim: Claim, rules: Sequence[str]) -> list[str]:
    if not claim.needs_noise:
        return [f'<td colspan="{len(rules)}" data-label="Statistic">{_verdict(claim, None)}</td>']
    return [_td(NOISE_RULE_NAMES[rule].capitalize(), _verdict(claim, rule)) for rule in rules]


def _verdict(claim: Claim, noise_rule: str | None) -> str:
    weakest, verdict = claim.weakest(noise_rule), claim.verdict(noise_rule)
    shown = badge(verdict, fragile=claim.fragile(noise_rule))
    if weakest is None:
        return shown
    if weakest.value is None:
        return f'{shown}<span class="why">{escape(weakest.remark)}</span>'
    return f'{shown}<span class="value">{value_of(weakest)}</span><span class="why">{escape(weakest.name)}</span>'


def badge(verdict: str, *, fragile: bool) -> str:
    """A verdict as a coloured word, marked where it is fragile."""
    mark = ' <span class="fragile">fragile</span>' if fragile else ""
    return f'<span class="verdict {escape(verdict)}">{escape(verdict)}</span>{mark}'


def _method(found: Sequence[Claim]) -> str:
    heads = ["Statistic", "Noise rule", "Value", "Interval over", "Verdict", "Remark"]
    blocks = []
    for claim in found:
        body = [
            [
                f'<th scope="row">{escape(s.name)}</th>',
                _td("Noise rule", escape(NOISE_RULE_NAMES[s.noise_rule] if s.noise_rule else DASH)),
                _td("Value", value_of(s)),
                _td("Interval over", _interval_over(s)),
                _td("Verdict", s.verdict + (", fragile" if s.fragile else "") if s.decides else DASH),
                _td("Remark", escape(s.remark)),
            ]
            for s in claim.statistics
        ]
        blocks.append(f"<h4>Claim {escape(claim.number)}</h4><p>{escape(claim.method)}</p>{_table(heads, body)}")
    return f"<details><summary>What exactly was computed, and every statistic</summary>{''.join(blocks)}</details>"


def _interval_over(statistic: ClaimStatistic) -> str:
    if statistic.low is None:
        return DASH
    return f"{statistic.seeds} seeds{' and images' if statistic.over_images else ''}"


def noise_rules_in_words(run_records: RunRecords, pair: Pair) -> str:
    """What the noise rules were in this run, and which of them leave differences in scale between the trainings."""
    sentences = []
    for rule in run_records.noise_rules:
        rows = layer_information(run_records, "i_tx_upper", rule, inputs="clean")
        name = NOISE_RULE_NAMES[rule].capitalize()
        if rows.empty:
            sentences.append(f"{name}: not measured.")
            continue
        sentences.append(f"{name}: {captions.noise(rows)}, {captions.samples(rows)}.")
        if rule != "fixed" and shares_noise(rows, pair):
            sentences.append(
                "As both trainings share it, a difference in the scale of their activations shows as a difference in "
                "information."
            )
    return " ".join(sentences)


def headline(run_records: RunRecords) -> str:
    """Accuracy at the end of training, clean and under each attack: one row per training, with intervals."""
    table = tables.accuracies(run_records)
    if table.empty:
        return "<p>No test accuracy was recorded.</p>"
    conditions = list(table["attack_label"].unique())
    counts = table.groupby("attack_label")["n"].min()
    body = []
    for training in run_records.trainings:
        mine = table[table["training"] == training].set_index("attack_label")
        if len(mine):
            cells = [_td(c, _accuracy(mine.loc[c]) if c in mine.index else DASH) for c in conditions]
            body.append([_row_head(training), *cells, _td("Seeds", str(mine["seeds"].max()))])
    caption = (
        f"Test accuracy at the end of training{captions.cells(run_records)}; brackets are 95 % intervals, "
        f"{_accuracy_over(table)}."
    )
    heads = ["Training", *(f"{escape(c)}{_images(counts[c])}" for c in conditions), "Seeds"]
    return _table(heads, body, caption, kind="headline", escaped=True)


def transfers(run_records: RunRecords) -> str:
    """Accuracy of every training on adversarial images made on the others; nothing where that was not measured."""
    table = tables.transfer(run_records)
    if table.empty:
        return ""
    known = table.set_index(["training", "source"])
    body = []
    for target in run_records.trainings:
        cells = [
            _td(
                f"made on {name_of(source)}",
                _accuracy(known.loc[(target, source)]) if (target, source) in known.index else DASH,
            )
            for source in run_records.trainings
        ]
        body.append([_row_head(target), *cells])
    made = run_records.select(quantity="transfer_accuracy")
    by = attack_labels(made) or "the attack of the final evaluation"
    caption = (
        f"Transfer: accuracy of each training (rows) on adversarial images made by {by} on networks of the same seed; "
        f"brackets are 95 % intervals, {_accuracy_over(table)}."
    )
    return _table(["Training", *(f"made on {name_of(source)}" for source in run_records.trainings)], body, caption)


def sanity_checks(run_records: RunRecords) -> str:
    """What the sanity checks of the attacks found for each training: whether robust accuracies can be trusted."""
    counts = run_records.select(quantity="sanity_check_warnings")
    if counts.empty:
        command = "<code>python experiments/study.py autoattack RUN_DIR</code>"
        return f'<p class="small">The attacks were not checked for signs of masked gradients; to do so: {command}</p>'
    signs = run_records.select(quantity="sanity_check")
    items = []
    for training in run_records.trainings:
        mine = counts[counts["training"] == training]
        if len(mine):
            notes = [note for note in dict.fromkeys(signs[signs["training"] == training]["note"].dropna()) if note]
            passed = f"{int((mine['value'] == 0).sum())} of {counted(len(mine), 'seed')} passed"
            items.append(f"<li><b>{escape(name_of(training))}</b>: {passed}. {escape(' '.join(notes))}</li>")
    return f"<p>Signs that the attacks overestimate robustness, such as masked gradients:</p><ul>{''.join(items)}</ul>"


def failures(run_records: RunRecords) -> str:
    """The estimates that failed, with their reasons; a sentence if none did."""
    failed = tables.failures(run_records)
    if failed.empty:
        return "<p>No estimate failed.</p>"
    columns = list(failed.columns)
    body = [[_td(c, _cell(row[c])) for c in columns] for row in failed.head(_MOST_FAILURES).to_dict("records")]
    more = f"<p>and {len(failed) - _MOST_FAILURES} more in the records.</p>" if len(failed) > _MOST_FAILURES else ""
    count = f"{len(failed)} estimate{'s' if len(failed) > 1 else ''} failed"
    return f"<details open><summary>{count}</summary>{_table(columns, body)}{more}</details>"


def _table(
    heads: Sequence[str],
    body: Sequence[Sequence[str]],
    caption: str = "",
    *,
    kind: str = "",
    escaped: bool = False,
) -> str:
    """A table of HTML cells; heads are escaped unless they are `escaped` already."""
    head = "".join(f"<th>{text if escaped else escape(text)}</th>" for text in heads)
    rows = "".join(f"<tr>{''.join(cells)}</tr>" for cells in body)
    opening = f'<table class="{kind}">' if kind else "<table>"
    words = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"{opening}{words}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _td(label: str, content: str) -> str:
    """A cell of HTML with the label that narrow screens show next to it."""
    return f'<td data-label="{escape(label)}">{content}</td>'


def _row_head(training: str) -> str:
    return f'<th scope="row">{escape(name_of(training))}</th>'


def _accuracy_over(table: Table) -> str:
    """What the intervals of a table of accuracies are over."""
    return OVER_BOTH if table["seeds"].max() > 1 else "Wilson's over images, as there is one seed"


def _images(n: object) -> str:
    return "" if n is pd.NA else f'<span class="why">{n} images</span>'


def _accuracy(row: Table) -> str:
    ends = interval(row["low"], row["high"], "share")
    return f'<span class="value">{number(row["mean"], "share")}</span> <span class="ends">{ends}</span>'


def _cell(value: object) -> str:
    if value is None or value is pd.NA or value != value:
        return DASH
    return escape(f"{value:g}" if isinstance(value, float) else str(value))
