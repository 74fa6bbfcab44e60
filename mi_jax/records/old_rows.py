"""Reads the rows of older runs, which held the part of the data in `subset` and the attack as a sentence in `note`.

The only place that knows that grammar.
"""

import json
import re
from typing import Any

import numpy as np
import pandas as pd

_OLD = frozenset(
    [
        *("run", "arch", "dataset", "training", "seed", "step", "epoch", "inputs", "layer", "estimator", "quantity"),
        *("value", "stderr", "unit", "n", "noise_variance", "saturated", "ok", "note", "noise_rule", "subset", "level"),
    ]
)
_QUANTITIES = {
    "delta_oracle": "texture_match",
    "delta_oracle_baseline": "texture_match_baseline",
    "delta_oracle_p": "texture_match_p",
    "attack_sign": "sanity_check",
    "attack_checks": "sanity_check_warnings",
}
_REFERENCES = {
    "exchanged among images": "among_images",
    "exchanged within classes": "within_class",
    "since untrained": "untrained",
    "from baseline": "baseline",
}
ARRAY_FILES = {
    "shape_bias": "cue_answers",
    "shape_texture": "cue_conflict",
    "distortions": "distortion_curves",
    "confusion": "transfer_matrix",
}
"""What the array file of a study was called."""
_ARRAYS = {"answers": "predictions", "answers_adversarial": "predictions_adversarial", "subset": "distortion"}
_ATTACK = re.compile(
    r"(?P<reduced>reduced-)?(?P<name>pgd-\d+(?:x\d+)?|autoattack(?:-plus| standard)?) (?P<norm>linf|l2) "
    r"eps=(?P<eps>[\d.e-]+)(?P<in_255ths>/255)?(?: \((?P<effort>.*)\))?$"
)
_OF_FINISHED = ("transfer_accuracy", "autoattack_broken", "sanity_check", "sanity_check_warnings")


def parse(line: bytes) -> dict[str, Any] | None:
    """The row of a line without checksum in today's columns, or None if it is no row of an older run."""
    try:
        row = json.loads(line, parse_constant=_refuse_constant)
        if not isinstance(row, dict) or row.keys() != _OLD or not isinstance(row["quantity"], str):
            return None
        return migrate(row) if all(isinstance(row[name], str | None) for name in ("subset", "note")) else None
    except (ValueError, RecursionError):  # no JSON, or text in place of a number in `subset` or `note`
        return None


def migrate(row: dict[str, Any]) -> dict[str, Any]:
    """A row of an older run in today's columns; `checkpoint` is `last` for what only finished networks have.

    Examples:
        >>> row = {"quantity": "accuracy", "subset": "test", "note": "final pgd-20 l2 eps=0.5", "step": 9}
        >>> row = migrate({**row, "inputs": "adversarial"})
        >>> row["image_set"], row["attack"], row["attack_steps"], row["eps"], row["checkpoint"]
        ('test', 'pgd', 20, 0.5, 'last')
    """
    new = {name: value for name, value in row.items() if name not in ("subset", "note") and value is not None}
    new["quantity"] = _QUANTITIES.get(row["quantity"], row["quantity"])
    subset, note = row.get("subset") or "", row.get("note") or ""
    new |= _part_of_data(new, subset)
    final = note == "final" or note.startswith("final ")
    note = note.removeprefix("final").strip()
    attack = _ATTACK.search(note)
    if attack:
        new |= _attack_columns(attack)
        note = attack["effort"] or ""
    elif note.startswith("made on "):
        note = ""
    if note:
        new["note"] = note
    if str(row.get("run")).startswith("rho_shape="):
        new["cell"] = new.pop("run")
        new["checkpoint"] = "epoch" if str(row.get("training")).startswith(("untrained", "matched")) else "last"
    elif row.get("step") is not None:
        new["checkpoint"] = "last" if final or new["quantity"] in _OF_FINISHED else "epoch"
    return new


def with_checkpoints(table: pd.DataFrame, old: np.ndarray) -> pd.DataFrame:
    """The table with `checkpoint` of its old rows completed from rows that say which network was the finished one.

    Args:
        table: migrated rows, perhaps among others.
        old: which rows were migrated, bool `[n]`.
    """
    where = pd.MultiIndex.from_frame(table.loc[:, ["training", "seed"]])
    is_final = old & (table["checkpoint"] == "last").to_numpy() & table["cell"].isna().to_numpy()
    final = table.loc[is_final].drop_duplicates(["training", "seed"])
    epochs = final.set_index(["training", "seed"])["epoch"]
    during_training = (
        (table["image_set"].isin(["train", "test", "held_out"]) | table["estimator"].isin(["kde", "binning"]))
        & table[["distortion", "factor", "reference"]].isna().all(axis=1)
        & (table["noise_rule"] != "grid")
        & (table["class"].isna() | (table["quantity"] != "accuracy"))
    )
    of_study = old & ~during_training & (table["epoch"].to_numpy() == epochs.reindex(where).to_numpy())
    checkpoint = table["checkpoint"].mask(of_study, "last")
    best = table.loc[table["quantity"] == "best_epoch", ["training", "seed"]]
    has_best = where.isin(pd.MultiIndex.from_frame(pd.DataFrame(best)))
    return table.assign(checkpoint=checkpoint.mask(old & (checkpoint == "last") & has_best, "best"))


def rename_arrays(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays `<name>.<training>.<seed>` of an older run under today's names.

    Examples:
        >>> list(rename_arrays({"answers.nt.0": np.zeros(2), "shape.nt.0": np.zeros(2)}))
        ['predictions.nt.0', 'shape.nt.0']
    """
    parts = {key: key.partition(".") for key in arrays}
    return {_ARRAYS.get(name, name) + dot + rest: arrays[key] for key, (name, dot, rest) in parts.items()}


def _part_of_data(row: dict[str, Any], subset: str) -> dict[str, Any]:
    """The columns that `subset` stood for."""
    quantity, kind, _, number = row["quantity"], *subset.rpartition(",")[2].partition("=")
    if quantity.startswith("texture_match"):
        return {"image_set": "redundant"} | ({"reference": _REFERENCES[subset]} if subset in _REFERENCES else {})
    if subset in _REFERENCES:
        return {"image_set": "test", "reference": _REFERENCES[subset]}
    if quantity == "sanity_check":
        return {"image_set": "test", "estimator": subset}
    if kind == "source":
        return {"image_set": "test", "source": number}
    if kind == "class":
        return {"image_set": "test", "class": int(number)}
    if kind in ("shape", "texture") and number:
        return {"image_set": subset.partition(",")[0], "factor": kind, "class": int(number)}
    if row.get("level") is not None and subset:
        return {"image_set": "test", "distortion": subset}
    if row.get("inputs") == "wave":
        return {"image_set": "test", "inputs": "clean"} | ({"distortion": "wave"} if quantity == "wave_error" else {})
    return {"image_set": subset or "test"}


def _attack_columns(found: re.Match[str]) -> dict[str, Any]:
    """The columns of the attack that a note named."""
    columns: dict[str, Any] = {
        "norm": found["norm"],
        "eps": float(found["eps"]) / (255 if found["in_255ths"] else 1),
    }
    if found["name"].startswith("pgd"):
        steps, _, restarts = found["name"].removeprefix("pgd-").partition("x")
        return {"attack": "pgd", **columns, "attack_steps": int(steps), "restarts": int(restarts or 1)}
    # Attacks that were chosen by name are all listed with their effort, and only they have a hyphen there.
    custom = "-" in (found["effort"] or "")
    version = "custom" if custom else "plus" if found["name"].endswith("-plus") else "standard"
    return {"attack": f"autoattack-{version}", **columns, "reduced": bool(found["reduced"])}


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
