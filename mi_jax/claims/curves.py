"""Curves of layers through training, of two conditions on what both have in common, and distances between them."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from mi_jax.claims.paired import evidence
from mi_jax.statistics.intervals import Table

_DIGITS = 1e-6
"""Change relative to the value that is none: published values have seven digits."""
_CEILING = 0.25
"""Share of saturated values from which a layer is left out."""


class Curves(NamedTuple):
    """Curves of two conditions after epoch 0.

    Attributes:
        first, second: `[seeds layers epochs]`, paired by seed.
        layers: the layers that are neither constant up to rounding nor saturated in a quarter of their values.
        epochs: the measured epochs, `[epochs]`.
    """

    first: np.ndarray
    second: np.ndarray
    layers: list[str]
    epochs: np.ndarray


def aligned(a: Table, b: Table) -> Curves:
    """The curves of two conditions on the seeds, layers and epochs that both have.

    Args:
        a, b: record rows of one quantity (columns seed, layer, epoch, value, saturated, numerical_error, ...).
    """
    by = ["seed", "layer", "epoch"]
    a, b = (rows[rows["epoch"] > 0] for rows in (a, b))
    means = [evidence(rows).groupby(by, sort=False)["value"].mean() for rows in (a, b)]
    seeds, epochs = (
        np.intersect1d(*(mean.index.get_level_values(name) for mean in means)) for name in ("seed", "epoch")
    )
    excluded = _saturated(a) | _saturated(b)
    layers = [layer for layer in dict.fromkeys(a["layer"]) if layer not in excluded]
    index = pd.MultiIndex.from_product([seeds, layers, epochs])
    shape = (2, len(seeds), len(layers), len(epochs))
    values: np.ndarray = np.concatenate([mean.reindex(index).to_numpy(float) for mean in means]).reshape(shape)
    common = np.isfinite(values).sum(axis=3).min(axis=0) > 0  # [seeds layers]
    used = common.sum(axis=1) > 0
    values, kept = values[:, used], common[used].sum(axis=0) == used.sum()
    layers, values = [layer for layer, one in zip(layers, kept, strict=True) if one], values[:, :, kept]
    whole = np.isnan(values).sum(axis=(0, 1, 2)) == 0
    values, epochs = values[..., whole], epochs[whole]
    of_layers: Table = pd.concat([a, b]).groupby("layer")["numerical_error"].max()
    errors = of_layers.reindex(layers).fillna(0.0).to_numpy(float)
    least = 2 * errors + _DIGITS * np.abs(values).max(axis=-1, initial=0.0)
    moves = (values.max(axis=-1, initial=-np.inf) - values.min(axis=-1, initial=np.inf) > least).any(axis=(0, 1))
    layers = [layer for layer, one in zip(layers, moves, strict=True) if one]
    return Curves(values[0][:, moves], values[1][:, moves], layers, epochs)


def detrended(curves: np.ndarray) -> np.ndarray:
    """Curves `[... epochs]` less their means over epochs."""
    return curves - curves.mean(axis=-1, keepdims=True)


def between_seeds(a: np.ndarray, b: np.ndarray) -> float:
    """Mean squared distance between curves `[seeds layers epochs]` of different seeds; NaN for one seed."""
    seeds = len(a)
    squares = ((a[:, None] - b[None]) ** 2).mean(axis=(2, 3))
    return float((squares.sum() - np.trace(squares)) / (seeds * (seeds - 1))) if seeds > 1 else math.nan


def _saturated(rows: Table) -> set[str]:
    """The layers of which a quarter of the values are at the ceiling, where curves agree by construction."""
    shares = rows["saturated"].fillna(False).astype(float).groupby(rows["layer"]).mean()
    return set(shares[shares >= _CEILING].index)
