"""Times the KDE bounds of a layer against the usual dense formulas in torch, on the same rows.

Prints seconds, peak memory and the fraction of the machine's matrix-product rate. Needs the extra `bench`.
"""

import dataclasses
import gc
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from timing import matmul_rate, timed  # pyright: ignore[reportMissingImports]

from mi_jax.information import kde, noise_grid, noise_variance

CLASSES = 10
TARGETS = {1: 4.0, 16: 40.0}
"""Target speed relative to the dense code, by number of noise levels."""
_PATIENCE = 100.0
"""Seconds above which the dense code is timed at one noise level and multiplied by the number of levels."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """Times of mi_jax and of the dense code at one width and number of noise levels."""

    width: int
    levels: int
    ours: float
    """Seconds."""
    theirs: float
    extrapolated: bool
    """Whether `theirs` is the time at one level times the number of levels, each of which repeats all of the work."""
    our_peak: float | None
    """Memory beyond the activations in MiB; None where the system does not report it."""
    their_peak: float | None
    share: float
    """Rate of the distance computation, each pair counted once, as a fraction of that of a large matrix product."""
    difference: float
    """Largest difference between the two over the four bounds, bits."""

    @property
    def ratio(self) -> float:
        """How many times as fast as the dense code."""
        return self.theirs / self.ours


def main(
    *,
    rows: int = 5000,
    widths: tuple[int, ...] = (1024, 16384, 65536),
    levels: tuple[int, ...] = (1, 16),
    repeats: int = 3,
    quick: bool = False,
) -> list[Timing]:
    """Time both at every width and number of noise levels, in turn, and print a table of medians without compile time.

    Args:
        rows: number of activations, of `CLASSES` classes.
        widths: numbers of features.
        levels: numbers of noise levels.
        repeats: number of timed calls of each.
        quick: use 1,000 rows, narrow layers and one repeat, as a smoke test.
    """
    if quick:
        rows, widths, repeats = 1000, (256, 2048), 1
    rate = matmul_rate(1024 if quick else 3072)
    print(f"{rows} rows, {CLASSES} classes, {jax.default_backend()}, jax {jax.__version__}; {rate / 1e9:.0f} GFLOP/s")
    print(f"{'width':>7}{'levels':>7}{'ours s':>9}{'dense s':>10}{'ratio':>8}{'target':>8}{'ours MiB':>10}", end="")
    print(f"{'dense MiB':>11}{'of rate':>9}{'difference':>12}")
    timings = []
    for width in widths:
        t, y = activations(rows, width)
        scale = noise_variance(t, rule="trace")
        for count in levels:
            variances = np.array([scale]) if count == 1 else noise_grid(scale, levels=count)
            timing = compare(t, y, variances, rate, repeats)
            timings.append(timing)
            print(line(timing), flush=True)
    if any(t.extrapolated for t in timings):
        print("* one level, measured, times the number of levels")
    return timings


def line(t: Timing) -> str:
    """A line of the table."""
    peaks = [math.nan if peak is None else peak for peak in (t.our_peak, t.their_peak)]
    return (
        f"{t.width:>7}{t.levels:>7}{t.ours:>9.2f}{t.theirs:>9.2f}{'*' if t.extrapolated else ' '}{t.ratio:>8.1f}"
        f"{TARGETS.get(t.levels, math.nan):>8.0f}{peaks[0]:>10.0f}{peaks[1]:>11.0f}{t.share:>9.0%}{t.difference:>12.1e}"
    )


def activations(rows: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Rectified rows around a mean for each class, float32 [rows, width], and labels; generated in blocks of rows."""
    random = np.random.default_rng(0)
    y = np.arange(rows) % CLASSES
    means = 0.3 * random.standard_normal((CLASSES, width), np.float32)
    t = np.empty((rows, width), np.float32)
    for begin in range(0, rows, 500):
        block = slice(begin, min(begin + 500, rows))
        t[block] = means[y[block]] + random.standard_normal((block.stop - begin, width), np.float32)
    return np.maximum(t, 0, out=t), y


def compare(t: np.ndarray, y: np.ndarray, variances: np.ndarray, rate: float, repeats: int) -> Timing:
    """Time both in turn on the same rows, and measure the peak memory in the first run of each."""
    (rows, width), levels = t.shape, len(variances)
    kde(t, y, noise_variance=variances, num_classes=CLASSES)  # compiles
    single, their_peak = peak_memory(lambda: timed(lambda: dense_bounds(t, y, variances[:1])))
    extrapolated = levels > 1 and single[0] * levels * repeats > _PATIENCE
    asked = variances[:1] if extrapolated else variances
    ours, our_peak = peak_memory(lambda: timed(lambda: kde(t, y, noise_variance=variances, num_classes=CLASSES)))
    bounds = ours[1]
    mine, theirs, values = [ours[0]], [], single[1]
    if levels == 1 or extrapolated:
        theirs.append(single[0])
    while len(theirs) < repeats:
        took, values = timed(lambda: dense_bounds(t, y, asked))
        theirs.append(took)
        mine.append(timed(lambda: kde(t, y, noise_variance=variances, num_classes=CLASSES))[0])
    names = ("i_tx_upper", "i_tx_lower", "i_ty_upper", "i_ty_lower")
    got = np.stack([np.asarray(getattr(bounds, name))[: len(asked)] for name in names])
    our_time, their_time = statistics.median(mine), statistics.median(theirs)
    return Timing(
        width=width,
        levels=levels,
        ours=our_time,
        theirs=their_time * (levels if extrapolated else 1),
        extrapolated=extrapolated,
        our_peak=our_peak,
        their_peak=their_peak,
        share=rows * (rows + 1.0) * width / our_time / rate,
        difference=float(np.abs(got - values).max() / math.log(2)),
    )


def dense_bounds(t: np.ndarray, y: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """I(X;T) and I(T;Y), upper and lower, nats [4, levels], as information-plane code usually computes them in torch.

    For each noise level and bound: the whole matrix of distances, its logsumexp, and the same again for every class.
    """
    import torch

    x, labels = torch.from_numpy(t), torch.from_numpy(y)

    def entropy(rows: Any, variance: float) -> Any:
        """Kolchinsky-Tracey entropy of the mixture by the KL distance."""
        n, d = rows.shape
        norms = (rows * rows).sum(dim=1, keepdim=True)
        distances = norms + norms.T - 2 * rows @ rows.T
        constant = d / 2 * math.log(2 * math.pi * variance)
        return d / 2 - (torch.logsumexp(-distances / (2 * variance), dim=1) - math.log(n) - constant).mean()

    out = np.empty((4, len(variances)))
    d = t.shape[1]
    for s, variance in enumerate(variances.tolist()):
        noise = d / 2 * (math.log(2 * math.pi * variance) + 1)
        for side, factor in enumerate((1, 4)):
            shift = d / 2 * math.log(factor)

            def bound(rows: Any, factor: int = factor, shift: float = shift, variance: float = variance) -> Any:
                return entropy(rows, factor * variance) - shift

            whole = bound(x)
            within = sum((labels == k).float().mean() * bound(x[labels == k]) for k in range(CLASSES))
            out[side, s], out[2 + side, s] = float(whole - noise), float(whole - within)
    return out


def peak_memory(run: Callable[[], Any]) -> tuple[Any, float | None]:
    """The result of a call, and how much it raised the resident memory of this process in MiB; None if not on Linux.

    Writing 5 to clear_refs resets the high-water mark to the current resident memory.
    """
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = _resident("VmHWM")
    except OSError:
        return run(), None
    result = run()
    return result, _resident("VmHWM") - before


def _resident(field: str) -> float:
    status = Path("/proc/self/status").read_text()
    return next(int(entry.split()[1]) for entry in status.splitlines() if entry.startswith(field)) / 1024
