"""Means and 95 % intervals: Student's t over seeds, Wilson's score over images."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

LEVEL = 0.95
Table = Any
"""A pandas.DataFrame (or Series): pandas annotates what it returns with unions that no type checker can follow."""


class Interval(NamedTuple):
    """A mean with its 95 % interval and the number of values behind it; the ends are NaN where there is no interval."""

    mean: float
    low: float
    high: float
    count: int

    def clipped(self, least: float, most: float) -> "Interval":
        """The same mean with both ends limited to the values that are possible; NaN ends stay.

        >>> Interval(0.9, 0.7, 1.1, 3).clipped(0.0, 1.0)
        Interval(mean=0.9, low=0.7, high=1.0, count=3)
        """
        return self._replace(low=max(self.low, least), high=min(self.high, most))

    def shifted(self, by: float) -> "Interval":
        """Mean and ends with a number added."""
        return self._replace(mean=self.mean + by, low=self.low + by, high=self.high + by)


def t_interval(values: ArrayLike) -> Interval:
    """Mean and 95 % Student-t interval of independent values (one per seed), any shape, NaN left out.

    With one value the ends are NaN: there is no interval. With none, the mean is NaN too.

    >>> t_interval([1.0, 3.0]).mean, round(t_interval([1.0, 3.0]).high, 3)
    (2.0, 14.706)
    """
    array = np.asarray(values, dtype=np.float64).ravel()
    array = array[~np.isnan(array)]
    if array.size == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = float(array.mean())
    if array.size == 1:
        return Interval(mean, math.nan, math.nan, 1)
    half = float(_t_factor(array.size) * array.std(ddof=1))
    return Interval(mean, mean - half, mean + half, int(array.size))


def wilson(rate: float, n: int) -> tuple[float, float]:
    """95 % score interval of a rate observed on n independent images (Wilson 1927).

    >>> low, high = wilson(0.5, 100)
    >>> round(low, 4), round(high, 4)
    (0.4038, 0.5962)
    >>> wilson(math.nan, 100)
    (nan, nan)
    """
    z = special.ndtri(0.5 + LEVEL / 2)
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    if math.isnan(rate):
        return math.nan, math.nan
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def joined(of_seeds: ArrayLike, of_images: ArrayLike) -> np.ndarray:
    """Half-widths over seeds and images together: variances of independent errors add.

    NaN stands for an error that was not measured, and leaves the other.

    >>> joined([0.03, math.nan], [0.04, 0.04]).round(3).tolist()
    [0.05, 0.04]
    """
    parts = np.stack([np.asarray(of_seeds, np.float64), np.asarray(of_images, np.float64)])
    total = np.sqrt(np.nansum(parts**2, axis=0))
    return np.where(np.isnan(parts).all(axis=0), math.nan, total)


def over_seeds(rows: Table, by: Sequence[str], *, within: tuple[float, float] = (-math.inf, math.inf)) -> Table:
    """Mean and 95 % t-interval over seeds of `value` for each combination of the columns `by`.

    Rows of one seed in one combination are averaged first, so that only seeds count as independent.

    Args:
        rows: records with the columns `by`, seed, value, saturated and n.
        by: the columns to group by; an absent value forms a separate group.
        within: the least and the largest value that are possible; the interval is clipped to them.

    Returns:
        A table sorted by `by`, with `mean`, `low`, `high`, the values `values` of the seeds (a tuple), their `least`
        and `most` and number `seeds`, `saturated` (in any seed) and `n` (the smallest).
    """
    keys = list(by)
    groups = rows.assign(saturated=rows["saturated"].fillna(False).astype(bool)).groupby([*keys, "seed"], dropna=False)
    per_seed = groups.agg(value=("value", "mean"), saturated=("saturated", "max"), n=("n", "min")).reset_index()
    combinations = per_seed.groupby(keys, dropna=False)
    table = combinations.agg(
        mean=("value", "mean"),
        spread=("value", "std"),
        least=("value", "min"),
        most=("value", "max"),
        seeds=("value", "count"),
        saturated=("saturated", "max"),
        n=("n", "min"),
    ).reset_index()
    # `per_seed` is sorted by `by`, as the table is: cutting it is many times faster than an aggregation into tuples.
    ends = np.cumsum(combinations.size().to_numpy())[:-1]
    table["values"] = [tuple(part[~np.isnan(part)]) for part in np.split(per_seed["value"].to_numpy(float), ends)][
        : len(table)
    ]
    half = table.pop("spread") * table["seeds"].map(_t_factor).astype(float)
    low, high = (table["mean"] - half).clip(lower=within[0]), (table["mean"] + half).clip(upper=within[1])
    return table.assign(low=low, high=high)


def accuracy_over_seeds(rows: Table, by: Sequence[str]) -> Table:
    """`over_seeds` of shares of images, with ends between 0 and 1 that join the error over images.

    All seeds share the `n` test images, so seeds that agree, say at 100 %, do not determine the accuracy exactly. On
    each side, the half-widths over seeds and of Wilson's interval over images are `joined` (Zou & Donner 2008). The
    interval of one seed is over images only, and without `n` it is over seeds only.
    """
    table = over_seeds(rows, by)
    mean, counted = table["mean"].to_numpy(float), zip(table["mean"], table["n"], strict=True)
    low, high = np.array(
        [wilson(rate, round(float(n))) if isinstance(n, Real) else (math.nan,) * 2 for rate, n in counted]
    ).T
    half = table["high"].to_numpy(float) - mean
    down, up = joined(half, mean - low), joined(half, high - mean)
    return table.assign(low=(mean - down).clip(min=0.0), high=(mean + up).clip(max=1.0))


def _t_factor(count: int) -> float:
    """Half-width of the interval in standard deviations; NaN for fewer than two values."""
    return float(special.stdtrit(count - 1, 0.5 + LEVEL / 2) / math.sqrt(count)) if count > 1 else math.nan
