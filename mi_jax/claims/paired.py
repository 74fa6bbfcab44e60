"""Two trainings at the end of a run, paired by seed and images: both trainings of a seed start from the same weights.

The networks of all seeds are measured on the same images, in the same blocks, so an interval of a difference contains
the errors over seeds and over images (crossed random effects, see `mi_jax.statistics.jackknife.crossed`).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from mi_jax.records.run_records import RunRecords, final_rows
from mi_jax.statistics.intervals import Interval, Table, joined, t_interval, wilson
from mi_jax.statistics.jackknife import Sample, blocks_from_text, crossed

Pair = tuple[str, str]
"""The names of the baseline and of the training compared with it."""
WHOLE_LAYERS = {"image_set": ("test", None), "class_": None, "factor": None, "distortion": None, "level": None}
"""Columns of the rows that describe entire layers on undistorted test images of all classes."""
END = "at the last epoch that all have reached (or, with held-out images, at the best epoch of each training on them)"
_OF_IMAGES = ("kde", "monte_carlo")
"""Estimators whose values concern the information of the images measured, so a small sample does not limit them."""
OVER_BOTH = "95 % intervals over seeds and images (crossed random effects), or over seeds only in older runs"


class Compared(NamedTuple):
    """Values of two trainings at the end, by paired seed and cell (a layer, or a layer at a noise variance).

    Attributes:
        first, second: of the baseline and of the other training, `[seeds cells]`.
        first_saturated, second_saturated: bool `[seeds cells]`: the value is a lower limit of what it estimates.
        ceiling: the largest value that the sample allows, log2 n.
        seeds: the seeds of both.
        cells: names of the cells.
        left_out_seeds: seeds of one of the two, in which nothing was measured in the other.
        left_out_cells: the cells that were not measured in every seed of both.
    """

    first: Sample
    second: Sample
    first_saturated: np.ndarray
    second_saturated: np.ndarray
    ceiling: float
    seeds: list[int]
    cells: list[str]
    left_out_seeds: list[int]
    left_out_cells: list[str]


def shares_noise(rows: Table, pair: Pair) -> bool:
    """Whether both trainings were measured with the same noise variance in every layer."""
    last = final_rows(rows[rows["training"].isin(pair)])
    table = last.pivot_table(index=["seed", "layer"], columns="training", values="noise_variance")
    if not set(pair) <= set(table.columns):
        return False
    return bool(np.isclose(table[pair[0]], table[pair[1]], rtol=1e-6).all())


def evidence(rows: Table) -> Table:
    """The rows, except for estimates beyond the limit of their estimator (dimension, batch size, training, ...).

    Bounds and Monte Carlo values stay: they concern the information of the images measured, whether or not these are
    enough for the population (see `undersampled`), and claims treat the saturated ones as limits.
    """
    of_images = rows["estimator"].isin(_OF_IMAGES) & rows["unreliable"].isin(("saturated", "sample size"))
    return rows[rows["unreliable"].isna() | of_images]


def undersampled(*tables: Table) -> tuple[int, int]:
    """In how many layers the sample is too small for the information of the population, and the number of layers.

    A layer counts where most of its estimates in one of the tables, one a condition, are flagged.
    """
    few, layers = set(), set()
    for rows in tables:
        flags: Table = rows["unreliable"].notna() | rows["saturated"].fillna(False).astype(bool)
        share = flags.groupby(rows["layer"]).mean()
        few |= set(share[share > 0.5].index)
        layers |= set(share.index)
    return len(few), len(layers)


def compared(rows: Table, pair: Pair, *, cell: str = "layer") -> Compared | None:
    """The cells that can be compared, on the seeds of both trainings; a cell is left out of all seeds or none.

    Args:
        rows: records of one quantity, with the column `cell`.
        pair: the two trainings.
        cell: the column that distinguishes cells.

    Returns:
        The values; None where no cell was measured in both trainings.
    """
    last = evidence(final_rows(rows[rows["training"].isin(pair)]))
    last = last.drop_duplicates(["training", "seed", cell], keep="last")
    names = list(dict.fromkeys(last[cell]))
    seen = [{int(seed) for seed in last.loc[last["training"] == training, "seed"].dropna()} for training in pair]
    seeds, lost = sorted(seen[0] & seen[1]), sorted(seen[0] ^ seen[1])
    if not seeds or not names:
        return None
    table = last.set_index(["training", "seed", cell])
    values = _grid(table["value"].astype(float), pair, seeds, names)
    whole = np.asarray(~np.isnan(values).any(axis=(0, 1)))
    kept = [name for name, complete in zip(names, whole, strict=True) if complete]
    if not kept:
        return None
    saturated = _grid(table["saturated"].fillna(False).astype(float), pair, seeds, kept) > 0
    blocks = _blocks(table["blocks"], pair, seeds, kept)
    first, second = (
        Sample(part, None if left_out is None else part[:, None] + left_out)
        for part, left_out in zip(values[:, :, whole], (None, None) if blocks is None else blocks, strict=True)
    )
    n = last["n"].min()
    ceiling = math.inf if n is pd.NA else math.log2(int(n))
    partial = [name for name, complete in zip(names, whole, strict=True) if not complete]
    return Compared(
        first=first,
        second=second,
        first_saturated=saturated[0],
        second_saturated=saturated[1],
        ceiling=ceiling,
        seeds=seeds,
        cells=kept,
        left_out_seeds=lost,
        left_out_cells=partial,
    )


def _grid(column: Table, pair: Pair, seeds: Sequence[int], cells: Sequence[str]) -> np.ndarray:
    """A column by training, seed and cell, `[2 seeds cells]`; NaN where there is no row."""
    index = pd.MultiIndex.from_product([pair, seeds, cells])
    return column.reindex(index).to_numpy(dtype=float).reshape(2, len(seeds), len(cells))


def _blocks(column: Table, pair: Pair, seeds: Sequence[int], cells: Sequence[str]) -> np.ndarray | None:
    """Deviations without each block of images, `[2 seeds blocks cells]`; None unless all cells have as many blocks."""
    index = pd.MultiIndex.from_product([pair, seeds, cells])
    texts = column.reindex(index)
    if texts.isna().any():
        return None
    parts = [blocks_from_text(text) for text in texts]
    if len({len(part) for part in parts}) > 1:
        return None
    return np.moveaxis(np.stack(parts).reshape(2, len(seeds), len(cells), -1), -1, 2)


def final_difference(rows: Table, pair: Pair) -> tuple[Interval, bool]:
    """Second minus first training at the end, paired by seed; `rows` hold one value per training and seed.

    Returns:
        The interval over seeds and images, and whether images are part of it: by their blocks, or by the standard
        errors of the rows, which may not be less than the blocks give (several values at 100 % have none).
    """
    found = compared(rows.assign(one="one"), pair, cell="one")
    if found is None:
        return t_interval([]), False
    effect = crossed(lambda a, b: (b - a).mean(), found.first, found.second)
    last = final_rows(rows[rows["training"].isin(pair)])
    squares = last["stderr"].pow(2).groupby(last["training"]).mean()
    if not effect.of_images.any() and squares.notna().all():
        # Independent images in the two trainings: conservative, as they are the same ones.
        effect = effect._replace(of_images=np.asarray(squares.sum()), blocks=10**6)
    return effect.interval(), bool(effect.of_images > 0)


def difference_of_shares(rows: Table, pair: Pair) -> tuple[Interval, bool]:
    """`final_difference` of shares of `n` images; where blocks are missing, with the error over images of Newcombe.

    All seeds share the images, so seeds that agree, say at 100 %, do not determine the difference exactly. Newcombe's
    interval (1998, method 10) treats the images of the two trainings as independent samples; as they are the same
    images, it is conservative. On each side, its half-width is `joined` with that over seeds.
    """
    interval, over_images = final_difference(rows.assign(stderr=math.nan), pair)
    last = final_rows(rows[rows["training"].isin(pair)])
    if not over_images and interval.count > 1 and last["n"].notna().all():
        n = int(last["n"].min())
        first, second = (float(last.loc[last["training"] == training, "value"].mean()) for training in pair)
        (low, high), (second_low, second_high) = wilson(first, n), wilson(second, n)
        half = interval.high - interval.mean
        down = joined(half, math.hypot(second - second_low, high - first))
        up = joined(half, math.hypot(second_high - second, first - low))
        interval, over_images = interval._replace(low=interval.mean - down, high=interval.mean + up), True
    return interval.clipped(-1.0, 1.0), over_images


def layer_information(
    run_records: RunRecords,
    quantity: str,
    noise_rule: str | None,
    *,
    inputs: str | Pair,
    estimator: str = "kde",
    attack: str | None = None,
) -> Table:
    """The rows of an information quantity of entire layers on test images, under one noise rule.

    Adversarial inputs are those of the attack that knows the label, unless another `attack` is named.
    """
    by = {} if attack is None else {"attack": attack}
    return run_records.select(
        quantity=quantity, estimator=estimator, noise_rule=noise_rule, inputs=inputs, **by, **WHOLE_LAYERS
    )


def missing(interval: Interval, what: str) -> str:
    """The remark on a difference that could not be formed; empty where it could."""
    return "" if interval.count else f"{what}: not measured in this run for both trainings"


def earlier_epoch(run_records: RunRecords, rows: Table, pair: Pair) -> str:
    """The remark on rows that are of an epoch before the last one of both trainings; else empty."""
    used, known = (table[table["training"].isin(pair)] for table in (rows, run_records.records))
    used = final_rows(used)
    epochs, last = sorted(used.loc[~used["final"], "epoch"].unique()), known["epoch"].max()
    if not epochs or epochs[0] == last:
        return ""
    noun = "epoch" if len(epochs) == 1 else "epochs"
    return f"measured at {noun} {', '.join(f'{epoch:g}' for epoch in epochs)}, while the run has epoch {last:g}"


def scope(run_records: RunRecords, rows: Table) -> str:
    """What a verdict is about: data set, network and number of images of the rows; empty without rows."""
    if rows.empty:
        return ""
    datasets, architectures = map(", ".join, (run_records.datasets, run_records.architectures))
    n = rows["n"].dropna()
    parts = [f"on {datasets}" if datasets else "", f"with {architectures}" if architectures else ""]
    return ", ".join(filter(None, [*parts, f"{int(n.max())} images" if len(n) else ""]))
