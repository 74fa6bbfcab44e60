"""Information of each layer through training: one panel per layer, I(X;T) or I(T;Y) against epoch."""

import math
from functools import partial

from matplotlib.figure import Figure

from mi_jax.claims.paired import layer_information
from mi_jax.plotting import captions, style
from mi_jax.plotting.figures import FigureSpec, register
from mi_jax.plotting.panels import ceiling_of, finish_panels, flagged, handles_of, layers_of, unit_of
from mi_jax.records.labels import INFORMATION, INPUTS, NOISE_RULE_NAMES
from mi_jax.records.run_records import RunRecords, conditions
from mi_jax.statistics.intervals import Table, over_seeds

_POINT = ["layer", "training", "inputs", "epoch"]


def rows_of(run_records: RunRecords, quantity: str, rule: str | None, *, estimator: str = "kde") -> Table:
    """Rows of one quantity of whole layers, on clean and adversarial inputs, under one noise rule; `flagged`."""
    return flagged(_unflagged(run_records, quantity, rule, estimator))


def _unflagged(run_records: RunRecords, quantity: str, rule: str | None, estimator: str) -> Table:
    return layer_information(run_records, quantity, rule, inputs=INPUTS, estimator=estimator).dropna(subset=["epoch"])


def is_minor(run_records: RunRecords, *, rule: str) -> bool:
    """Whether figures under a noise rule are folded away: only the first and the last rule measured are shown."""
    return rule not in (run_records.noise_rules[0], run_records.noise_rules[-1])


def possible(run_records: RunRecords, rows: Table, symbol: str) -> tuple[float, float]:
    """The range of possible values in bits."""
    ceiling = ceiling_of(run_records, rows, symbol)
    return 0.0, max(ceiling[0], float(rows["value"].max())) if ceiling else math.inf


def saturated_throughout(
    run_records: RunRecords, quantity: str, rule: str | None, *, estimator: str = "kde", figure: str = ""
) -> str:
    """A sentence where every point of the figure is saturated, in at least one seed; else empty."""
    rows = _unflagged(run_records, quantity, rule, estimator)
    points = rows["saturated"].eq(True).groupby([rows[name] for name in _POINT]).any()
    if rows.empty or not points.all():
        return ""
    how = "binning" if rule is None else NOISE_RULE_NAMES[rule]
    name = figure or f"{INFORMATION[quantity[:4]]} through training, {how}"
    return (
        f"{name}: not drawn, as the estimates of all layers are saturated "
        "at every epoch. They count samples and show nothing about the networks."
    )


def _draw_epochs(run_records: RunRecords, *, quantity: str, rule: str | None, estimator: str = "kde") -> Figure:
    rows = rows_of(run_records, quantity, rule, estimator=estimator)
    symbol, layers = quantity[:4], layers_of(run_records, rows)
    table = over_seeds(rows, _POINT, within=possible(run_records, rows, symbol))
    columns = min((4, 3, 5), key=lambda wide: -len(layers) % wide) if len(layers) > 4 else len(layers)
    count = math.ceil(len(layers) / columns)
    figure = style.new_figure(0.6 + 1.75 * count)
    panels = style.grid_of(figure, count, columns, sharex=True, sharey=True)
    for axes, layer in zip(panels.flat, layers, strict=False):
        for training, inputs, curve in conditions(table[table["layer"] == layer], run_records.trainings):
            colour, line = style.colour_of(training, run_records.trainings), style.line_of(inputs)
            style.draw_curve(axes, curve["epoch"], curve, colour=colour, line=line)
        axes.set_title(layer, loc="left")
    used, empty = panels.flat[: len(layers)], panels.flat[len(layers) :]
    ceiling = finish_panels(run_records, rows, symbol, list(used))
    for axes in empty:
        axes.set_visible(False)
    for j in range(columns):
        lowest = max(i for i in range(count) if i * columns + j < len(layers))
        style.epoch_axis(panels[lowest, j], rows["epoch"])
        panels[lowest, j].tick_params(labelbottom=True)
    figure.supylabel(f"{INFORMATION[symbol]} ({unit_of(rows)})", fontsize=9)
    style.legend_above(figure, handles_of(run_records, rows) + ceiling)
    return figure


def _caption_epochs(run_records: RunRecords, *, quantity: str, rule: str | None, estimator: str = "kde") -> str:
    rows = rows_of(run_records, quantity, rule, estimator=estimator)
    symbol = quantity[:4]
    what = (
        "binning (0 or log N in wide layers, where no two samples share a bin)"
        if estimator == "binning"
        else _estimate_words(quantity)
    )
    noise = "" if rule is None else f"{captions.noise(rows)}, "
    ceiling = ceiling_of(run_records, rows, symbol)
    dotted = f" Dotted: {ceiling[1]} = {ceiling[0]:.2f} bits." if ceiling else ""
    limits = captions.limits(rows)
    hollow = f" {limits}" if limits else ""
    leak = f" {captions.label_leak(rows)}" if symbol == "i_ty" else ""
    return (
        f"{INFORMATION[symbol]} of each layer through training, {captions.where(run_records)}: {what}. Solid on clean, "
        f"dashed on adversarial inputs. {captions.attack(run_records, rows)} Measured with {noise}"
        f"{captions.samples(rows)}, {captions.epochs(rows)}. {captions.seeds(rows)}{dotted}{hollow}{leak}"
    )


def _estimate_words(quantity: str) -> str:
    if quantity == "i_tx_upper":
        return "KDE upper bound"
    return "KDE, difference of upper bounds (the “upper” estimate of the paper, not itself a bound)"


for _order, (_rule, _symbol) in enumerate([(r, s) for s in INFORMATION for r in NOISE_RULE_NAMES]):
    _quantity = f"{_symbol}_upper"
    register(
        FigureSpec(
            name=f"information_epochs_{_quantity}_{_rule}",
            title=f"{INFORMATION[_symbol]} through training, {NOISE_RULE_NAMES[_rule]}",
            alt=f"One panel per layer: {INFORMATION[_symbol]} against epoch for each training, on clean and "
            "adversarial inputs.",
            caption=partial(_caption_epochs, quantity=_quantity, rule=_rule),
            needs=lambda run_records, quantity=_quantity, rule=_rule: not rows_of(run_records, quantity, rule).empty,
            draw=partial(_draw_epochs, quantity=_quantity, rule=_rule),
            order=40 + _order,
            minor=partial(is_minor, rule=_rule),
            uninformative=partial(saturated_throughout, quantity=_quantity, rule=_rule),
        )
    )
for _order, _symbol in enumerate(INFORMATION):
    register(
        FigureSpec(
            name=f"information_epochs_{_symbol}_binning",
            title=f"{INFORMATION[_symbol]} through training, binning",
            alt=f"One panel per layer: {INFORMATION[_symbol]} by binning against epoch for each training.",
            caption=partial(_caption_epochs, quantity=_symbol, rule=None, estimator="binning"),
            needs=lambda run_records, symbol=_symbol: not rows_of(run_records, symbol, None, estimator="binning").empty,
            draw=partial(_draw_epochs, quantity=_symbol, rule=None, estimator="binning"),
            order=90 + _order,
            minor=lambda _: True,
            uninformative=partial(saturated_throughout, quantity=_symbol, rule=None, estimator="binning"),
        )
    )
