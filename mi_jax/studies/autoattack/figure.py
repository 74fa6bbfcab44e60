"""Accuracy over the radius of the attack, one curve per training, with AutoAttack at the radius of the run."""

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mi_jax.plotting import captions, style
from mi_jax.plotting.figures import FigureSpec
from mi_jax.records.labels import attack_labels, name_of, radius_label
from mi_jax.records.run_records import RunRecords
from mi_jax.statistics.intervals import Table, accuracy_over_seeds


def _curves(run_records: RunRecords) -> Table:
    return run_records.select_final(quantity="robust_accuracy", image_set="test", inputs="adversarial")


def _points(run_records: RunRecords) -> Table:
    """Accuracy under AutoAttack itself."""
    rows = run_records.select_final(quantity="accuracy", image_set="test", inputs="adversarial", source=None)
    return rows[rows["attack"].fillna("").str.startswith("autoattack")]


def _draw(run_records: RunRecords) -> Figure:
    curves = accuracy_over_seeds(_curves(run_records), ["training", "eps"])
    points = accuracy_over_seeds(_points(run_records), ["training", "eps"])
    norm = _curves(run_records)["norm"].iloc[0]
    figure = style.new_figure(3.2, width=6.0)
    axes = style.grid_of(figure, 1, 1)[0, 0]
    trainings = [training for training in run_records.trainings if (curves["training"] == training).any()]
    for training in trainings:
        colour = style.colour_of(training, run_records.trainings)
        part, own = (style.in_percent(table[table["training"] == training]) for table in (curves, points))
        style.draw_curve(axes, part["eps"], part, colour=colour)
        style.draw_whiskers(axes, own["eps"], own, colour=colour)
        axes.plot(own["eps"], own["mean"], "D", color=colour, markeredgecolor="white", markersize=6, zorder=4)
    ticks = sorted(curves["eps"].unique())
    axes.set_xticks(ticks, [radius_label(norm, eps) for eps in ticks])
    axes.set_xlabel(f"radius eps ({norm.capitalize()})")
    axes.set_ylabel("accuracy (%)")
    axes.set_ylim(0, 103)
    handles = [Line2D([], [], color=style.colour_of(t, run_records.trainings), label=name_of(t)) for t in trainings]
    if len(points):
        handles.append(Line2D([], [], color=style.GREY, marker="D", linestyle="none", label="AutoAttack"))
    style.legend_above(figure, handles)
    return figure


def _caption(run_records: RunRecords) -> str:
    rows, points = _curves(run_records), _points(run_records)
    at_the_run = f" Diamonds: {attack_labels(points)}, {captions.samples(points)}." if len(points) else ""
    return (
        f"Test accuracy against the radius of the attack, {captions.where(run_records)}; radius 0 is clean. Curves: an "
        "upper bound, from APGD on the cross-entropy and targeted FAB with three targets, with a search over the radii "
        f"for each image. {captions.samples(rows)}.{at_the_run} {captions.seeds(rows)}"
    )


FIGURES = (
    FigureSpec(
        name="robust_accuracy",
        title="Robust accuracy over the radius of the attack",
        alt="Accuracy against the radius of the attack, one curve per training, with a diamond for AutoAttack.",
        caption=_caption,
        needs=lambda run_records: not _curves(run_records).empty,
        draw=_draw,
        order=21,
    ),
)
