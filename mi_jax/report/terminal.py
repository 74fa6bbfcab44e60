"""The result of a run for a terminal: accuracies and verdicts."""

import os

from mi_jax.claims import Claim
from mi_jax.records.labels import DASH, NOISE_RULE_NAMES, name_of
from mi_jax.records.run_records import RunRecords, compared_trainings, read
from mi_jax.report import tables
from mi_jax.report.html_tables import interval, number, value_of
from mi_jax.text_table import TextTable


def tables_of(run_dir: str | os.PathLike[str]) -> tuple[TextTable, TextTable]:
    """Test accuracy at the end by training and attack, and the verdict on each claim.

    Raises:
        InputError: where the directory or its records are missing or corrupt.
    """
    run_records = read(run_dir)
    return _accuracies(run_records), _claims(run_records)


def _accuracies(run_records: RunRecords) -> TextTable:
    found = tables.accuracies(run_records)
    conditions = list(found["attack_label"].unique()) if len(found) else []
    rows = []
    for training in run_records.trainings if conditions else ():
        mine = found[found["training"] == training].set_index("attack_label")
        cells = [
            f"{number(mine.at[c, 'mean'], 'share')} {interval(mine.at[c, 'low'], mine.at[c, 'high'], 'share')}"
            if c in mine.index
            else DASH
            for c in conditions
        ]
        rows.append([name_of(training), *cells])
    return TextTable("Test accuracy at the end of training, 95 % interval", ["training", *conditions], rows)


def _claims(run_records: RunRecords) -> TextTable:
    """One row per claim; under each noise rule the verdict and the statistic that settles it."""
    baseline, treated = compared_trainings(run_records)
    rules = run_records.noise_rules
    rows = []
    for claim in tables.claims(run_records).get(treated, ()):
        cells = [_verdict(claim, rule) for rule in rules]
        if not claim.needs_noise:
            cells[1:] = [DASH] * (len(cells) - 1)
        combined = _word(claim.combined(rules), fragile=claim.combined_is_fragile(rules))
        if alone := claim.of_images_alone(rules):
            combined += f"\n{alone}"
        rows.append([f"{claim.number} {claim.name}", combined, *cells])
    heads = ["claim", "verdict", *(NOISE_RULE_NAMES[rule] for rule in rules)]
    return TextTable(f"Claims of the study, {name_of(treated)} against {name_of(baseline)}", heads, rows)


def _word(verdict: str, *, fragile: bool) -> str:
    return f"{verdict} (fragile)" if fragile else verdict


def _verdict(claim: Claim, noise_rule: str) -> str:
    weakest = claim.weakest(noise_rule)
    verdict = _word(claim.verdict(noise_rule), fragile=claim.fragile(noise_rule))
    if weakest is None:
        return verdict
    if weakest.value is None:
        return f"{verdict}\n{weakest.remark}"
    return f"{verdict}\n{value_of(weakest)}" + (f"\n{weakest.remark}" if weakest.low is None else "")
