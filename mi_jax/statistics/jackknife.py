"""The delete-block jackknife over images, and intervals over seeds and images together.

A run measures networks of several seeds on one sample of images, so a statistic varies with both, and the images are
common to all seeds: more seeds do not average their part of the error away.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from mi_jax.statistics.intervals import LEVEL, Interval

BLOCKS = 10
"""Blocks of images in a run's records."""
_STEP = 1e-5
"""Unit of the numbers in `blocks_to_text`: small compared with any standard error over images."""
Statistic = Callable[..., Any]
"""A function of arrays `[seeds ...]`, one a condition, to a number or an array `[cells]`."""


class Sample(NamedTuple):
    """One quantity of one condition.

    Attributes:
        values: `[seeds ...]`.
        without_block: `[seeds blocks ...]`, the same without each block of images in turn; None where not measured.
    """

    values: np.ndarray
    without_block: np.ndarray | None = None


def image_blocks(n: int, blocks: int = BLOCKS) -> np.ndarray:
    """The block of each of n images: equal in size, independent of labels and order, and the same in every call.

    Args:
        n: number of images.
        blocks: number of blocks; at most one an image.

    Returns:
        int `[n]`.

    Examples:
        >>> np.bincount(image_blocks(25, 10)).tolist()
        [3, 3, 3, 3, 3, 2, 2, 2, 2, 2]
    """
    return np.random.default_rng(0).permutation(n) % min(blocks, n)


def means_without_block(values: np.ndarray, blocks: int = BLOCKS) -> np.ndarray:
    """The mean of one value per image without each block of images in turn.

    Args:
        values: `[n ...]`, one row an image.
        blocks: number of blocks.

    Returns:
        `[blocks ...]`.
    """
    values = np.asarray(values, np.float64)
    block = image_blocks(len(values), blocks)
    return np.stack([values[block != b].mean(axis=0) for b in range(block.max() + 1)])


def blocks_to_text(without_block: np.ndarray) -> str | None:
    """The column `blocks` of a record: deviations of the values without each block from their mean, in 1e-5.

    Args:
        without_block: `[blocks]`, in the unit of the record.

    Returns:
        Integers separated by spaces; None where a value is not finite.

    Examples:
        >>> blocks_to_text(np.array([1.0, 1.002, 1.001]))
        '-100 100 0'
    """
    values = np.asarray(without_block, np.float64)
    if not np.isfinite(values).all():
        return None
    return " ".join(str(int(step)) for step in np.rint((values - values.mean()) / _STEP))


def blocks_from_text(text: str) -> np.ndarray:
    """The deviations `[blocks]` that `blocks_to_text` wrote.

    Examples:
        >>> blocks_from_text("-100 100 0").tolist()
        [-0.001, 0.001, 0.0]
    """
    return np.array([int(step) for step in text.split()]) * _STEP


class Crossed(NamedTuple):
    """A statistic of S seeds and a sample of images with the variances of its two sources, arrays `[cells]`.

    Attributes:
        value: the statistic.
        of_seeds, of_images: its variance over seeds (NaN for one seed) and over images (0 where not measured).
        seeds, blocks: their numbers; `blocks` is 0 where images were not measured.
    """

    value: np.ndarray
    of_seeds: np.ndarray
    of_images: np.ndarray
    seeds: int
    blocks: int

    @property
    def stderr(self) -> np.ndarray:
        """Standard error over both."""
        return np.asarray(np.sqrt(self.of_seeds + self.of_images))

    @property
    def degrees(self) -> np.ndarray:
        """Degrees of freedom of `stderr` (Satterthwaite 1946); at least one."""
        total = self.of_seeds + self.of_images
        parts = self.of_seeds**2 / max(self.seeds - 1, 1) + self.of_images**2 / max(self.blocks - 1, 1)
        exact = np.full(np.shape(total), float(max(self.seeds - 1, 1)))
        return np.asarray(np.divide(total**2, parts, out=exact, where=parts > 0))

    def interval(self, level: float = LEVEL) -> Interval:
        """The interval of a single number."""
        value, half = float(self.value), float(self.half_width(level))
        return Interval(value, value - half, value + half, self.seeds)

    def half_width(self, level: float = LEVEL) -> np.ndarray:
        """Half the width of each cell's own interval: that over both, and no less than that over seeds or images only.

        With few seeds the degrees of freedom grow with the part of the images, which could narrow the interval.
        """
        halves = [special.stdtrit(df, 0.5 + level / 2) * error for df, error in self._parts()]
        return np.asarray(np.maximum.reduce(halves))

    def p_values(self, null: float | np.ndarray = 0.0) -> np.ndarray:
        """Two-sided p-values of each cell against the value `null`; 1 where there is no standard error."""
        distance = np.abs(self.value - null)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = [2 * special.stdtr(df, -np.where(distance > 0, distance / e, 0.0)) for df, e in self._parts()]
        largest = np.maximum.reduce(np.nan_to_num(found, nan=1.0))
        return np.asarray(np.where(self.stderr == 0, 1.0, largest))

    def _parts(self) -> list[tuple[Any, np.ndarray]]:
        """Degrees of freedom and standard errors: of both together, of seeds only, of images only."""
        return [
            (self.degrees, self.stderr),
            (max(self.seeds - 1, 1), np.asarray(np.sqrt(self.of_seeds))),
            (max(self.blocks - 1, 1), np.asarray(np.sqrt(self.of_images))),
        ]


def crossed(statistic: Statistic, *samples: Sample) -> Crossed:
    """A statistic with its variance over seeds and over images, for crossed random effects.

    The model of a value of seed s on images i is mu + A_s + B_i + (AB)_si: all seeds are measured on the same images.
    The variance of the statistic is taken as the jackknife over seeds plus the delete-block jackknife over images.
    Both contain the part of (AB), which is thus counted twice, so the sum is at least the variance in expectation
    (Owen 2007, section 4); subtracting it, as for two-way clusters, may give a negative variance from few seeds.

    Args:
        statistic: function of the samples' values; it is evaluated on all, without each seed, and without each block.
        *samples: of the same seeds and blocks of images.

    Returns:
        The statistic with its variances.

    References:
        Owen 2007 (crossed random effects); Efron & Stein 1981 (the jackknife variance is conservative).

    Examples:
        >>> found = crossed(lambda a, b: (b - a).mean(), Sample(np.array([1.0, 2.0])), Sample(np.array([2.0, 5.0])))
        >>> float(found.value), float(found.stderr)
        (2.0, 1.0)
    """
    arrays = [np.asarray(sample.values, np.float64) for sample in samples]
    seeds = len(arrays[0])
    value = np.asarray(statistic(*arrays), np.float64)
    of_seeds = np.full(value.shape, math.nan)
    if seeds > 1:
        of_seeds = _variance([statistic(*[np.delete(a, s, axis=0) for a in arrays]) for s in range(seeds)])
    left_out = [sample.without_block for sample in samples]
    if any(part is None for part in left_out):
        return Crossed(value, of_seeds, np.zeros(value.shape), seeds, 0)
    blocks = min(part.shape[1] for part in left_out if part is not None)
    of_images = _variance([statistic(*[part[:, b] for part in left_out if part is not None]) for b in range(blocks)])
    return Crossed(value, of_seeds, of_images, seeds, blocks)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """P-values adjusted for their number, valid under any dependence (Holm 1979).

    Args:
        p_values: `[cells]`.

    Returns:
        Adjusted values `[cells]`: those of at most 0.05 have a family-wise error of at most 5 %.

    Examples:
        >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
        [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


def _variance(replicates: Sequence[Any]) -> np.ndarray:
    """Jackknife variance from the values without one part each."""
    values = np.stack([np.asarray(value, np.float64) for value in replicates])
    return np.asarray((len(values) - 1) * values.var(axis=0))
