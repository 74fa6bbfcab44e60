"""What a run directory holds for the report: its records, its settings and the arrays beside them.

It reads files only; it draws nothing and judges nothing.
"""

import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mi_jax import records
from mi_jax.errors import InputError
from mi_jax.records.labels import INPUTS, NOISE_RULES, attack_label
from mi_jax.statistics.intervals import Table

ATTACK_COLUMNS = ["attack", "norm", "eps", "attack_steps", "restarts", "reduced"]
"""The columns that describe an attack."""


@dataclass(frozen=True, eq=False)
class RunRecords:
    """The records of one run and what stands beside them. Figures and claims take this and nothing else.

    `records` holds the estimates that succeeded, `failed` those that did not; their column `finished` is true at the
    epoch that is best on held-out images, where there is one, and `end` at the last epoch at which the layers of every
    training and seed were looked at. `trainings` and `layers` are in order of first appearance.
    """

    run_dir: Path
    records: Table
    failed: Table
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]

    @cached_property
    def trainings(self) -> tuple[str, ...]:
        """Names of the trainings, in order of first appearance."""
        return tuple(self.records["training"].dropna().unique())

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in order of first appearance."""
        return tuple(self.records["layer"].dropna().unique())

    @cached_property
    def _by_quantity(self) -> Mapping[Any, Table]:
        return dict(iter(self.records.groupby("quantity")))

    def select(self, *, quantity: str | tuple[str, ...], **columns: Any) -> Table:
        """The rows of a quantity whose columns equal the given values.

        None asks for an absent value, a tuple for any of several.
        """
        quantities = quantity if isinstance(quantity, tuple) else (quantity,)
        found = [self._by_quantity[name] for name in quantities if name in self._by_quantity]
        rows: Table = pd.concat(found) if len(found) > 1 else found[0] if found else self.records.iloc[:0]
        for name, wanted in columns.items():
            if wanted is None:
                rows = rows[rows[name].isna()]
            else:
                rows = rows[rows[name].isin(wanted if isinstance(wanted, tuple) else [wanted])]
        return rows

    def select_at_the_end(self, *, quantity: str | tuple[str, ...], **columns: Any) -> Table:
        """The rows of `select` at the end of training (see `at_the_end`): what a study says of finished networks."""
        return at_the_end(self.select(quantity=quantity, **columns))

    def arrays(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays in `<name>.npz` of the run directory, or None if there is no such file.

        Raises InputError if the file cannot be read.
        """
        path = self.run_dir / f"{name}.npz"
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is not a readable array file; delete it and make it again") from error


def read(run_dir: str | os.PathLike[str]) -> RunRecords:
    """Reads a run directory; `config.json` and `provenance.json` may be absent.

    Raises InputError if the directory or its records are missing, empty or corrupt.
    """
    directory = Path(run_dir)
    table: Table = _with_ends(records.load(directory))
    if not table["ok"].any():
        raise InputError(f"the records of {directory} hold no measured value yet; let the run go on and try again")
    # A failure that a later attempt mended is no longer one; notes differ between the two rows.
    measured = pd.MultiIndex.from_frame(table.loc[table["ok"], records.MEASUREMENT])
    failed = table[~table["ok"]]
    failed = failed[~pd.MultiIndex.from_frame(failed[records.MEASUREMENT]).isin(measured)]
    return RunRecords(
        run_dir=directory,
        records=table[table["ok"]].reset_index(drop=True),
        failed=failed.reset_index(drop=True),
        config=_json(directory / "config.json"),
        provenance=_json(directory / "provenance.json"),
    )


def noise_rules(run_records: RunRecords) -> tuple[str, ...]:
    """The noise rules under which claims are judged: those measured, but always the fixed and one that scales."""
    through_training = run_records.select(quantity="i_tx_upper", estimator="kde", distortion=None, level=None)
    measured = set(through_training["noise_rule"].dropna())
    scaled = measured & {"trace", "scale_free"} or {"scale_free"}
    return tuple(rule for rule in NOISE_RULES if rule == "fixed" or rule in scaled)


def compared_trainings(run_records: RunRecords) -> tuple[str, str]:
    """The trainings that the claims compare: NT and AT, or what stands first for either if one was not trained.

    A single training is named beside the one that is missing, never with itself.
    """
    trainings = run_records.trainings
    baseline = "nt" if "nt" in trainings or len(trainings) < 2 else trainings[0]
    others = [training for training in trainings if training != baseline]
    return baseline, "at" if "at" in others or not others else others[0]


def accuracy_on_test(run_records: RunRecords) -> Table:
    """Rows of test accuracy with a column `condition`: `clean`, or the label of the attack.

    Where a condition was measured both during training and of the finished network, only the finished network's rows
    are kept: they are of more images.
    """
    rows = run_records.select(quantity="accuracy", image_set="test", inputs=INPUTS, distortion=None, source=None)
    attacks = rows[ATTACK_COLUMNS].drop_duplicates()
    labels = attacks.assign(condition=[attack_label(row) for row in attacks.to_dict("records")])
    condition = rows[ATTACK_COLUMNS].merge(labels, on=ATTACK_COLUMNS, how="left")["condition"].to_numpy()
    rows = rows.assign(condition=np.where(rows["inputs"] == "clean", "clean", condition))
    finished = rows["checkpoint"].isin(("best", "last"))
    superseded = finished.groupby([rows["training"], rows["condition"]]).transform("any")
    return rows[finished | ~superseded]


def conditions(table: Table, trainings: Sequence[str]) -> Iterator[tuple[str, str, Table]]:
    """The parts of a table by training (in the given order) and inputs (clean first), with these two."""
    parts = dict(iter(table.groupby(["training", "inputs"], sort=False)))
    for training in trainings:
        for inputs in INPUTS:
            if (training, inputs) in parts:
                yield training, inputs, parts[training, inputs]


def at_the_end(rows: Table) -> Table:
    """The rows that stand for the end of training.

    Where images were held out these are of the epoch that was best on them, of each training and seed: the finished
    network. Else of the last epoch that every training and seed has reached, as trainings compared at different epochs
    would differ for that reason alone: of the run, whether or not an estimate failed there, or if these rows are of
    other epochs, of the rows; else of the last of each.
    """
    rows = rows[rows["epoch"].notna()]
    if len(rows) and rows.groupby(["training", "seed"], dropna=False)["finished"].any().all():
        return rows[rows["finished"]]
    if rows["end"].any():
        return rows[rows["end"]]
    reached = [set(group) for _, group in rows.groupby(["training", "seed"], dropna=False)["epoch"]]
    common = set.intersection(*reached) if reached else set()
    if common:
        return rows[rows["epoch"] == max(common)]
    return rows[rows["epoch"] == rows.groupby(["training", "seed"], dropna=False)["epoch"].transform("max")]


def _with_ends(table: Table) -> Table:
    best = table[table["quantity"] == "best_epoch"].drop_duplicates(["training", "seed"], keep="last")
    epochs = best.set_index(["training", "seed"])["value"]
    own = epochs.reindex(pd.MultiIndex.from_frame(table[["training", "seed"]])).to_numpy()
    layered = table[table["layer"].notna() & table["epoch"].notna()]
    reached = [set(epochs) for _, epochs in layered.groupby(["training", "seed"], dropna=False)["epoch"]]
    last = max(set.intersection(*reached), default=np.nan) if reached else np.nan
    return table.assign(finished=table["epoch"].to_numpy() == own, end=table["epoch"] == last)


def _json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not readable JSON; restore it or delete it") from error
    return content if isinstance(content, dict) else {"content": content}
