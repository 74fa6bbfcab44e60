"""Which estimator to trust where: one verdict per estimator, dimension and number of samples of the grid."""

import math
from typing import Any

import numpy as np
import pandas as pd

from mi_jax.information.benchmark.scores import GRID_INFORMATION
from mi_jax.information.estimator import ESTIMATORS

Table = Any
VERDICTS = {
    "accurate": "root mean square error at most a fifth of the true information",
    "bound": "a bound that holds, a lower one above 0, in at least nine of ten attempts, less accurate than that",
    "flagged": "neither, and flagged as unreliable in at least nine of ten attempts",
    "trivial": "a lower bound that holds in at least nine of ten attempts, but is 0 or less in more than one",
    "wrong": "none of these",
    "failed": "a value in fewer than nine of ten attempts",
}
"""The verdicts, from the best to the worst, and what they mean."""
_ACCURATE, _MOST = 0.2, 0.9
_TITLES = {"input": "I(X;T)", "label": "I(T;Y)", "continuous": "I(T;Z)"}
_INTRODUCTION = """\
`python experiments/validate_estimators.py` writes this table, from tasks whose information is known: {input} bits of
I(X;T), {label} bits of I(T;Y) and {continuous} bits of I(T;Z) between continuous variables."""
_LIMITS = """\
The variables are Gaussian, and the labels those of two normal distributions, so the closed form within the denoiser and
the linear probe are well specified here. Elsewhere they need not be: on clusters at little noise the denoiser is above
the truth, and a linear probe does not see a label that is not linearly coded. The figure of the tasks shows others."""


def trust(scores: Table) -> Table:
    """Return the verdict on every estimator in every cell of the grid.

    Estimators that measure another functional (kind "heuristic") can be accurate by mere chance; their verdict is
    nevertheless on the value as an estimate of the information.

    Args:
        scores: table of the rows of `score`.

    Returns:
        Table with columns target, estimator, dimension, n, verdict and rmse (bits).
    """
    grid = scores[scores["suite"] == "grid"]
    rows = []
    for cell, group in grid.groupby(["target", "estimator", "dimension", "n"], sort=False):
        good = group[group["ok"]]
        rmse = math.sqrt(float(np.mean((good["value"] - good["truth"]) ** 2))) if len(good) else math.nan
        failed = len(good) < _MOST * len(group)
        rows.append((*cell, "failed" if failed else _verdict(good, rmse), rmse))
    return pd.DataFrame(rows, columns=["target", "estimator", "dimension", "n", "verdict", "rmse"])


def _verdict(good: Table, rmse: float) -> str:
    if rmse <= _ACCURATE * float(good["truth"].iloc[0]):
        return "accurate"
    holds = good["held"].astype(float).mean() if good["kind"].isin(["lower", "upper"]).all() else 0.0
    above = (good["kind"].eq("upper") | (good["value"] > 0)).mean()
    if min(holds, above) >= _MOST:
        return "bound"
    if good["unreliable"].notna().mean() >= _MOST:
        return "flagged"
    return "trivial" if holds >= _MOST else "wrong"


def trust_page(verdicts: Table) -> str:
    """Write the verdicts as Markdown: a table per target, estimators down, dimensions and samples across.

    Args:
        verdicts: table from `trust`.
    """
    lines = ["# Which estimator to trust where", "", _INTRODUCTION.format(**GRID_INFORMATION), ""]
    lines += [f"- {verdict}: {meaning}" for verdict, meaning in VERDICTS.items()]
    lines += ["", _LIMITS]
    for target, part in verdicts.groupby("target", sort=False):
        cells = sorted(set(zip(part["dimension"], part["n"], strict=True)))
        found = {(row.estimator, row.dimension, row.n): row.verdict for row in part.itertuples()}
        lines += ["", f"## {_TITLES[target]}", ""]
        lines.append("| estimator | " + " | ".join(f"D = {d:g}, N = {n:g}" for d, n in cells) + " |")
        lines.append("|---" * (1 + len(cells)) + "|")
        for name in part["estimator"].unique():
            label = ESTIMATORS[name].label if name in ESTIMATORS else name
            lines.append(f"| {label} | " + " | ".join(found.get((name, d, n), "") for d, n in cells) + " |")
    return "\n".join(lines) + "\n"
