"""Claim 3: adversarially trained networks prefer shape over texture more than normally trained ones do."""

import numpy as np

from mi_jax.claims.paired import OVER_BOTH, Pair, compared, earlier_epoch, final_difference, missing, scope
from mi_jax.claims.registry import CLAIMS
from mi_jax.claims.verdicts import SMALLEST, Claim, ClaimStatistic, context, difference, statistic
from mi_jax.records.labels import MINUS, name_of
from mi_jax.records.run_records import RunRecords, final_rows
from mi_jax.statistics.intervals import Interval, Table, t_interval
from mi_jax.statistics.jackknife import Sample, crossed

_HALF = 0.5
_CUES = ("shape", "texture")


@CLAIMS.registering("prefers_shape")
def prefers_shape(run_records: RunRecords, pair: Pair) -> Claim:
    """Shape bias and cue sensitivity on cue-conflict images, the second training minus the first."""
    rows = _rows(run_records, "shape_bias")
    first, second = map(name_of, pair)
    gap, over_images = final_difference(rows, pair)
    notes = (_coverage(run_records, pair), earlier_epoch(run_records, rows, pair))
    remark = missing(gap, "shape bias") or "; ".join(filter(None, notes))
    criterion = difference(sign=+1, smallest=SMALLEST["shape bias"])
    name = f"Shape bias, {second} minus {first}"
    statistics = [statistic(name, gap.clipped(-1.0, 1.0), "points", criterion, remark, over_images=over_images)]
    statistics += _sensitivities(run_records, pair)
    for training, side in ((pair[0], "<"), (pair[1], ">")):
        bias = t_interval(final_rows(rows[rows["training"] == training])["value"]).clipped(0.0, 1.0)
        if bias.count:
            label = f"Shape bias of {name_of(training)} (claim: {side} ½)"
            note = "context, over seeds: depends on how strong each cue is"
            statistics.append(statistic(label, bias, "share", context, note, decides=False))
    return Claim(
        number="3",
        name=f"{second} prefers shape more than {first}",
        text=f"{second} networks prefer shape over texture, compared with {first} networks.",
        method="Images whose shape and texture belong to different classes. Shape bias: predictions of the shape's "
        "class divided by predictions of either cue's class (Geirhos et al. 2019); coverage: the share of images so "
        "predicted. Sensitivity to a cue: the mean reciprocal rank of its class among all classes (Kim et al. 2026); "
        f"a ratio such as the bias hides how much either cue counts. The claim rests on {second} minus {first} of the "
        f"bias and, where it was measured, of shape minus texture sensitivity, paired by seed; {OVER_BOTH}. An "
        f"interval within ±{100 * SMALLEST['shape bias']:.0f} points or ±{SMALLEST['sensitivity']} counts as no "
        "difference. Whether the bias of a single network is above or below ½ depends on how strong each cue is in the "
        "data set; this is context and does not decide.",
        statistics=tuple(statistics),
        figures=("shape_bias", "shape_texture"),
        scope=scope(run_records, rows),
    )


def _rows(run_records: RunRecords, quantity: str) -> Table:
    return run_records.select(quantity=quantity, inputs="clean", image_set="conflict", factor=None)


def _coverage(run_records: RunRecords, pair: Pair) -> str:
    rows = final_rows(_rows(run_records, "cue_coverage"))
    means = rows.groupby("training")["value"].mean()
    parts = [f"{name_of(training)} {means[training]:.0%}" for training in pair if training in means]
    return f"coverage: {', '.join(parts)}" if parts else ""


def _sensitivities(run_records: RunRecords, pair: Pair) -> list[ClaimStatistic]:
    """The change of shape minus texture sensitivity, and those of either as context; empty where not measured."""
    found = [compared(_rows(run_records, f"{cue}_sensitivity").assign(one=cue), pair, cell="one") for cue in _CUES]
    shape, texture = found
    if shape is None or texture is None:
        return []
    first, second = map(name_of, pair)
    criterion = difference(sign=+1, smallest=SMALLEST["sensitivity"])
    name = f"Shape {MINUS} texture sensitivity, {second} minus {first}"
    if shape.seeds != texture.seeds:
        reason = "the sensitivities to the two cues were not measured in the same seeds"
        return [statistic(name, t_interval([]), "score", criterion, reason)]
    parts: list[Sample] = [shape.first, shape.second, texture.first, texture.second]
    effect = crossed(_change_of_preference, *parts)
    over_images = effect.blocks > 0
    statistics = [statistic(name, effect.interval(), "score", criterion, "", over_images=over_images)]
    for cue, part in zip(_CUES, found, strict=True):
        assert part is not None
        change = crossed(lambda a, b: (b - a).mean(), part.first, part.second)
        levels = [float(np.mean(sample.values)) for sample in (part.first, part.second)]
        note = f"context: {first} {levels[0]:.2f}, {second} {levels[1]:.2f}"
        label = f"Sensitivity to {cue}, {second} minus {first}"
        interval: Interval = change.interval()
        statistics.append(
            statistic(label, interval, "score", context, note, decides=False, over_images=change.blocks > 0)
        )
    return statistics


def _change_of_preference(shape: np.ndarray, shape_2: np.ndarray, texture: np.ndarray, texture_2: np.ndarray) -> float:
    return float(((shape_2 - texture_2) - (shape - texture)).mean())
