"""Scales of Gaussian kernels that share exponentials: exp(-d/c)^2 is the kernel at c/2.

Only arithmetic on the scales; the kernels themselves are in `_pairwise`.
"""

from typing import NamedTuple

import numpy as np


class Ladder(NamedTuple):
    """Scales as base / power; one fixed tuple of powers for all bases keeps one compiled function."""

    bases: np.ndarray
    powers: tuple[int, ...]
    index: np.ndarray
    """Where each wanted scale stands in the flattened table [base, power]."""


def ladder(scales: np.ndarray) -> Ladder:
    """Plan the kernels at the given scales with few exponentials.

    A bound at noise variance v needs c = 8 v and c = 2 v, two squarings apart. A grid of variances in factors of two
    needs one exponential for every five scales: each squaring doubles the relative error of a kernel value, and four
    in a row keep it below 1e-6 in float32.
    """
    wanted = np.unique(scales)[::-1]
    octaves = np.log2(wanted[0] / wanted)
    if len(wanted) > 4 and np.abs(octaves - np.round(octaves)).max() < 1e-9 and octaves[-1] < 1.5 * len(wanted):
        powers = (1, 2, 4, 8, 16)
        bases = wanted[0] / 32.0 ** np.arange(int(np.round(octaves[-1])) // 5 + 1)
    else:
        powers, chosen = (1, 4), []
        for c in wanted:
            if not any(np.isclose(c, b / 4, rtol=1e-12, atol=0) for b in chosen):
                chosen.append(c)
        bases = np.array(chosen)
    table = (bases[:, None] / np.array(powers)).ravel()
    index = np.argmin(np.abs(np.log(table[None, :] / scales[:, None])), axis=1)
    return Ladder(bases, powers, index)
