"""Two trainings at the end of a run, paired by seed: both trainings of a seed start from the same weights."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from mi_jax.records.run_records import RunRecords, final_rows
from mi_jax.statistics.intervals import Interval, Table, t_interval, wilson

Pair = tuple[str, str]
"""The names of the baseline and of the training compared with it."""
WHOLE_LAYERS = {"image_set": ("test", None), "class_": None, "factor": None, "distortion": None, "level": None}
"""Columns of the rows that say something of whole layers on undistorted test images of all classes."""
END = "at the last epoch that all have reached (or, with held-out images, at the best epoch of each training on them)"


class Paired(NamedTuple):
    """Values at the end of training by paired seed, and what was left out.

    Attributes:
        values: one row per seed, columns (training, layer).
        saturated: the layers left out because they are saturated in either training.
        partial: the layers left out because they were not measured in every seed of both (say, constant in one seed).
        seeds: the seeds left out because no layer was measured in one of the two.
    """

    values: Table
    saturated: list[str]
    partial: list[str]
    seeds: list[int]


def shares_noise(rows: Table, pair: Pair) -> bool:
    """Whether both trainings were measured with the same noise variance in every layer."""
    last = final_rows(rows[rows["training"].isin(pair)])
    table = last.pivot_table(index=["seed", "layer"], columns="training", values="noise_variance")
    if not set(pair) <= set(table.columns):
        return False
    return bool(np.isclose(table[pair[0]], table[pair[1]], rtol=1e-6).all())


def by_layer(rows: Table, pair: Pair) -> Paired:
    """The layers that can be compared, on the seeds of both trainings; a layer is left out of all seeds or none."""
    last = final_rows(rows[rows["training"].isin(pair)])
    saturated = list(last.loc[last["saturated"].fillna(False).astype(bool), "layer"].unique())
    last = last[~last["layer"].isin(saturated)]
    if set(pair) - set(last["training"]):
        return Paired(pd.DataFrame(), saturated, [], [])
    table = last.pivot_table(index="seed", columns=["training", "layer"], values="value", sort=False)
    paired = table[pair[0]].notna().any(axis=1) & table[pair[1]].notna().any(axis=1)
    lost, table = [int(seed) for seed in table.index[~paired]], table[paired]
    whole = table.columns[table.notna().all()]
    layers = list(dict.fromkeys(table.columns.get_level_values("layer")))
    partial = [layer for layer in layers if any((training, layer) not in whole for training in pair)]
    values = table.loc[:, ~table.columns.get_level_values("layer").isin(partial)]
    return Paired(values if values.size else pd.DataFrame(), saturated, partial, lost)


def final_difference(rows: Table, pair: Pair) -> Interval:
    """Second minus first training at the end, paired by seed; `rows` hold one value per training and seed."""
    last = final_rows(rows[rows["training"].isin(pair)])
    table = last.pivot_table(index="seed", columns="training", values="value")
    if not set(pair) <= set(table.columns):
        return t_interval([])
    return t_interval(table[pair[1]] - table[pair[0]])


def difference_of_shares(rows: Table, pair: Pair) -> Interval:
    """`final_difference` of shares of `n` images, no narrower than Newcombe's interval over the images.

    All seeds share the images, so seeds that agree, say at 100 %, do not determine the difference exactly. Newcombe's
    interval (1998, method 10) treats the images of the two trainings as independent samples; as they are the same
    images, it is conservative.
    """
    difference = final_difference(rows, pair).clipped(-1.0, 1.0)
    last = final_rows(rows[rows["training"].isin(pair)])
    if difference.count < 2 or last["n"].isna().any():
        return difference
    n = int(last["n"].min())
    first, second = (float(last.loc[last["training"] == training, "value"].mean()) for training in pair)
    (low, high), (second_low, second_high) = wilson(first, n), wilson(second, n)
    down = second - first - math.hypot(second - second_low, high - first)
    up = second - first + math.hypot(second_high - second, first - low)
    return difference._replace(low=min(difference.low, down), high=max(difference.high, up))


def layer_information(
    run_records: RunRecords, quantity: str, noise_rule: str | None, *, inputs: str | Pair, estimator: str = "kde"
) -> Table:
    """The rows of an information quantity of whole layers on test images, under one noise rule."""
    return run_records.select(
        quantity=quantity, estimator=estimator, noise_rule=noise_rule, inputs=inputs, **WHOLE_LAYERS
    )


def missing(interval: Interval, what: str) -> str:
    """The remark on a difference that could not be formed; empty where it could."""
    return "" if interval.count else f"{what} was not measured in this run for both trainings"
