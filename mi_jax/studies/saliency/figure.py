"""Attribution maps of the trainings side by side, and the scores of the methods."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mi_jax.plotting import captions, style
from mi_jax.plotting.figures import FigureSpec
from mi_jax.plotting.study_arrays import by_training
from mi_jax.records.labels import name_of
from mi_jax.records.run_records import RunRecords
from mi_jax.statistics.intervals import over_seeds

_STUDY = "saliency"
METHOD_NAMES = {
    "gradient": "gradient",
    "smoothgrad": "SmoothGrad",
    "integrated_gradients": "integrated\ngradients",
    "grad_x_input": "gradient\nx input",
    "grad_cam": "Grad-CAM",
    "layer_cam": "LayerCAM",
}
SCORES = {
    "edge_enrichment": "edge enrichment",
    "shape_cosine": "cosine with the shape",
    "texture_cosine": "cosine with the texture",
    "image_gradient_correlation": "image-gradient correlation",
    "insertion_auc": "insertion area",
    "deletion_auc": "deletion area",
    "randomised_similarity": "similarity, random weights",
}
_NEUTRAL = {
    "edge_enrichment": 1.0,
    "shape_cosine": 0.0,
    "texture_cosine": 0.0,
    "image_gradient_correlation": 0.0,
    "randomised_similarity": 0.0,
}


def _draw_maps(run_records: RunRecords) -> Figure:
    first = {name: _first(run_records, name) for name in ("images", "methods", "size")}
    trainings = list(first["size"])
    images = first["images"][trainings[0]]
    methods = [m for m in METHOD_NAMES if all(m in first["methods"][t] for t in trainings)]
    columns = 1 + len(methods) * len(trainings)
    figure = style.new_figure(0.75 + 0.84 * len(images), width=max(style.WIDTH, 0.84 * columns))
    panels = style.grid_of(figure, len(images), columns)
    for i, image in enumerate(images):
        _show(panels[i, 0], image[..., 0] if image.shape[-1] == 1 else image, highest=255.0, colours="gray")
        for j, training in enumerate(trainings):
            order = [str(m) for m in first["methods"][training]]
            for k, method in enumerate(methods):
                size = first["size"][training][order.index(method), i]
                _show(
                    panels[i, 1 + j * len(methods) + k], size, highest=float(np.percentile(size, 99.5)), colours="magma"
                )
    panels[0, 0].set_title("image", fontsize=7)
    for j, training in enumerate(trainings):
        for k, method in enumerate(methods):
            above = f"{name_of(training)}\n" if k == 0 else "\n"
            title = METHOD_NAMES[method] if "\n" in METHOD_NAMES[method] else f"{METHOD_NAMES[method]}\n"
            panels[0, 1 + j * len(methods) + k].set_title(title, fontsize=7)
            if k == 0:
                axes = panels[0, 1 + j * len(methods)]
                axes.annotate(
                    above.strip(), (0, 1), xycoords="axes fraction", xytext=(0, 26), textcoords="offset points",
                    fontsize=9, weight="bold",
                )  # fmt: skip
    return figure


def _first(run_records: RunRecords, name: str) -> dict[str, np.ndarray]:
    return {training: seeds[0] for training, seeds in by_training(run_records, _STUDY, name).items()}


def _show(axes: Axes, values: np.ndarray, *, highest: float, colours: str) -> None:
    axes.imshow(values, cmap=colours, vmin=0, vmax=highest or 1.0, interpolation="nearest")
    axes.axis("off")


def _caption_maps(run_records: RunRecords) -> str:
    return (
        "How much each pixel matters for the logit of the true class of the finished networks, "
        f"{captions.where(run_records)}, first seed: the largest absolute value over the channels, bright large, each "
        "map on its own scale up to its 99.5th percentile. The images are the same for all trainings."
    )


def _scores(run_records: RunRecords) -> list[str]:
    return [score for score in SCORES if not run_records.select(quantity=score).empty]


def _draw_scores(run_records: RunRecords) -> Figure:
    scores = _scores(run_records)
    columns = min(4, len(scores))
    figure = style.new_figure(0.4 + 2.5 * math.ceil(len(scores) / columns))
    panels = style.grid_of(figure, math.ceil(len(scores) / columns), columns, sharex=True)
    rows = run_records.select_final(quantity=tuple(scores))
    trainings = [t for t in run_records.trainings if (rows["training"] == t).any()]
    methods = [m for m in METHOD_NAMES if (rows["estimator"] == m).any()]
    for axes, score in zip(panels.flat, scores, strict=False):
        table = over_seeds(run_records.select_final(quantity=score), ["training", "estimator"])
        for i, training in enumerate(trainings):
            part = table[table["training"] == training].set_index("estimator")
            colour = style.colour_of(training, run_records.trainings)
            x = np.arange(len(methods)) + 0.16 * (i - (len(trainings) - 1) / 2)
            here = part.reindex(methods)
            style.draw_whiskers(axes, x, here, colour=colour)
            style.draw_marks(axes, x, here["mean"], np.zeros(len(x), dtype=bool), colour=colour, size=5.0)
            if "random" in part.index:
                axes.axhline(part.loc["random", "mean"], color=colour, linestyle=":", linewidth=1)
        if score in _NEUTRAL:
            axes.axhline(_NEUTRAL[score], color=style.GREY, linewidth=0.8)
        axes.set_xticks(range(len(methods)), [METHOD_NAMES[m] for m in methods], rotation=55, ha="right", fontsize=7)
        axes.tick_params(labelbottom=True)
        axes.set_title(SCORES[score], loc="left")
    for axes in panels.flat[len(scores) :]:
        axes.set_visible(False)
    handles = [
        Line2D([], [], color=style.colour_of(t, run_records.trainings), marker="o", linestyle="none", label=name_of(t))
        for t in trainings
    ]
    style.legend_above(figure, [*handles, Line2D([], [], color=style.GREY, linestyle=":", label="random ranking")])
    return figure


def _caption_scores(run_records: RunRecords) -> str:
    rows = run_records.select_final(quantity=tuple(_scores(run_records)))
    error = run_records.select_final(quantity="completeness_error")
    completeness = (
        f" Integrated gradients miss completeness by {100 * error['value'].max():.2g} % (of all images, the "
        "largest of all networks)."
        if len(error)
        else ""
    )
    known = (
        "Edge enrichment: mean of |A| on the one-pixel outline of the shape over its mean elsewhere; cosines of the "
        "signed maps with the known fields 2m - 1 (whose mean is negative: a constant map has about -0.57) and t. "
        if not run_records.select(quantity="edge_enrichment").empty
        else ""
    )
    return (
        f"Scores of attribution maps for the true class, means over clean test images, {captions.where(run_records)}. "
        f"{known}Insertion and deletion: area under the probability of the class as pixels are inserted or deleted in "
        "order of rank (a good map: large, small). Similarity: rank correlation of |A| with that of a network whose "
        f"weights were drawn at random, near 0 for a method that depends on the trained weights.{completeness} "
        f"{captions.samples(rows)}. {captions.seeds(rows)}"
    )


FIGURES = (
    FigureSpec(
        name="saliency_maps",
        title="Attribution maps",
        alt="Images in rows; next to each the attribution maps of several methods, one group of columns per training.",
        caption=_caption_maps,
        needs=lambda run_records: bool(by_training(run_records, _STUDY, "size")),
        draw=_draw_maps,
        order=130,
    ),
    FigureSpec(
        name="saliency_scores",
        title="Scores of attribution maps",
        alt="Scores of attribution methods, one panel per score, one colour per training, random rankings dotted.",
        caption=_caption_scores,
        needs=lambda run_records: bool(_scores(run_records)),
        draw=_draw_scores,
        order=131,
    ),
)
