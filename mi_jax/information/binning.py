"""Binned information: activations rounded down to a grid, rows counted.

Exact counting of distinct rows; saturates at log n in high dimension and is 0 when a layer fits in one bin.
"""

import dataclasses
from typing import Any

import numpy as np

from mi_jax.errors import InputError
from mi_jax.information._input import Activations, as_activations, as_labels, check_finite

_BLOCK = 256
"""Rows that are quantised at a time, so that the float64 copy stays small."""


@dataclasses.dataclass(frozen=True)
class Binning:
    """Information of the quantised layer in nats."""

    i_tx: float
    i_ty: float | None
    saturation: float
    """i_tx / log n."""
    saturated: bool
    bin_size: float
    n: int


def binning(
    t: Any,
    y: Any = None,
    *,
    bin_size: float = 0.5,
    num_classes: int | None = None,
    layer: str = "t",
) -> Binning:
    """Return I(X;T) = H(q) and I(T;Y) = H(q) - sum_k p_k H(q | k) of q = floor(t / bin_size), in nats.

    t: [n, ...] of any float dtype; y: int [n] or None. Raises InputError for what `kde` refuses and for a bin size that
    is not positive. Source: Shwartz-Ziv & Tishby 2017; Saxe et al. 2018.

    Examples:
      >>> import numpy as np
      >>> float(binning(np.array([[0.1], [0.2], [0.9], [0.8]]), np.array([0, 0, 1, 1])).i_ty / np.log(2))
      1.0
    """
    if not (np.isfinite(bin_size) and bin_size > 0):
        raise InputError(f"bin_size is {bin_size}: it must be positive and finite.")
    x = as_activations(t, layer)
    check_finite(x, layer)
    cells = _cells(x, bin_size)
    i_tx = _entropy(cells)
    i_ty = None
    if y is not None:
        labels, classes = as_labels(y, len(x), num_classes)
        i_ty = i_tx - sum(np.mean(labels == k) * _entropy(cells[labels == k]) for k in range(classes))
    saturation = i_tx / np.log(len(x))
    return Binning(i_tx, i_ty, saturation, bool(saturation > 0.95), float(bin_size), len(x))


def _cells(x: Activations, bin_size: float) -> np.ndarray:
    """Number the distinct quantised rows: int [n], equal where all bins agree."""
    seen: dict[bytes, int] = {}
    numbers = np.empty(len(x), np.int64)
    for begin in range(0, len(x), _BLOCK):
        block = np.floor(np.asarray(x[begin : begin + _BLOCK], np.float64) / bin_size).astype(np.int64)
        for row, q in enumerate(block, begin):
            numbers[row] = seen.setdefault(q.tobytes(), len(seen))
    return numbers


def _entropy(cells: np.ndarray) -> float:
    """Plug-in entropy of cell numbers in nats; 0 for none."""
    if cells.size == 0:
        return 0.0
    p = np.unique(cells, return_counts=True)[1] / cells.size
    return float(-np.sum(p * np.log(p)) + 0.0)
