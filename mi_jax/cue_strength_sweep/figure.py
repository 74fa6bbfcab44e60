"""Heat maps of how adversarial training moves the shape bias over a grid of cue strengths, tested over seeds."""

import re
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy import stats

from mi_jax.plotting import style
from mi_jax.plotting.figures import FigureSpec, register
from mi_jax.records.labels import MINUS, counted
from mi_jax.records.run_records import RunRecords
from mi_jax.statistics.intervals import LEVEL, Table, t_interval

_CELL = re.compile(r"rho_shape=(?P<rho_shape>[^,]+),rho_texture=(?P<rho_texture>[^,]+),(?P<scale>fine|coarse)")
_NORMS = {"linf": "L∞", "l2": "L2"}
_UNTRAINED_ACCURACY = 0.2
"""Clean accuracy below which a network has not learnt the task: twice chance for ten classes."""
_LEARNT_SHARE = 0.5
"""Share of the seeds that must have learnt the task for a cell to be compared."""
_MAP = matplotlib.colormaps["PuOr"]


def cells_of(run_records: RunRecords) -> Table:
    """Shape bias and clean accuracy of every network of a sweep.

    Columns rho_shape, rho_texture, scale, training, seed, bias, accuracy; empty if the records are not of a sweep.
    """
    keys = ["cell", "training", "seed"]
    bias = run_records.select(quantity="shape_bias", inputs="clean", image_set="conflict", factor=None)
    bias = bias.set_index(keys)["value"]
    accuracy = run_records.select(quantity="accuracy", inputs="clean", image_set="test").set_index(keys)["value"]
    table = pd.DataFrame({"bias": bias}).join(accuracy.rename("accuracy")).reset_index()
    table = table[table["cell"].notna()]
    if table.empty:
        return table
    cells = pd.Series(table["cell"]).str.extract(_CELL).astype({"rho_shape": float, "rho_texture": float})
    return table.join(cells)


def contrast(cells: Table, treated: str, baseline: str) -> Table:
    """The difference in shape bias of two trainings in every cell, paired by seed.

    Seeds of which a network stayed near chance on clean images, so that its bias is meaningless, are left out: the
    difference is that between networks that have learnt the task.

    Columns rho_shape, rho_texture, scale, before, after (mean biases), mean, low, high (95 % t-interval), p (two-sided
    paired t-test), significant (p after Holm's correction over the cells below 0.05), seeds, left_out (seeds), and
    failed: whether more than half of the seeds are left out.
    """
    keys = ["rho_shape", "rho_texture", "scale", "seed"]
    pair = cells[cells["training"] == treated].merge(cells[cells["training"] == baseline], on=keys, suffixes=("", "_0"))
    rows = []
    for (shape, texture, scale), everyone in pair.groupby(keys[:3]):
        learnt = everyone[["accuracy", "accuracy_0"]].min(axis=1) >= _UNTRAINED_ACCURACY
        group = everyone[learnt]
        gap = (group["bias"] - group["bias_0"]).to_numpy(dtype=float)
        interval = t_interval(gap)
        rows.append(
            {
                "rho_shape": shape,
                "rho_texture": texture,
                "scale": scale,
                "before": group["bias_0"].mean(),
                "after": group["bias"].mean(),
                "mean": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "p": _p_value(gap),
                "seeds": interval.count,
                "left_out": int((~learnt).sum()),
                "failed": learnt.mean() < _LEARNT_SHARE,
            }
        )
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    # Cells whose training failed are not tested, and do not count in the correction.
    return table.assign(significant=_holm(table["p"].where(~table["failed"]).to_numpy(dtype=float)))


def _p_value(gap: np.ndarray) -> float:
    if len(gap) < 2:
        return np.nan
    if np.allclose(gap, gap[0], rtol=1e-12, atol=0):
        return 1.0  # no standard error: as in `statistics.jackknife.Crossed.p_values`
    return float(stats.ttest_1samp(gap, 0).pvalue)  # pyright: ignore[reportAttributeAccessIssue]


def _holm(p: np.ndarray) -> np.ndarray:
    """Which hypotheses Holm's step-down procedure rejects at the 5 % level; NaN is left out."""
    rejected = np.zeros(len(p), bool)
    order = [i for i in np.argsort(p) if np.isfinite(p[i])]
    for rank, i in enumerate(order):
        if p[i] > (1 - LEVEL) / (len(order) - rank):
            break
        rejected[i] = True
    return rejected


def _panels(cells: Table) -> list[list[tuple[str, str, str]]]:
    """Rows of (title, treated, baseline) that the records allow: against NT, and against matched NT networks."""
    trained = set(cells["training"])
    norms = [norm for norm in _NORMS if f"at-{norm}" in trained]
    first = [(f"AT ({_NORMS[norm]}) {MINUS} NT", f"at-{norm}", "nt") for norm in norms]
    if "noise" in trained:
        first.append((f"Gaussian noise {MINUS} NT", "noise", "nt"))
    second = [
        (f"AT ({_NORMS[norm]}) {MINUS} NT of equal clean accuracy", f"at-{norm}", f"matched-{norm}")
        for norm in norms
        if f"matched-{norm}" in trained
    ]
    return [row for row in (first, second) if row]


def _draw(run_records: RunRecords) -> Figure:
    cells = cells_of(run_records)
    rows = _panels(cells)
    fine, coarse = (cells[cells["scale"] == scale] for scale in ("fine", "coarse"))
    columns = max(map(len, rows))
    if len(coarse) and all(len(row) == columns for row in rows):
        columns += 1  # for the control
    figure = style.new_figure(0.35 + 2.75 * len(rows), width=0.9 + 2.9 * columns)
    panels = style.grid_of(figure, len(rows), columns)
    image = None
    for axes_row, row in zip(panels, rows, strict=True):
        for axes, (title, treated, baseline) in zip(axes_row, row, strict=False):
            image = _heat_map(axes, contrast(fine, treated, baseline), fine)
            axes.set_title(title, loc="left")
        for axes in axes_row[len(row) :]:
            axes.set_axis_off()
    spare = [axes for axes_row, row in zip(panels, rows, strict=True) for axes in axes_row[len(row) :]]
    if len(coarse):
        spare[-1].set_axis_on()
        _coarse(spare[-1], cells)
    if image is not None:
        bar = figure.colorbar(image, ax=panels.ravel().tolist(), shrink=0.6, pad=0.02, aspect=28)
        bar.set_label("difference of shape bias    texture ←   → shape")
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return figure


def _heat_map(axes: Axes, table: Table, cells: Table) -> Any:
    shapes, textures = (sorted(cells[name].unique()) for name in ("rho_shape", "rho_texture"))
    values = np.full((len(shapes), len(textures)), np.nan)
    size = min(1.0, 3.5 / len(textures))  # of the letters, so that they stay within a cell
    norm = TwoSlopeNorm(0.0, -1.0, 1.0)
    for _, cell in table.iterrows():
        i, j = shapes.index(cell["rho_shape"]), textures.index(cell["rho_texture"])
        if cell["failed"]:
            axes.add_patch(
                Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor="#f2f2f2", edgecolor="#bdbdbd", hatch="////", linewidth=0)
            )
            axes.text(
                j, i, "not learnt", ha="center", va="center", fontsize=7.5 * size, color=style.GREY,
                bbox={"facecolor": "#f2f2f2", "edgecolor": "none", "pad": 1.5},
            )  # fmt: skip
            continue
        values[i, j] = cell["mean"]
        dark = abs(cell["mean"]) > 0.6
        colour = "white" if dark else "#222222"
        mark = "**" if cell["significant"] else "*" if cell["p"] < 1 - LEVEL else ""
        axes.text(
            j, i + 0.1, f"{_signed(cell['mean'])}{mark}", ha="center", va="center", color=colour, fontsize=9.5 * size,
            fontweight="bold" if mark else "normal",
        )  # fmt: skip
        below = f"{cell['before']:.2f} → {cell['after']:.2f}"
        if cell["left_out"]:
            below += f"\n{counted(cell['seeds'], 'seed')}"
        axes.text(j, i - 0.25, below, ha="center", va="center", color=colour, fontsize=7 * size)
    image = axes.imshow(values, cmap=_MAP, norm=norm, aspect="auto")
    axes.set_xticks(range(len(textures)), [f"{value:g}" for value in textures])
    axes.set_yticks(range(len(shapes)), [f"{value:g}" for value in shapes])
    axes.set_ylim(-0.5, len(shapes) - 0.5)
    axes.set_xlim(-0.5, len(textures) - 0.5)
    axes.set_xlabel(r"texture strength $\rho_T$")
    axes.set_ylabel(r"shape strength $\rho_S$")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def _coarse(axes: Axes, cells: Table) -> None:
    """AT minus NT at equal strengths, for fine textures and for those as coarse as the shapes."""
    diagonal = cells[cells["rho_shape"] == cells["rho_texture"]]
    norms = [norm for norm in _NORMS if f"at-{norm}" in set(cells["training"])]
    strengths = sorted(diagonal["rho_shape"].unique())
    looks = [(norm, scale) for norm in norms for scale in ("fine", "coarse")]
    for k, (norm, scale) in enumerate(looks):
        part = diagonal[diagonal["scale"] == scale]
        table = contrast(part, f"at-{norm}", "nt")
        if table.empty:
            continue
        table = table[~table["failed"]]
        x = np.array([strengths.index(value) for value in table["rho_shape"]]) + 0.14 * (k - (len(looks) - 1) / 2)
        reach = np.nan_to_num((table["high"] - table["mean"]).to_numpy(dtype=float))
        colour = ("#0072B2", "#D55E00")[norms.index(norm)]
        axes.errorbar(
            x, table["mean"], yerr=reach, fmt="o" if scale == "fine" else "s", color=colour, capsize=2.5, elinewidth=1,
            markerfacecolor=colour if scale == "fine" else "white", label=f"{_NORMS[norm]}, {scale} textures",
        )  # fmt: skip
    axes.axhline(0, color="#222222", linewidth=0.8)
    axes.set_xticks(range(len(strengths)), [f"{value:g}" for value in strengths])
    axes.set_xlim(-0.5, len(strengths) - 0.5)
    axes.set_ylim(-1.05, 1.05)
    axes.set_xlabel(r"both strengths $\rho_S = \rho_T$")
    axes.set_ylabel(f"AT {MINUS} NT")
    axes.set_title("Control: coarse textures", loc="left")
    axes.legend(fontsize=7, loc="lower left", ncols=2, handletextpad=0.2, columnspacing=0.8)


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", MINUS) if round(value, 2) else "0.00"


def _has_comparisons(run_records: RunRecords) -> bool:
    """Whether the records are of a sweep in which an adversarial training, or the control, reached its end."""
    cells = cells_of(run_records)
    return bool(len(cells) and _panels(cells))


def _caption(run_records: RunRecords) -> str:
    cells = cells_of(run_records)
    seeds = cells.groupby(["cell", "training"])["seed"].nunique()
    count = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
    ball = " The L2 ball has the radius at which it can just erase a texture of strength 1."
    whiskers = " Whiskers: 95 % t-intervals."
    return (
        "Difference in shape bias on cue-conflict images between trainings that start from the same weights, by the "
        "strength of each cue (amplitude / eps; the attacker can erase a cue of strength at most 1). Orange: away from "
        "shape; purple: towards shape. Below each difference the bias before → after. "
        f"* p < 0.05 in a paired t-test over {count} seeds; ** also after Holm's correction over the panel's cells. "
        "Seeds of which a network stayed below twice chance on clean images, so that its bias is meaningless, are left "
        "out, and the number of the others is given; hatched: more than half are left out. The second row compares "
        "with the normally trained network at the epoch at which its clean accuracy was nearest."
        f"{ball * ('at-l2' in set(cells['training']))}{whiskers * ('coarse' in set(cells['scale']))}"
    )


FIGURE = register(
    FigureSpec(
        name="cue_strength_sweep",
        title="Which cue adversarial training prefers, by cue strength",
        alt="Heat maps of the change in shape bias by shape strength and texture strength, for each norm and control.",
        caption=_caption,
        needs=_has_comparisons,
        draw=_draw,
        order=5,
    )
)
