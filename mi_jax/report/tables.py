"""The tables of a report as data: accuracies, transfer, claims, failed estimates; and their CSV files."""

from pathlib import Path

import pandas as pd

from mi_jax.claims import Claim, ClaimStatistic, evaluate
from mi_jax.files import write_text
from mi_jax.records.run_records import RunRecords, accuracy_on_test, compared_trainings, final_rows
from mi_jax.statistics.intervals import Table, accuracy_over_seeds

OVER_BOTH = "Student's t over seeds and Wilson's over images combined (the squares of the half-widths are added)"
"""What an interval of `accuracy_over_seeds` is over."""
_FAILED = ["training", "seed", "epoch", "inputs", "layer", "estimator", "quantity", "note"]


def accuracy_rows(run_records: RunRecords) -> dict[str, Table]:
    """Rows of test accuracy at the end of training by attack, in order of appearance.

    In a run that continues, the end of an attack may be another epoch than that of clean images. Rows without an epoch
    are left out.
    """
    groups = accuracy_on_test(run_records).groupby("attack_label", sort=False)
    return {str(label): rows for label, group in groups if len(rows := final_rows(group))}


def accuracies(run_records: RunRecords) -> Table:
    """Test accuracy at the end of training: one row per training and attack, with intervals.

    Returns:
        Columns training, attack_label (`clean` first, then the attacks in order of appearance) and those of
        `accuracy_over_seeds`; empty where no accuracy was recorded.
    """
    groups = [
        accuracy_over_seeds(rows, ["training"]).assign(attack_label=label)
        for label, rows in accuracy_rows(run_records).items()
    ]
    if not groups:
        return pd.DataFrame()
    table: Table = pd.concat(groups, ignore_index=True)
    trainings = {t: i for i, t in enumerate(run_records.trainings)}
    found = {c: i for i, c in enumerate(sorted(table["attack_label"].unique(), key=lambda c: c != "clean"))}
    return table.sort_values(
        ["attack_label", "training"],
        key=lambda column: column.map(found if column.name == "attack_label" else trainings),
    )


def transfer(run_records: RunRecords) -> Table:
    """Accuracy of every training on adversarial images made on another (`source`), with intervals."""
    rows = run_records.select(quantity="transfer_accuracy")
    return accuracy_over_seeds(rows, ["training", "source"]) if len(rows) else pd.DataFrame()


def claims(run_records: RunRecords) -> dict[str, tuple[Claim, ...]]:
    """The claims for every training but the baseline, the one that the claims are about first; none for a sweep.

    The cells of a sweep are different data sets, and some of its networks, such as the untrained ones, no trainings.
    """
    if run_records.records["cell"].notna().any():
        return {}
    baseline, treated = compared_trainings(run_records)
    others = [training for training in run_records.trainings if training not in (baseline, treated)]
    return {name: evaluate(run_records, baseline=baseline, treated=name) for name in (treated, *others)}


def failures(run_records: RunRecords) -> Table:
    """The failed estimates with their reasons."""
    return run_records.failed[_FAILED]


def write_csv(run_records: RunRecords, found: dict[str, tuple[Claim, ...]], directory: Path) -> dict[str, Path]:
    """Writes the tables that have rows as `<name>.csv`, deletes those without any, and returns the paths."""
    directory.mkdir(exist_ok=True)
    baseline, _ = compared_trainings(run_records)
    statistics = [
        {"claim": claim.number, "text": claim.text, "training": training, "baseline": baseline, **_flat(statistic)}
        for training, claims_of in found.items()
        for claim in claims_of
        for statistic in claim.statistics
    ]
    data = {
        "claims": pd.DataFrame(statistics),
        "accuracy": _without_lists(accuracies(run_records)),
        "transfer": _without_lists(transfer(run_records)),
        "failed": failures(run_records),
    }
    paths = {name: directory / f"{name}.csv" for name, table in data.items() if len(table)}
    for name in data:
        if name in paths:
            write_text(paths[name], data[name].to_csv(index=False))
        else:
            (directory / f"{name}.csv").unlink(missing_ok=True)
    return paths


def _flat(statistic: ClaimStatistic) -> dict[str, object]:
    """A statistic with its alternatives as text, and the counts of layers as separate columns."""
    undersampled, layers = statistic.undersampled
    columns = {"undersampled": undersampled, "layers": layers, "fragile": statistic.fragile}
    return {**vars(statistic), "alternatives": " ".join(sorted(statistic.alternatives)), **columns}


def _without_lists(table: Table) -> Table:
    """The values of the seeds as text, separated by spaces."""
    if "values" not in table:
        return table
    return table.assign(values=[" ".join(f"{value:.6g}" for value in values) for values in table["values"]])
