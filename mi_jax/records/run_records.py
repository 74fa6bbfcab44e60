"""The records of one run as figures and claims query them, with its settings and the arrays stored with them."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mi_jax.errors import InputError
from mi_jax.files import read_arrays
from mi_jax.records import file, old_rows
from mi_jax.records.labels import INPUTS, LABEL_FREE_ATTACKS, NOISE_RULES, attack_label
from mi_jax.runs.run_files import check_records, saved_config
from mi_jax.statistics.intervals import Table

ATTACK_COLUMNS = ["attack", "norm", "eps", "attack_steps", "restarts", "reduced"]
"""The columns that describe an attack."""
_FINISHED = ("best", "last")
_GROUP = ["training", "seed"]


@dataclass(frozen=True, eq=False)
class RunRecords:
    """The records of one run, and what is stored with them: all that figures and claims read.

    Attributes:
        run_dir: the run directory.
        records: the measurements that succeeded. Beside the columns of `Record`, `final` marks the epoch of a finished
            network (best on held-out images where there are any, else the last), and `last_common` the last epoch at
            which the layers of every training and seed were measured.
        failed: the measurements that failed, in the same columns.
        config: contents of `config.json`, empty if there is none.
        provenance: contents of `provenance.json`, empty if there is none.
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
    def architectures(self) -> tuple[str, ...]:
        """Names of the architectures, in order of first appearance."""
        return tuple(self.records["arch"].dropna().unique())

    @cached_property
    def datasets(self) -> tuple[str, ...]:
        """Names of the data sets, in order of first appearance."""
        return tuple(self.records["dataset"].dropna().unique())

    @cached_property
    def noise_rules(self) -> tuple[str, ...]:
        """The noise rules under which claims are evaluated: those measured, but always `fixed` and one that scales."""
        during_training = self.select(
            quantity="i_tx_upper", estimator="kde", image_set="test", distortion=None, reference=None
        )
        measured = set(during_training["noise_rule"].dropna())
        scaled = measured & {"trace", "scale_free"} or {"scale_free"}
        return tuple(rule for rule in NOISE_RULES if rule == "fixed" or rule in scaled)

    @cached_property
    def _by_quantity(self) -> Mapping[Any, Table]:
        return dict(iter(self.records.groupby("quantity")))

    def select(self, *, quantity: str | tuple[str, ...], **columns: Any) -> Table:
        """The rows of a quantity whose columns equal the given values.

        Adversarial inputs of `LABEL_FREE_ATTACKS` are a control for those of the study: their rows are left out
        unless `attack` is given.

        Args:
            quantity: one, or several.
            columns: wanted values by column (`class_` for `class`): one value, a tuple for any of several, or None for
                an absent value.
        """
        quantities = quantity if isinstance(quantity, tuple) else (quantity,)
        found = [self._by_quantity[name] for name in quantities if name in self._by_quantity]
        rows: Table = pd.concat(found) if len(found) > 1 else found[0] if found else self.records.iloc[:0]
        kept = np.ones(len(rows), bool)
        for name, wanted in columns.items():
            values, several = rows[name.rstrip("_")], wanted if isinstance(wanted, tuple) else (wanted,)
            kept &= (values.isna() if wanted is None else values.isin(several)).to_numpy(bool)
        if "attack" not in columns:
            kept &= ~rows["attack"].isin(LABEL_FREE_ATTACKS).to_numpy(bool)
        return rows[kept]

    def select_final(self, *, quantity: str | tuple[str, ...], **columns: Any) -> Table:
        """The rows of `select` that describe finished networks, see `final_rows`."""
        return final_rows(self.select(quantity=quantity, **columns))

    def arrays(self, study: str) -> dict[str, np.ndarray] | None:
        """The arrays of a study, from `<study>.npz` of the run directory; None if there is no such file.

        Raises:
            InputError: if the file cannot be read.
        """
        path = self.run_dir / f"{study}.npz"
        old = self.run_dir / f"{old_rows.ARRAY_FILES.get(study, study)}.npz"
        if not path.exists() and not old.exists():
            return None
        return read_arrays(path) if path.exists() else old_rows.rename_arrays(read_arrays(old))


def read(run_dir: str | os.PathLike[str]) -> RunRecords:
    """Reads a run directory; `config.json` and `provenance.json` may be absent.

    Args:
        run_dir: the directory of a run.

    Returns:
        Its records and what is stored with them.

    Raises:
        InputError: if the directory or its records are missing, empty, damaged or partly lost.
    """
    directory = Path(run_dir)
    check_records(directory)
    table = _with_final(file.load(directory))
    if not table["ok"].any():
        raise InputError(f"The records of {directory} hold no measured value yet; continue the run and try again.")
    return RunRecords(
        run_dir=directory,
        records=table[table["ok"]].reset_index(drop=True),
        failed=table[~table["ok"]].reset_index(drop=True),
        config=_config(directory),
        provenance=_json(directory / "provenance.json"),
    )


def compared_trainings(run_records: RunRecords) -> tuple[str, str]:
    """The trainings that the claims compare: NT and AT, or the first ones of the run in place of a missing one.

    A single training is paired with the missing one, never with itself.
    """
    trainings = run_records.trainings
    baseline = baseline_of(trainings)
    others = [training for training in trainings if training != baseline]
    return baseline, "at" if "at" in others or not others else others[0]


def baseline_of(trainings: Sequence[str]) -> str:
    """The training with which a run compares its others: NT, or the first of several without it.

    Examples:
        >>> baseline_of(("trades", "nt", "at")), baseline_of(("trades", "at")), baseline_of(("at",))
        ('nt', 'trades', 'nt')
    """
    return "nt" if "nt" in trainings or len(trainings) < 2 else trainings[0]


def accuracy_on_test(run_records: RunRecords) -> Table:
    """Rows of test accuracy with a column `attack_label`: `clean`, or the label of the attack.

    Where a condition was measured both during training and of the finished network, only the rows that are of more
    images are kept, and those of the finished network where they are of as many.
    """
    rows = run_records.select(
        quantity="accuracy", image_set="test", inputs=INPUTS, class_=None, distortion=None, source=None
    )
    attacks = rows[ATTACK_COLUMNS].drop_duplicates()
    labels = attacks.assign(attack_label=[attack_label(row) for row in attacks.to_dict("records")])
    condition = rows[ATTACK_COLUMNS].merge(labels, on=ATTACK_COLUMNS, how="left")["attack_label"].to_numpy()
    rows = rows.assign(attack_label=np.where(rows["inputs"] == "clean", "clean", condition))
    finished = rows["checkpoint"].isin(_FINISHED)
    groups = [rows["training"], rows["attack_label"]]
    of_finished, of_epochs = (
        rows["n"].astype(float).where(which).groupby(groups).transform("max").fillna(0)
        for which in (finished, ~finished)
    )
    return rows[np.where(of_finished >= of_epochs, finished, ~finished)]


def conditions(table: Table, trainings: Sequence[str]) -> Iterator[tuple[str, str, Table]]:
    """The parts of a table by training (in the given order) and inputs (clean first), with these two."""
    parts = dict(iter(table.groupby(["training", "inputs"], sort=False)))
    for training in trainings:
        for inputs in INPUTS:
            if (training, inputs) in parts:
                yield training, inputs, parts[training, inputs]


def final_rows(rows: Table) -> Table:
    """The rows that describe finished networks.

    Where some group of training and seed has none, as in a run that is not complete, the rows of the last epoch that
    all of them have reached: trainings compared at different epochs would differ for that reason only. That epoch is
    the run's, whether or not an estimate failed there; if the given rows are of other epochs, the rows' own; and if
    they share none, the last of each group.
    """
    rows = rows[rows["epoch"].notna()]
    groups = rows.groupby(_GROUP, dropna=False)
    if len(rows) and groups["final"].any().all():
        return rows[rows["final"]]
    if rows["last_common"].any():
        return rows[rows["last_common"]]
    reached = [set(epochs) for _, epochs in groups["epoch"]]
    common = set.intersection(*reached) if reached else set()
    if common:
        return rows[rows["epoch"] == max(common)]
    return rows[rows["epoch"] == groups["epoch"].transform("max")]


def _with_final(table: Table) -> Table:
    """The table with the columns `final` and `last_common` of `RunRecords`."""
    finished = table["checkpoint"].isin(_FINISHED)
    epochs = table[finished].drop_duplicates(_GROUP, keep="last").set_index(_GROUP)["epoch"]
    own = epochs.reindex(pd.MultiIndex.from_frame(table[_GROUP])).to_numpy()
    layered = table[table["layer"].notna() & table["epoch"].notna()]
    reached = [set(epochs) for _, epochs in layered.groupby(_GROUP, dropna=False)["epoch"]]
    last = max(set.intersection(*reached), default=np.nan) if reached else np.nan
    return table.assign(
        final=finished | (table["epoch"].to_numpy() == own) & table["cell"].isna(), last_common=table["epoch"] == last
    )


def _config(directory: Path) -> Mapping[str, Any]:
    try:
        return saved_config(directory)
    except InputError:
        if (directory / "config.json").exists():
            raise
        return {}


def _json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not readable JSON; restore it or delete it.") from error
    return content if isinstance(content, dict) else {"content": content}
