"""Binned information: activations are rounded down to a grid, and equal rows are counted exactly.

In high dimension all rows differ and the estimate says no more than that: without correction it is ln n, with
Miller-Madow about half a nat above. It is 0 when a layer fits in one bin.
"""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from mi_jax import checks
from mi_jax.errors import InputError
from mi_jax.information._input import as_activations, as_labels, check_finite
from mi_jax.information.estimator import Estimate, limit_of, register

CORRECTIONS = ("none", "miller_madow", "nsb")
_BLOCK_VALUES = 2**16
"""Values quantised at a time, so that the float64 copy stays in a processor's cache."""
_FIRST_FEATURES = 64


@dataclasses.dataclass(frozen=True)
class Binning:
    """Information of the quantised layer in nats."""

    i_tx: float
    i_ty: float | None
    saturation: float
    """i_tx / log n; it can exceed 1 with Miller-Madow."""
    saturated: bool
    bin_size: float
    n: int


def binning(
    t: Any,
    y: Any = None,
    *,
    bin_size: Any = 0.5,
    bins: float | int | None = None,
    correction: str = "none",
    num_classes: int | None = None,
    layer: str = "t",
) -> Binning:
    """Return I(X;T) = H(q) and I(T;Y) = H(q) - sum_k p_k H(q | k) of q = floor(t / bin_size), in nats.

    Args:
        t: activations [n, ...] of any float dtype.
        y: int labels [n] or None.
        bin_size: width of a bin, in units of the activations.
        bins: divides the layer's own range, from its smallest to its largest value, into that many equal parts, instead
            of `bin_size`.
        correction: of every entropy: "none"; "miller_madow", (cells - 1) / 2n; or "nsb" with as many cells as are
            occupied in the layer.
        num_classes: number of classes; by default the largest label plus one.
        layer: name for messages.

    Raises:
        InputError: for what `kde` refuses, a bin size or number of bins that is not positive, a number of bins that is
            not an integer, a bin size so small that t / bin_size overflows, a range too large or too small to divide,
            and an unknown correction.

    References:
        Shwartz-Ziv & Tishby 2017; Saxe et al. 2018; Miller & Madow 1955; Nemenman, Shafee & Bialek 2002.

    Examples:
        >>> import numpy as np
        >>> float(binning(np.array([[0.1], [0.2], [0.9], [0.8]]), np.array([0, 0, 1, 1])).i_ty / np.log(2))
        1.0
    """
    if correction not in CORRECTIONS:
        raise InputError(f"correction is {correction!r}; choose none, miller_madow or nsb.")
    x = np.asarray(as_activations(t, layer))
    check_finite(x, layer)
    origin, last = 0.0, np.inf
    if bins is not None:
        checks.count("bins", bins, usual="30")
        origin, last = float(x.min()), bins - 1.0
        spread = float(x.max()) - origin
        bin_size = spread / bins if spread > 0 else 1.0
        if not 0 < bin_size < np.inf:
            size = "large" if bin_size else "small"
            raise InputError(f"The range of {layer} is too {size} to be divided into {bins} bins; rescale it first.")
    bin_size = bin_size.item() if getattr(bin_size, "shape", None) == () else bin_size  # a number as an array
    checks.positive("bin_size", bin_size, usual="0.5")
    if not np.isfinite(max(abs(float(x.max())), abs(float(x.min()))) / bin_size):
        raise InputError(f"bin_size is {bin_size}; the values of {layer} are too large to be counted in such steps.")
    cells = _cells(x, origin, bin_size, last)
    occupied = int(cells.max()) + 1
    i_tx = _entropy(cells, correction, occupied)
    i_ty = None
    if y is not None:
        labels, _ = as_labels(y, len(x), num_classes)
        i_ty = i_tx - sum(
            np.mean(labels == k) * _entropy(cells[labels == k], correction, occupied) for k in np.unique(labels)
        )
    saturation = i_tx / np.log(len(x))
    return Binning(i_tx, i_ty, saturation, bool(saturation > 0.95), float(bin_size), len(x))


def _cells(x: np.ndarray, origin: float, bin_size: float | int, last: float) -> np.ndarray:
    """Number the distinct rows of bins, counted from `origin` and at most `last`: int [n], equal where all bins agree.

    Features are taken in blocks of growing width, each only of the rows that still share all bins with another: most
    rows of a wide layer differ in the first block.

    A bin is computed in float64, which holds every floor exactly, and compared in the narrowest type that holds all
    of them: int64 would wrap around beyond 9e18.
    """
    extremes = np.floor((np.asarray([x.min(), x.max()], np.float64) - origin) / bin_size)
    kind = next((k for k in (np.int8, np.int16, np.int32) if np.abs(extremes).max() <= np.iinfo(k).max), np.float64)
    n, begin, width = len(x), 0, _FIRST_FEATURES
    numbers, shared = np.zeros(n, np.int64), np.arange(n)
    while begin < x.shape[1] and len(shared):
        seen: dict[tuple[int, bytes], int] = {}
        rows = max(1, _BLOCK_VALUES // width)
        for first in range(0, len(shared), rows):
            part = shared[first : first + rows]
            block = x[part, begin : begin + width].astype(np.float64)
            block -= origin
            block /= bin_size
            np.floor(block, out=block)
            np.minimum(block, last, out=block)
            block += 0.0  # -0.0 and 0.0 differ in their bytes
            keys = zip(numbers[part].tolist(), map(np.ndarray.tobytes, block.astype(kind)), strict=True)
            numbers[part] = [n + seen.setdefault(key, len(seen)) for key in keys]
        _, numbers, counts = np.unique(numbers, return_inverse=True, return_counts=True)
        shared = np.flatnonzero(counts[numbers] > 1)
        begin, width = begin + width, 2 * width
    return numbers


def _entropy(cells: np.ndarray, correction: str, alphabet: int) -> float:
    """Entropy of cell numbers in nats; 0 for none."""
    if cells.size == 0:
        return 0.0
    counts = np.unique(cells, return_counts=True)[1]
    if correction == "nsb":
        return nsb_entropy(counts, alphabet)
    p = counts / cells.size
    plug_in = float(-np.sum(p * np.log(p)) + 0.0)
    return plug_in + ((len(counts) - 1) / (2 * cells.size) if correction == "miller_madow" else 0.0)


def nsb_entropy(counts: np.ndarray, alphabet: int) -> float:
    """Posterior mean of the entropy in nats under the Nemenman-Shafee-Bialek prior over `alphabet` cells.

    counts: positive occupation numbers; unoccupied cells need not be listed. The prior mixes symmetric Dirichlet priors
    of concentration b so that the prior of the entropy is near uniform; the integral over log b is a sum over a grid,
    first wide, then fine where the weight is.

    References:
        Nemenman, Shafee & Bialek 2002, eqs. 5 to 12.
    """
    if alphabet == 1:
        return 0.0
    values, times = np.unique(counts, return_counts=True)
    log_b = np.linspace(np.log(1e-8), np.log(1e8), 400)
    weight, _ = _nsb_terms(values, times, alphabet, log_b)
    kept = log_b[weight > weight.max() - 40]
    step = log_b[1] - log_b[0]
    weight, mean = _nsb_terms(values, times, alphabet, np.linspace(kept[0] - step, kept[-1] + step, 2000))
    weight = np.exp(weight - weight.max())
    return float(np.sum(weight * mean) / np.sum(weight))


def _nsb_terms(
    values: np.ndarray, times: np.ndarray, alphabet: int, log_b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the log weight of each log b, and the posterior mean entropy given b, [grid]."""
    from scipy.special import gammaln, polygamma, psi  # here, as scipy is slow to import and most callers do without

    k, n, b = alphabet, float(np.sum(values * times)), np.exp(log_b)
    v, total = values[:, None] + b, n + k * b
    likelihood = gammaln(k * b) - gammaln(total) + times @ (gammaln(v) - gammaln(b))
    slope = k * polygamma(1, k * b + 1) - polygamma(1, b + 1)  # of the entropy expected a priori
    seen, unseen = times @ (v * psi(v + 1)), (k - times.sum()) * b * psi(b + 1)
    return likelihood + np.log(np.maximum(slope, 1e-300)) + log_b, psi(total + 1) - (seen + unseen) / total


def _counted(name: str, correction: str, t: Any, other: Any = None, *, key: jax.Array, **options: Any) -> Estimate:
    """The registered form; a noise variance among the options is ignored, as no noise is added."""
    options.pop("noise_variance", None)
    result = binning(t, other, correction=correction, **options)
    value = result.i_tx if result.i_ty is None else result.i_ty
    settings = {"bin_size": result.bin_size, "correction": correction}
    limit = limit_of(saturated=result.saturated, undersampled=False)
    return Estimate(name, value, None, "heuristic", result.n, settings, {"saturation": result.saturation}, limit)


for _name, _correction, _label in (
    ("binning", "none", "binning"),
    ("binning_miller_madow", "miller_madow", "binning, Miller-Madow"),
    ("binning_nsb", "nsb", "binning, NSB"),
):
    register(
        _name,
        targets=("input", "label"),
        label=_label,
        title=_label[0].upper() + _label[1:],
        description="entropy of the quantised activations",
        studied=False,  # runs measure it at every epoch
    )(functools.partial(_counted, _name, _correction))
