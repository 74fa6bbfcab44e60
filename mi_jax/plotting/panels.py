"""What several figures of information by layer share: which layers and rows, the ceiling, and the legend."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from mi_jax.plotting import style
from mi_jax.records.labels import INPUTS
from mi_jax.records.run_records import RunRecords
from mi_jax.statistics.intervals import Table


def layers_of(run_records: RunRecords, rows: Table) -> list[str]:
    """The layers that have rows, in the order of the network."""
    present = set(rows["layer"].dropna())
    return [layer for layer in run_records.layers if layer in present]


def trainings_of(run_records: RunRecords, rows: Table) -> list[str]:
    """The trainings that have rows, in the order of the run."""
    present = set(rows["training"].dropna())
    return [training for training in run_records.trainings if training in present]


def ceiling_of(run_records: RunRecords, rows: Table, symbol: str) -> tuple[float, str] | None:
    """The largest possible estimate in bits, and its formula: log2 N for I(X;T); H(Y) or log2 K for I(T;Y)."""
    if symbol == "i_tx":
        n = rows["n"].dropna()
        return (math.log2(int(n.min())), "log₂ N") if len(n) else None
    images = {}
    for table in (run_records.failed, run_records.records):  # a class counts even if all of its estimates failed
        of_class = table[(table["quantity"] == "i_tx_given_y_upper") & (table["inputs"] == "clean")].dropna(subset="n")
        images |= dict(zip(of_class["class"], of_class["n"], strict=True))
    if not images:
        return None
    counts = np.array(list(images.values()), dtype=float)
    if counts.sum() not in set(rows["n"].dropna()):
        return math.log2(len(counts)), "log₂ K"
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum()), "H(Y)"


def finish_panels(run_records: RunRecords, rows: Table, symbol: str, panels: Sequence[Axes]) -> list[Line2D]:
    """Draws the ceiling, gives panels of one quantity the same y-limits, and returns the ceiling's legend entry."""
    ceiling = ceiling_of(run_records, rows, symbol)
    if ceiling:
        for axes in panels:
            style.draw_ceiling(axes, ceiling[0])
    style.fit(panels)
    return [style.ceiling_handle(f"{ceiling[1]} = {ceiling[0]:.2f} bits")] if ceiling else []


def handles_of(run_records: RunRecords, rows: Table) -> list[Line2D]:
    """Legend entries for the trainings and inputs that have rows."""
    kinds = [kind for kind in INPUTS if (rows["inputs"] == kind).any()]
    hollow = bool(rows["saturated"].fillna(False).any())
    return style.condition_handles(trainings_of(run_records, rows), kinds, hollow=hollow)


def flagged(rows: Table) -> Table:
    """Let `saturated`, by which points are hollow, include every limit in `unreliable`."""
    return rows.assign(saturated=rows["saturated"].eq(True) | rows["unreliable"].notna())


def unit_of(rows: Table) -> str:
    """The unit of the rows."""
    return "/".join(rows["unit"].dropna().unique()) or "unit not recorded"
