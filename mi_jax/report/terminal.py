"""The outcome of a run for a terminal: accuracies and verdicts as two tables.

It repeats the head of the report page and computes nothing of its own.
"""

import os
from typing import Any

from rich.console import Group
from rich.table import Table

from mi_jax.claims import claims
from mi_jax.claims.verdicts import Claim
from mi_jax.records.labels import DASH, NOISE_RULE_NAMES, name_of
from mi_jax.records.run_records import RunRecords, compared_trainings, noise_rules, read
from mi_jax.report.figures.training import accuracies
from mi_jax.report.html_tables import interval, number, value_of


def table(run_dir: str | os.PathLike[str]) -> Group:
    """Test accuracy at the end by training and attack, and the verdict on each claim.

    Raises:
        InputError: where the directory or its records are missing or corrupt.
    """
    run_records = read(run_dir)
    return Group(_accuracies(run_records), _claims(run_records))


def _accuracies(run_records: RunRecords) -> Table:
    found = accuracies(run_records)
    shown = Table(title="Test accuracy at the end of training, 95 % interval", title_justify="left")
    shown.add_column("training")
    attacks = list(found["attack"].unique()) if len(found) else []
    for attack in attacks:
        shown.add_column(attack, justify="right")
    for training in run_records.trainings if attacks else ():
        mine = found[found["training"] == training].set_index("attack")
        shown.add_row(name_of(training), *(_cell(mine, attack) for attack in attacks))
    return shown


def _cell(rows: Any, attack: str) -> str:
    if attack not in rows.index:
        return DASH
    row = rows.loc[attack]
    return f"{number(row['mean'], 'share')} {interval(row['low'], row['high'], 'share')}"


def _claims(run_records: RunRecords) -> Table:
    """A row a claim; under each noise rule the verdict and the statistic that settles it."""
    baseline, treated = compared_trainings(run_records)
    shown = Table(title=f"Claims of the study, {name_of(treated)} against {name_of(baseline)}", title_justify="left")
    judged_by = noise_rules(run_records)
    for column in ("", "claim", *(NOISE_RULE_NAMES[noise_rule] for noise_rule in judged_by)):
        shown.add_column(column)
    for claim in claims.evaluate(run_records, baseline=baseline, treated=treated):
        cells = [_verdict(claim, noise_rule) for noise_rule in judged_by]
        if all(finding.noise_rule is None for finding in claim.findings if finding.decides):
            cells[1:] = [DASH] * (len(cells) - 1)
        shown.add_row(claim.number, claim.name, *cells, end_section=True)
    return shown


def _verdict(claim: Claim, noise_rule: str) -> str:
    finding, verdict = claim.weakest(noise_rule), claim.verdict(noise_rule)
    if finding is None:
        return verdict
    return f"{verdict}\n{value_of(finding) if finding.value is not None else finding.remark}"
