"""Claim 3: normally trained networks prefer texture, adversarially trained ones shape."""

from mi_jax.claims.paired import Pair, final_difference, missing
from mi_jax.claims.registry import CLAIMS
from mi_jax.claims.verdicts import SMALLEST, Claim, judge_difference, statistic
from mi_jax.records.labels import name_of
from mi_jax.records.run_records import RunRecords, final_rows
from mi_jax.statistics.intervals import t_interval

_HALF = 0.5


@CLAIMS.registering("prefers_shape")
def prefers_shape(run_records: RunRecords, pair: Pair) -> Claim:
    """Shape bias on cue-conflict images, the second training minus the first; the bias of each as context."""
    rows = run_records.select(quantity="shape_bias", inputs="clean", image_set="conflict", factor=None)
    first, second = map(name_of, pair)
    gap = final_difference(rows, pair).clipped(-1.0, 1.0)
    verdict = judge_difference(gap, sign=+1, smallest=SMALLEST["shape bias"])
    remark = missing(gap, "shape bias on cue-conflict images")
    statistics = [statistic(f"Shape bias, {second} minus {first}", gap, "points", verdict, remark)]
    for training, sign, preference in ((pair[0], -1, "texture"), (pair[1], +1, "shape")):
        bias = t_interval(final_rows(rows[rows["training"] == training])["value"])
        if not bias.count:
            continue
        verdict = judge_difference(bias.shifted(-_HALF), sign=sign, smallest=SMALLEST["shape bias"])
        label = f"Shape bias of {name_of(training)} (claim: prefers {preference}, that is {'<' if sign < 0 else '>'} ½)"
        context = "context: depends on how strong each cue is"
        statistics.append(statistic(label, bias.clipped(0.0, 1.0), "share", verdict, context, decides=False))
    return Claim(
        number="3",
        name=f"{second} prefers shape, {first} texture",
        text=f"{first} networks prefer texture, {second} networks shape.",
        method="Shape bias on images whose shape and texture belong to different classes: predictions of the shape's "
        f"class over predictions of either cue's class (Geirhos et al. 2019). The claim rests on {second} minus "
        f"{first}, paired by seed, t-interval; within ±{100 * SMALLEST['shape bias']:.0f} points counts as none. On "
        "which side of ½ one network is depends on how strong the data set makes each cue, so that is shown as "
        "context and does not decide.",
        statistics=tuple(statistics),
        figures=("shape_bias", "shape_texture"),
    )
