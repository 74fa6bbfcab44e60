"""Figures of the estimator benchmark: bias and coverage over samples and dimension, bias by task, coverage."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mi_jax.information.estimator import ESTIMATORS
from mi_jax.plotting import style
from mi_jax.records.labels import MINUS
from mi_jax.statistics.intervals import wilson

Table = Any
TARGETS = {"input": "I(X;T)", "label": "I(T;Y)", "continuous": "I(T;Z)"}
_CLAIMS = {
    "noise": "mixture of the same rows, ± 1.96 standard errors",
    "rows": "mean over new rows, ± 2.09 jackknife errors",
    "population": "population, ± 2.09 jackknife errors",
    "bracket": "population, from plug-in to leave-one-out ± 2.09 errors",
}
_BIAS = matplotlib.colormaps["PuOr"]
_TICKS = (-10.0, -1.0, -0.1, 0.0, 0.1, 1.0, 10.0)
_COVERAGE = matplotlib.colormaps["cividis"]


def _labels(names: Any) -> dict[str, str]:
    """Labels of the estimators of a table by name, those that add noise first; names that are unknown come last."""
    present = dict.fromkeys(names)
    known = sorted((e for e in ESTIMATORS.values() if e.name in present), key=lambda e: -len(e.adds_noise))
    return {e.name: e.label for e in known} | {name: name for name in present if name not in ESTIMATORS}


def _signed(value: float) -> str:
    if abs(value) < 0.005:
        return "0.00"
    if abs(value) >= 99.5:
        return f"{value:+.0e}".replace("-", MINUS).replace("e+0", "e").replace("e+", "e")
    return (f"{value:+.1f}" if abs(value) >= 9.95 else f"{value:+.2f}").replace("-", MINUS)


def draw_grid(scores: Table, target: str) -> Figure:
    """Draw the bias in bits, and below it the share of intervals or bounds that hold, over dimension and samples.

    One panel per estimator; a cell without any estimate is hatched, one where most are flagged as unreliable starred.

    Args:
        scores: table of the rows of `score`.
        target: "input", "label" or "continuous".
    """
    part = scores[(scores["suite"] == "grid") & (scores["target"] == target)]
    names = _labels(part["estimator"])
    sizes, widths = sorted(part["n"].unique()), sorted(part["dimension"].unique())
    columns = min(len(names), 5 if len(names) > 6 else 3)
    rows = -(-len(names) // columns)
    figure = style.new_figure(0.75 + rows * (0.62 + 0.36 * len(sizes)), width=style.WIDTH)
    panels = style.grid_of(figure, rows, columns, sharex=True, sharey=True)
    known = float(part["truth"].iloc[0])
    norm = SymLogNorm(linthresh=0.1, vmin=-10, vmax=10)
    for axes, (name, label) in zip(panels.flat, names.items(), strict=False):
        own = part[part["estimator"] == name]
        for (i, n), (j, d) in ((a, b) for a in enumerate(sizes) for b in enumerate(widths)):
            _bias_cell(axes, j, i, own[(own["n"] == n) & (own["dimension"] == d)], norm, columns)
        axes.set_title(label, loc="left")
        _frame(axes, [f"{d:g}" for d in widths], [f"{n:g}" for n in sizes])
    for axes in panels.flat[len(names) :]:
        axes.set_axis_off()
    for j in range(columns):
        lowest = max(i for i in range(rows) if i * columns + j < len(names))
        panels[lowest, j].tick_params(labelbottom=True)
    figure.supxlabel("features D", fontsize=9)
    figure.supylabel("samples N", fontsize=9)
    figure.suptitle(
        f"{TARGETS[target]}: bias in bits at a true value of {known:.1f} bits; below it, "
        "how often the 95 % interval or the bound holds\n"
        "*: most estimates are flagged as unreliable; hatched: none could be made",
        fontsize=9,
    )
    _bar(figure, panels, _BIAS, norm, "bias (bits)")
    return figure


def _bias_cell(axes: Axes, x: int, y: int, group: Table, norm: Normalize, columns: int) -> None:
    if group.empty:
        return
    good = group[group["ok"]]
    if good.empty:
        _hatch(axes, x, y)
        return
    bias = float((good["value"] - good["truth"]).mean())
    rgba = _BIAS(norm(bias))
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=rgba, edgecolor="white", linewidth=0.6))
    ink = _ink(rgba)
    claims = good["held"].dropna()
    lift = 0.17 if len(claims) else 0.0
    star = "*" if good["unreliable"].notna().mean() > 0.5 else ""
    size = 7.0 if columns > 3 else 8.0
    axes.text(x, y + lift, _signed(bias) + star, ha="center", va="center", fontsize=size, color=ink)
    if len(claims):
        axes.text(
            x, y - 0.24, f"{claims.astype(float).mean():.0%}", ha="center", va="center", fontsize=size - 1.2, color=ink
        )


def draw_tasks(scores: Table) -> Figure:
    """Draw the bias in bits of every estimator on every task outside the grid; blank where a target is not supported.

    Estimators that add noise do so, by the trace rule, to tasks without any; what they then have less is no error.

    Args:
        scores: table of the rows of `score`.
    """
    part = scores[scores["suite"] == "tasks"]
    tasks = list(dict.fromkeys(zip(part["target"], part["task"], part["truth"], part["dimension"], strict=True)))
    names = _labels(part["estimator"])
    figure = style.new_figure(1.5 + 0.235 * len(tasks), width=style.WIDTH)
    axes = figure.subplots()
    norm = SymLogNorm(linthresh=0.1, vmin=-10, vmax=10)
    for i, (_, task, _, _) in enumerate(tasks):
        for j, name in enumerate(names):
            group = part[(part["task"] == task) & (part["estimator"] == name)]
            if group.empty:
                continue
            if not group["ok"].any():
                _hatch(axes, j, i)
                continue
            bias = float((group["value"] - group["truth"]).mean())
            rgba = _BIAS(norm(bias))
            axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=rgba, edgecolor="white", linewidth=0.6))
            axes.text(j, i, _signed(bias), ha="center", va="center", fontsize=7, color=_ink(rgba))
    labels = [f"{TARGETS[target]}  {task}  {known:.2f} bits" for target, task, known, _ in tasks]
    _frame(axes, list(names.values()), labels)
    axes.invert_yaxis()
    axes.tick_params(axis="x", labelrotation=35)
    for label in axes.get_xticklabels():
        label.set(ha="right", rotation_mode="anchor")
    axes.set_title(
        f"Bias in bits from {int(part['n'].iloc[0]):,} samples; hatched: no estimate, blank: target not supported",
        loc="left",
    )
    _bar(figure, axes, _BIAS, norm, "bias (bits)")
    return figure


def draw_coverage(coverage: Table) -> Figure:
    """Draw the coverage of the 95 % intervals of Monte Carlo in per cent, by dimension, noise, samples and classes.

    One row of panels per claim: the mixture of the given rows, new rows, the population, and its bracket by plug-in and
    leave-one-out values. The last row of each number of samples has two classes that differ in probability and spread.

    Args:
        coverage: table of the rows of `measure_coverage`.
    """
    widths, noise = sorted(coverage["dimension"].unique()), sorted(coverage["noise"].unique())
    rows = sorted(set(zip(coverage["n"], coverage["mix"], coverage["classes"], strict=True)))
    across = [(d, v) for d in widths for v in noise]
    claims = {claim: words for claim, words in _CLAIMS.items() if (coverage["claim"] == claim).any()}
    figure = style.new_figure(0.8 + (0.55 + 0.25 * len(rows)) * len(claims), width=style.WIDTH)
    panels = style.grid_of(figure, len(claims), 2, sharex=True, sharey=True)
    norm = Normalize(0.80, 1.10)  # the nominal 95 % is the middle of the colours
    for i, (claim, words) in enumerate(claims.items()):
        for j, quantity in enumerate(("i_tx", "i_ty")):
            axes = panels[i, j]
            part = coverage[(coverage["quantity"] == quantity) & (coverage["claim"] == claim)]
            for cell in part.itertuples():
                x, y = across.index((cell.dimension, cell.noise)), rows.index((cell.n, cell.mix, cell.classes))
                share = cell.covered / cell.repeats
                rgba = _COVERAGE(norm(share))
                axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=rgba, edgecolor="white", linewidth=0.6))
                axes.text(x, y, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=_ink(rgba))
            _frame(
                axes,
                [f"{v:g}" for _, v in across],
                [f"{n}, {k}" + (" unequal" if mix == "unequal" else "") for n, mix, k in rows],
            )
            axes.set_title(
                f"{TARGETS['input' if j == 0 else 'label']}: {words}\n{_pooled(part)}", loc="left", fontsize=8
            )
            for edge in range(len(noise), len(across), len(noise)):
                axes.axvline(edge - 0.5, color="white", linewidth=3)
            if i == len(claims) - 1:
                for k, d in enumerate(widths):
                    centre = (k + 0.5) / len(widths)
                    axes.annotate(
                        f"D = {d:g}", (centre, 0), xytext=(0, -17), xycoords="axes fraction",
                        textcoords="offset points", ha="center", va="top", fontsize=8,
                    )  # fmt: skip
    figure.supxlabel("noise variance in units of the trace rule, for each dimension D", fontsize=9)
    figure.supylabel("samples, classes", fontsize=9)
    return figure


def _pooled(part: Table) -> str:
    """Share of the intervals that hold, with its 95 % interval.

    The noise levels of a repeat share rows and draws, so that only repeats count as trials.
    """
    share = part["covered"].sum() / part["repeats"].sum()
    trials = int(part["repeats"].sum()) // part["noise"].nunique()
    low, high = wilson(share, trials)
    text = f"{share:.1%} covered in {trials:,} repeats ({low:.1%} to {high:.1%})"
    unflagged = part["repeats"].sum() - part["flagged"].sum()
    if part["claim"].iloc[0] != "population" or not unflagged:
        return text
    kept = (part["covered"].sum() - part["covered_flagged"].sum()) / unflagged
    return f"{text},\n{kept:.1%} of the {unflagged / part['repeats'].sum():.0%} that are not flagged"


def _frame(axes: Axes, across: list[str], down: list[str]) -> None:
    axes.set_xticks(range(len(across)), across)
    axes.set_yticks(range(len(down)), down)
    axes.set_xlim(-0.5, len(across) - 0.5)
    axes.set_ylim(-0.5, len(down) - 0.5)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _hatch(axes: Axes, x: int, y: int) -> None:
    axes.add_patch(
        Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor="#f2f2f2", edgecolor="#bdbdbd", hatch="////", linewidth=0)
    )


def _ink(rgba: Any) -> str:
    """Black or white, whichever has more contrast on a colour."""
    return "#222222" if np.dot(rgba[:3], (0.299, 0.587, 0.114)) > 0.55 else "white"


def _bar(figure: Figure, axes: Any, colours: Any, norm: Normalize, label: str) -> None:
    near = axes.ravel().tolist() if isinstance(axes, np.ndarray) else axes
    scale = ScalarMappable(norm, colours)
    bar = figure.colorbar(scale, ax=near, shrink=0.7, pad=0.015, aspect=30, ticks=_TICKS)
    bar.ax.set_yticklabels([f"{t:g}".replace("-", MINUS) for t in _TICKS])
    bar.ax.minorticks_off()
    bar.set_label(label)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
