"""At which epochs the trends of the two trainings differ: their difference with its simultaneous band."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mi_jax.claims.paired import layer_information
from mi_jax.claims.same_trend import Condition, comparable, condition_rows
from mi_jax.claims.trend_band import Band, band
from mi_jax.plotting import captions, style
from mi_jax.plotting.figures import FigureSpec, register
from mi_jax.records.labels import INFORMATION, MINUS, NOISE_RULE_NAMES, name_of
from mi_jax.records.run_records import RunRecords, compared_trainings


def bands(run_records: RunRecords) -> dict[tuple[str, str], Band]:
    """The bands by quantity (`i_tx`, `i_ty`) and noise rule, on clean inputs, where trends can be compared."""
    found = {}
    first, second = map(Condition, compared_trainings(run_records))
    for symbol in INFORMATION:
        for rule in run_records.noise_rules:
            curves, reason = comparable(*condition_rows(run_records, f"{symbol}_upper", rule, (first, second)))
            if not reason and (one := band(curves)).seed_distance > 0:
                found[symbol, rule] = one
    return found


def _draw(run_records: RunRecords) -> Figure:
    found = bands(run_records)
    symbols, rules = (list(dict.fromkeys(key[i] for key in found)) for i in range(2))
    figure = style.new_figure(0.6 + 1.9 * len(symbols))
    panels = style.grid_of(figure, len(symbols), len(rules), sharex=True, sharey="row")
    for (symbol, rule), one in found.items():
        axes = panels[symbols.index(symbol), rules.index(rule)]
        difference, half = one.difference / one.seed_distance, one.half_width / one.seed_distance
        outside, few = one.outside != 0, len(one.of_seeds) < style.FEW_SEEDS
        style.draw_line(axes, one.epochs, difference, color="black")
        for seed in one.of_seeds / one.seed_distance if few else ():
            look = {"marker": ".", "markersize": 4, "markeredgewidth": 0, "alpha": 0.6}
            style.draw_line(axes, one.epochs, seed, color="black", linestyle="none", **look)
        axes.fill_between(one.epochs, difference - half, difference + half, color=style.GREY, alpha=0.25, linewidth=0)
        style.draw_marks(axes, one.epochs, difference, ~outside, colour="black")
        style.draw_zero(axes)
        axes.set_title(f"{INFORMATION[symbol]}, {NOISE_RULE_NAMES[rule]}", loc="left")
    for axes in panels.flat:
        axes.set_visible(axes.has_data())
    for i in range(len(symbols)):
        style.fit([axes for axes in panels[i] if axes.has_data()])
    epochs = np.concatenate([one.epochs for one in found.values()])
    for column in panels.T:
        lowest = [axes for axes in column if axes.has_data()][-1]
        style.epoch_axis(lowest, epochs)
        lowest.tick_params(labelbottom=True)
    figure.supylabel("difference / distance between seeds", fontsize=9)
    first, second = _names(run_records)
    handles = [
        Line2D([], [], color="black", label=f"{second} {MINUS} {first}"),
        Patch(color=style.GREY, alpha=0.25, linewidth=0, label="95 % band for all epochs at once"),
        Line2D([], [], color="black", linestyle="none", marker="o", label="band excludes 0"),
    ]
    style.legend_above(figure, handles)
    return figure


def _names(run_records: RunRecords) -> list[str]:
    return [name_of(training) for training in compared_trainings(run_records)]


def _caption(run_records: RunRecords) -> str:
    first, second = _names(run_records)
    found = bands(run_records)
    points = " (small points)" if any(len(one.of_seeds) < style.FEW_SEEDS for one in found.values()) else ""
    rows = layer_information(run_records, "i_tx_upper", next(iter(found))[1], inputs="clean")
    each = "; ".join(
        f"{INFORMATION[symbol]}, {NOISE_RULE_NAMES[rule]}: {one.in_words()}" for (symbol, rule), one in found.items()
    )
    return (
        f"Information of {second} minus {first} through training, {captions.where(run_records)}: KDE, difference of "
        "upper bounds for I(T;Y), mean over layers, clean inputs, less its mean over epochs, in units of the distance "
        "between two seeds of one training. Where the band, Student's t over paired seeds by Bonferroni's inequality "
        f"over epochs, excludes 0, the trends differ. {each}. {captions.samples(rows)}, "
        f"{len(set(rows['seed']))} seeds{points}; a band much wider than the curves is cut off."
    )


register(
    FigureSpec(
        name="trend_difference",
        title="Where the trends of the two trainings differ",
        alt="Difference of information between the trainings against epoch, with a simultaneous band.",
        caption=_caption,
        needs=lambda run_records: bool(bands(run_records)),
        draw=_draw,
        order=38,
    )
)
