"""Two trainings at the end of a run, seed by seed: differences, layers that can be compared, rulers they share.

It turns rows into paired tables; it judges nothing.
"""

import numpy as np
import pandas as pd

from mi_jax.report.evidence import at_the_end
from mi_jax.report.intervals import Interval, Table, t_interval


def shares_noise(rows: Table, pair: tuple[str, str]) -> bool:
    """Whether two trainings were measured with the same noise variance in every layer (a ruler frozen across them)."""
    last = at_the_end(rows[rows["training"].isin(pair)])
    table = last.pivot_table(index=["seed", "layer"], columns="training", values="noise_variance")
    if not set(pair) <= set(table.columns):
        return False
    return bool(np.isclose(table[pair[0]], table[pair[1]], rtol=1e-6).all())


def by_layer(rows: Table, pair: tuple[str, str]) -> tuple[Table, list[str]]:
    """Values at the end: a row a paired seed, columns (training, layer); and the layers dropped as saturated."""
    last = at_the_end(rows[rows["training"].isin(pair)])
    dropped = list(last.loc[last["saturated"].fillna(False).astype(bool), "layer"].unique())
    last = last[~last["layer"].isin(dropped)]
    if set(pair) - set(last["training"]):
        return pd.DataFrame(), dropped
    table = last.pivot_table(index="seed", columns=["training", "layer"], values="value", sort=False)
    complete = table[pair[0]].columns.intersection(table[pair[1]].columns)
    return table.loc[:, table.columns.get_level_values("layer").isin(complete)].dropna(), dropped


def difference_at_the_end(rows: Table, pair: tuple[str, str]) -> Interval:
    """Second minus first training at the end, paired by seed, of rows with one value a training and seed."""
    last = at_the_end(rows[rows["training"].isin(pair)])
    table = last.pivot_table(index="seed", columns="training", values="value")
    if not set(pair) <= set(table.columns):
        return t_interval([])
    return t_interval(table[pair[1]] - table[pair[0]])
