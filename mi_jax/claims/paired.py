"""Two trainings at the end of a run, seed by seed: differences, layers that can be compared, noise rules they share.

It turns rows into paired tables; it judges nothing.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from mi_jax.records.run_records import final_rows
from mi_jax.statistics.intervals import Interval, Table, t_interval, wilson


class Paired(NamedTuple):
    """Values at the end: a row a paired seed, columns (training, layer); and the layers and seeds that are left out.

    `seeds` are those without any layer in one of the two. A layer is left out where it is
    `saturated` in either training, or `partial`: not measured in every seed of both, as one that is constant in a seed.
    """

    values: Table
    saturated: list[str]
    partial: list[str]
    seeds: list[int]


def shares_noise(rows: Table, pair: tuple[str, str]) -> bool:
    """Whether two trainings were measured with the same noise variance in every layer (a noise rule frozen across them)."""
    last = final_rows(rows[rows["training"].isin(pair)])
    table = last.pivot_table(index=["seed", "layer"], columns="training", values="noise_variance")
    if not set(pair) <= set(table.columns):
        return False
    return bool(np.isclose(table[pair[0]], table[pair[1]], rtol=1e-6).all())


def by_layer(rows: Table, pair: tuple[str, str]) -> Paired:
    """The layers that can be compared, on every seed that both trainings have: a layer is left out for all or none."""
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


def difference_at_the_end(rows: Table, pair: tuple[str, str]) -> Interval:
    """Second minus first training at the end, paired by seed, of rows with one value a training and seed."""
    last = final_rows(rows[rows["training"].isin(pair)])
    table = last.pivot_table(index="seed", columns="training", values="value")
    if not set(pair) <= set(table.columns):
        return t_interval([])
    return t_interval(table[pair[1]] - table[pair[0]])


def difference_of_shares(rows: Table, pair: tuple[str, str]) -> Interval:
    """`difference_at_the_end` of shares of `n` images, no narrower than Newcombe's interval over the images.

    All seeds share the images: seeds that agree, say at 100 %, do not make a difference known exactly. The interval of
    Newcombe (1998, method 10) takes the images of the two trainings as independent samples, which is too wide rather
    than too narrow where they are the same.
    """
    difference = difference_at_the_end(rows, pair)
    last = final_rows(rows[rows["training"].isin(pair)])
    if difference.count < 2 or last["n"].isna().any():
        return difference
    n = int(last["n"].min())
    first, second = (float(last.loc[last["training"] == training, "value"].mean()) for training in pair)
    (low, high), (second_low, second_high) = wilson(first, n), wilson(second, n)
    down = second - first - math.hypot(second - second_low, high - first)
    up = second - first + math.hypot(second_high - second, first - low)
    return difference._replace(low=min(difference.low, down), high=max(difference.high, up))
