"""Curves of layers through training, of two conditions on what both have in common, and distances between them."""

import math
from typing import NamedTuple

import numpy as np

from mi_jax.claims.paired import evidence
from mi_jax.statistics.intervals import Table


class Curves(NamedTuple):
    """Curves of two conditions after epoch 0.

    Attributes:
        first, second: `[seeds layers epochs]`, paired by seed.
        layers: the layers that are neither saturated at every epoch nor constant.
        epochs: the measured epochs, `[epochs]`.
    """

    first: np.ndarray
    second: np.ndarray
    layers: list[str]
    epochs: np.ndarray


def aligned(a: Table, b: Table) -> Curves:
    """The curves of two conditions on the seeds, layers and epochs that both have.

    Args:
        a, b: record rows of one quantity (columns seed, layer, epoch, value, saturated).
    """
    tables = [
        evidence(rows[rows["epoch"] > 0]).pivot_table(
            index=["seed", "layer"], columns="epoch", values="value", sort=False
        )
        for rows in (a, b)
    ]
    both = tables[0].index.intersection(tables[1].index)
    seeds = sorted(set(both.get_level_values("seed")))
    found = set(both.get_level_values("layer")) - _always_saturated(a) - _always_saturated(b)
    layers = [layer for layer in dict.fromkeys(a["layer"]) if layer in found and all((s, layer) in both for s in seeds)]
    epochs = tables[0].columns.intersection(tables[1].columns)
    index = [(seed, layer) for seed in seeds for layer in layers]
    if index:
        whole = [table.loc[index, epochs].notna().all() for table in tables]
        epochs = epochs[(whole[0] & whole[1]).to_numpy()]
    shape = (len(seeds), len(layers), len(epochs))
    first, second = (table.loc[index, epochs].to_numpy(float).reshape(shape) for table in tables)
    moves = (
        (np.ptp(first, axis=-1) + np.ptp(second, axis=-1)).max(axis=0) > 0 if first.size else np.zeros(shape[1], bool)
    )
    kept = [layer for layer, one in zip(layers, moves, strict=True) if one]
    return Curves(first[:, moves], second[:, moves], kept, epochs.to_numpy(float))


def detrended(curves: np.ndarray) -> np.ndarray:
    """Curves `[... epochs]` less their means over epochs."""
    return curves - curves.mean(axis=-1, keepdims=True)


def between_seeds(a: np.ndarray, b: np.ndarray) -> float:
    """Mean squared distance between curves `[seeds layers epochs]` of different seeds; NaN for one seed."""
    seeds = len(a)
    squares = ((a[:, None] - b[None]) ** 2).mean(axis=(2, 3))
    return float((squares.sum() - np.trace(squares)) / (seeds * (seeds - 1))) if seeds > 1 else math.nan


def _always_saturated(rows: Table) -> set[str]:
    flags = rows["saturated"].fillna(False).astype(bool).groupby(rows["layer"]).min()
    return set(flags[flags].index)
