"""How alike two families of curves through training are: rank correlation per layer and seed.

It knows nothing of claims, thresholds of belief or figures.
"""

import math

import numpy as np
import pandas as pd

from mi_jax.statistics.intervals import Table

SMALLEST_MOVE = 0.1
"""Range in bits over epochs below which a curve counts as flat."""
FEWEST_EPOCHS = 4
"""Epochs that a rank correlation needs here."""


def similarity(a: Table, b: Table) -> tuple[np.ndarray, str]:
    """Spearman correlation over epochs of two conditions' curves, paired by seed: a value a seed, mean over layers.

    `a`, `b` are record rows of one quantity (columns seed, layer, epoch, value, saturated). Layers count if one of the
    two seed-mean curves moves by `SMALLEST_MOVE` and neither is saturated at every epoch. Returns the values (empty if
    they cannot be formed) and a remark: the layers and epochs used, or the reason.
    """
    if a.empty or b.empty:
        return np.empty(0), "not measured in this run"
    left, right = _curves(a), _curves(b)
    epochs = left.columns.intersection(right.columns)
    pairs = left.index.intersection(right.index)
    left, right = left.loc[pairs, epochs].dropna(axis=1), right.loc[pairs, epochs].dropna(axis=1)
    epochs = left.columns.intersection(right.columns)
    if len(epochs) < FEWEST_EPOCHS:
        return np.empty(0), f"{len(epochs)} common epochs; a trend needs {FEWEST_EPOCHS}"
    left, right = left[epochs], right[epochs]
    layers = _comparable(left, right, _always_saturated(a) | _always_saturated(b))
    if not layers:
        return np.empty(0), "every layer is saturated or flat"
    rows = [
        (seed, correlation(one, other))
        for (seed, layer), one, other in zip(pairs, left.to_numpy(), right.to_numpy(), strict=True)
        if layer in layers
    ]
    per_seed: Table = pd.DataFrame(rows, columns=["seed", "correlation"]).groupby("seed")["correlation"].mean()
    total = pairs.get_level_values("layer").nunique()
    return per_seed.to_numpy(), f"{len(layers)} of {total} layers, {len(epochs)} epochs"


def between_seeds(rows: Table) -> float:
    """Mean similarity of one condition's curves between seeds: what "the same trend" amounts to; NaN for one seed."""
    seeds = rows["seed"].dropna().unique()
    values = [
        similarity(rows[rows["seed"] == one].assign(seed=0), rows[rows["seed"] == other].assign(seed=0))[0]
        for i, one in enumerate(seeds)
        for other in seeds[i + 1 :]
    ]
    found = np.concatenate([np.empty(0), *values])
    return float(found.mean()) if found.size else math.nan


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation; 0 where one of the two is constant (it shares no trend with anything)."""
    ranks = [pd.Series(values).rank().to_numpy() for values in (a, b)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _curves(rows: Table) -> Table:
    """A row a (seed, layer), a column an epoch."""
    return rows.pivot_table(index=["seed", "layer"], columns="epoch", values="value", sort=False).sort_index(axis=1)


def _always_saturated(rows: Table) -> set[str]:
    flags = rows["saturated"].fillna(False).astype(bool).groupby(rows["layer"]).min()
    return set(flags[flags].index)


def _comparable(left: Table, right: Table, saturated: set[str]) -> set[str]:
    means = [curves.groupby(level="layer").mean() for curves in (left, right)]
    moves: Table = pd.concat([mean.max(axis=1) - mean.min(axis=1) for mean in means], axis=1).max(axis=1)
    return set(moves[moves >= SMALLEST_MOVE].index) - saturated
