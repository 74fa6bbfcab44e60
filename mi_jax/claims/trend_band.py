"""At which epochs two trends differ: a simultaneous band over epochs of the difference of two conditions."""

import math
from typing import NamedTuple

import numpy as np

from mi_jax.claims.curves import Curves, between_seeds, detrended
from mi_jax.statistics.intervals import LEVEL
from mi_jax.statistics.jackknife import Sample, crossed


class Band(NamedTuple):
    """Second minus first condition, mean over layers, less its mean over epochs, with its simultaneous 95 % band.

    Attributes:
        epochs: `[epochs]`.
        difference, half_width: in the unit of the curves, `[epochs]`.
        of_seeds: the differences of the seeds, `[seeds epochs]`.
        seed_distance: root mean square distance, over epochs, between the mean curves of two seeds of one condition.
    """

    epochs: np.ndarray
    difference: np.ndarray
    half_width: np.ndarray
    of_seeds: np.ndarray
    seed_distance: float

    @property
    def outside(self) -> np.ndarray:
        """The sign of the difference where the band excludes 0, else 0; `[epochs]`."""
        return np.sign(self.difference) * (np.abs(self.difference) > self.half_width)

    def in_words(self) -> str:
        """The epochs at which the band excludes 0.

        Examples:
            >>> epochs, difference = np.arange(1.0, 6.0), np.array([3.0, 2.0, 0.5, -2.5, 1.5])
            >>> Band(epochs, difference, np.ones(5), difference[None], 0.4).in_words()
            'band of the difference above 0 at epochs 1 to 2 and 5, below 0 at epoch 4'
            >>> Band(epochs, difference, np.full(5, 9.0), difference[None], 0.4).in_words()
            'band of the difference includes 0 at every epoch'
        """
        parts = []
        for sign, word in ((1, "above"), (-1, "below")):
            places = np.flatnonzero(self.outside == sign)
            runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if len(places) else []
            ends = [dict.fromkeys((f"{self.epochs[run[0]]:g}", f"{self.epochs[run[-1]]:g}")) for run in runs]
            if ends:
                noun = "epoch" if len(places) == 1 else "epochs"
                parts.append(f"{word} 0 at {noun} {' and '.join(' to '.join(end) for end in ends)}")
        return f"band of the difference {', '.join(parts) or 'includes 0 at every epoch'}"


def band(curves: Curves) -> Band:
    """The simultaneous band: Student's t over paired seeds at each epoch, by Bonferroni's inequality over epochs.

    It covers the whole curve in at least 95 % of runs for normal deviations with any variance and correlation over
    epochs, which three seeds cannot estimate: a bootstrap of the maximum from so few has no such guarantee.

    Args:
        curves: curves of at least two seeds.

    References:
        Bonferroni's inequality; Miller 1981.
    """
    first, second = (detrended(part.mean(axis=1, keepdims=True)) for part in (curves.first, curves.second))
    of_seeds = (second - first)[:, 0]
    effect = crossed(lambda each: each.mean(axis=0), Sample(of_seeds))
    half_width = effect.half_width(1 - (1 - LEVEL) / len(curves.epochs))
    apart = (between_seeds(first, first) + between_seeds(second, second)) / 2
    return Band(curves.epochs, np.asarray(effect.value), half_width, of_seeds, math.sqrt(apart))
