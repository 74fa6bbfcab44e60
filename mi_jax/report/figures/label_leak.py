"""I(T;Y) on adversarial inputs of attacks that know the label and of attacks that do not, by layer."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mi_jax.claims.paired import WHOLE_LAYERS
from mi_jax.plotting import captions, style
from mi_jax.plotting.figures import FigureSpec, register
from mi_jax.plotting.panels import finish_panels, layers_of, unit_of
from mi_jax.records.labels import INFORMATION, INPUTS, LABEL_FREE_ATTACKS, NOISE_RULE_NAMES, name_of
from mi_jax.records.run_records import RunRecords, final_rows
from mi_jax.report.figures.information import possible
from mi_jax.statistics.intervals import Table, over_seeds

_INPUTS = {
    "clean": "clean",
    "pgd": "attack that knows the label",
    "pgd-prediction": "attack on the network's prediction",
    "pgd-random-target": "attack towards a random class",
}
_COLOURS = dict(zip(_INPUTS, (style.GREY, *style.PALETTE[3:6]), strict=True))
"""Not those of NT and AT, which the panels are about."""
_UNTRAINED = "untrained"


def leaks(run_records: RunRecords) -> dict[str, Table]:
    """Rows of I(T;Y) by network: the untrained one and the finished one of each training, with column `shown`.

    Returns:
        For each network that was measured on label-free adversarial inputs, its rows on clean inputs (`shown` is
        `clean`) and on those of each attack (`shown` is its name), under the last noise rule of the claims.
    """
    where = {
        "quantity": "i_ty_upper", "estimator": "kde", "noise_rule": run_records.noise_rules[-1:], "inputs": INPUTS,
        **WHOLE_LAYERS,
    }  # fmt: skip
    rows = run_records.select(**where, attack=(None, *_INPUTS))
    rows = rows.assign(shown=rows["attack"].where(rows["inputs"] == "adversarial", "clean").fillna("pgd"))
    last = final_rows(rows)
    found = {_UNTRAINED: rows[(rows["epoch"] == 0) & rows["training"].isin(run_records.trainings[:1])]}
    found |= {training: last[last["training"] == training] for training in run_records.trainings}
    return {name: table for name, table in found.items() if table["shown"].isin(LABEL_FREE_ATTACKS).any()}


def _draw(run_records: RunRecords) -> Figure:
    found = leaks(run_records)
    everything: Table = pd.concat(found.values())
    layers, limits = layers_of(run_records, everything), possible(run_records, everything, "i_ty")
    figure = style.new_figure(3.4)
    panels = style.grid_of(figure, 1, len(found), sharey=True)[0]
    for axes, (name, rows) in zip(panels, found.items(), strict=True):
        parts = [(shown, rows[rows["shown"] == shown]) for shown in _INPUTS if (rows["shown"] == shown).any()]
        for i, (shown, part) in enumerate(parts):
            table = over_seeds(part, ["layer"], within=limits).set_index("layer").reindex(layers)
            x = style.dodged(len(layers), i, len(parts))
            look = {"color": _COLOURS[shown], "linestyle": "-" if shown == "clean" else "--"}
            style.draw_line(axes, x, table["mean"], **look)
            style.draw_whiskers(axes, x, table, colour=_COLOURS[shown])
        axes.set_title(f"{_UNTRAINED} network" if name == _UNTRAINED else name_of(name), loc="left")
        style.layer_axis(axes, layers)
    ceiling = finish_panels(run_records, everything, "i_ty", list(panels))
    panels[0].set_ylabel(f"{INFORMATION['i_ty']} ({unit_of(everything)})")
    kinds = [shown for shown in _INPUTS if (everything["shown"] == shown).any()]
    lines = [
        Line2D([], [], color=_COLOURS[shown], linestyle="-" if shown == "clean" else "--", label=_INPUTS[shown])
        for shown in kinds
    ]
    style.legend_above(figure, lines + ceiling)
    return figure


def _caption(run_records: RunRecords) -> str:
    rows: Table = pd.concat(leaks(run_records).values())
    rule = NOISE_RULE_NAMES[run_records.noise_rules[-1]]
    return (
        f"I(T;Y) of each layer, KDE, difference of upper bounds, {captions.where(run_records)}. "
        f"{captions.label_leak(rows)} Attacks that do not know the label lead away from the class that the network "
        "predicts, or to a class drawn at random from the others: the information about the label in their images was "
        f"there before. {captions.attack(run_records, rows)} Measured with {captions.noise(rows)} ({rule}), "
        f"{captions.samples(rows)}. {captions.seeds(rows)}"
    )


register(
    FigureSpec(
        name="label_leak",
        title="What an attack that knows the label writes into the image",
        alt="I(T;Y) against layer on clean and adversarial inputs, for attacks with and without the label.",
        caption=_caption,
        needs=lambda run_records: bool(leaks(run_records)),
        draw=_draw,
        order=37,
    )
)
