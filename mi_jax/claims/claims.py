"""The claims of Zhang et al. (2022) as statistics of a run's records: value, 95 % interval over seeds, verdict, figure.

It reads records only. A statistic is paired by seed: both trainings of one seed start from the same weights.
"""

import math

from mi_jax.claims import trends
from mi_jax.claims.paired import Paired, by_layer, difference_at_the_end, difference_of_shares
from mi_jax.claims.scale import scale_share
from mi_jax.claims.verdicts import Claim, Finding, Verdict, judge_difference, judge_threshold
from mi_jax.records.labels import INFORMATION, MINUS, name_of
from mi_jax.records.run_records import RunRecords, accuracy_on_test, final_rows, noise_rules
from mi_jax.statistics.intervals import Interval, t_interval

SMALLEST = {"bits": 0.1, "accuracy": 0.01, "nats": 0.05, "shape bias": 0.05}
"""Differences within these count as none: bits of information, share of images, nats of loss, share of choices."""
HALF = 0.5
_END = (
    "at the last epoch that all have reached (or of each the epoch best on held-out images, where some were held out)"
)


def evaluate(run_records: RunRecords, *, baseline: str = "nt", treated: str = "at") -> tuple[Claim, ...]:
    """The claims, each with its findings under the fixed and the trace noise rule, for one pair of trainings.

    A finding whose rows are missing, or that has fewer than two paired seeds, is undecided and says why.
    """
    pair = (baseline, treated)
    return (
        _same_trend(run_records, pair),
        _less_information(run_records, pair),
        _harder(run_records, pair),
        _prefers_shape(run_records, pair),
        _geometry(run_records, pair),
    )


def _same_trend(run_records: RunRecords, pair: tuple[str, str]) -> Claim:
    first, second = map(name_of, pair)
    first_ruler, *_, last_ruler = noise_rules(run_records)
    findings = [
        _trend_finding(run_records, noise_rule, quantity, label, conditions)
        for noise_rule in noise_rules(run_records)
        for quantity in ("i_tx_upper", "i_ty_upper")
        for label, conditions in (
            (f"{first} and {second}, clean inputs", ((pair[0], "clean"), (pair[1], "clean"))),
            (f"clean and adversarial inputs, {first}", ((pair[0], "clean"), (pair[0], "adversarial"))),
            (f"clean and adversarial inputs, {second}", ((pair[1], "clean"), (pair[1], "adversarial"))),
        )
    ]
    return Claim(
        number="1",
        name="same trend through training",
        text="Mutual information follows almost the same trend through training, for normally and adversarially "
        "trained networks and for clean and adversarial inputs.",
        method="Spearman's rank correlation, over the measured epochs, of the two curves of one layer and one "
        "seed; averaged over layers, then over seeds with a t-interval. A layer counts if at least one of its two "
        f"curves moves by {trends.SMALLEST_MOVE} bits (flat curves have no trend to compare) and neither is "
        f"saturated at every epoch. At least {trends.FEWEST_EPOCHS} epochs. “Almost the same” is read as a "
        "correlation of at least √½ = 0.71 (half of the rank variance shared), for all the comparisons listed; "
        "below 0 the trends are opposed. Two rising curves correlate whatever drives them, so this tests the trend "
        f"and nothing finer; the correlation between different {first} seeds is given as the value that “the same” "
        "has in this run.",
        findings=tuple(findings),
        figures=tuple(f"information_epochs_{q}_upper_{r}" for q in INFORMATION for r in (first_ruler, last_ruler)),
    )


def _trend_finding(
    run_records: RunRecords,
    noise_rule: str,
    quantity: str,
    label: str,
    conditions: tuple[tuple[str, str], tuple[str, str]],
) -> Finding:
    curves = [
        run_records.select(training=t, inputs=i, quantity=quantity, estimator="kde", noise_rule=noise_rule, subset=None)
        for t, i in conditions
    ]
    per_seed, remark = trends.similarity(*curves)
    if per_seed.size and conditions[0][0] != conditions[1][0]:
        reference = trends.between_seeds(curves[0])
        if not math.isnan(reference):
            remark += f"; between two {name_of(conditions[0][0])} seeds {reference:.2f}"
    mean, low, high, count = t_interval(per_seed)
    interval = Interval(mean, max(low, -1.0), min(high, 1.0), count)
    verdict = judge_threshold(interval, threshold=math.sqrt(HALF), reversed_below=0.0)
    return _finding(f"{INFORMATION[quantity[:4]]}: {label}", noise_rule, interval, "correlation", verdict, remark)


def _less_information(run_records: RunRecords, pair: tuple[str, str]) -> Claim:
    findings = []
    for noise_rule in noise_rules(run_records):
        for estimator, quantity, words in (
            ("kde", "i_tx_upper", "KDE upper bound"),
            ("kde", "i_tx_lower", "KDE lower bound"),
            ("monte_carlo", "i_tx", "Monte Carlo"),
        ):
            rows = run_records.select(
                inputs="clean", estimator=estimator, quantity=quantity, noise_rule=noise_rule, subset=None
            )
            if rows.empty and estimator != "kde":
                continue
            found = by_layer(rows, pair)
            table = found.values
            difference = t_interval((table[pair[1]] - table[pair[0]]).mean(axis=1)) if len(table) else t_interval([])
            remark = _layers_remark(found)
            verdict = judge_difference(difference, sign=-1, smallest=SMALLEST["bits"])
            findings.append(_finding(f"I(X;T), {words}", noise_rule, difference, "bits", verdict, remark))
    first, second = map(name_of, pair)
    return Claim(
        number="2a",
        name=f"{second} extracts less of the input",
        text=f"{second} networks extract less information about the input than {first} networks.",
        method=f"{second} minus {first} of I(X;T) on the same clean test images, each seed's mean over the layers "
        f"that are saturated in neither training, {_END}; mean over seeds with a "
        "paired t-interval. The bounds must agree: a difference of upper bounds alone is not a difference of "
        "information (and as the lower bound is the upper bound at four times the noise variance, the sign must "
        f"hold at two noise levels). A difference within ±{SMALLEST['bits']} bits counts as none. A saturated layer "
        "only counts samples; leaving it out understates a difference that it hides.",
        findings=tuple(findings),
        figures=("information_difference",),
    )


def _harder(run_records: RunRecords, pair: tuple[str, str]) -> Claim:
    first, second = map(name_of, pair)
    accuracy = difference_of_shares(accuracy_on_test(run_records).query("attack == 'clean'"), pair)
    trained_on = run_records.select(quantity="loss", training=pair, subset="train")
    loss = difference_at_the_end(trained_on, pair)
    inputs = trained_on.drop_duplicates("training").set_index("training")["inputs"]
    of_each = ", ".join(f"{name_of(training)}: {inputs[training]}" for training in pair[::-1] if training in inputs)
    lower = judge_difference(accuracy, sign=-1, smallest=SMALLEST["accuracy"])
    higher = judge_difference(loss, sign=+1, smallest=SMALLEST["nats"])
    return Claim(
        number="2b",
        name=f"{second} is harder to train",
        text=f"Adversarial training is harder: {second} networks have lower clean accuracy and a higher training loss.",
        method=f"{second} minus {first} {_END}: accuracy on clean test images, and cross-entropy on the training "
        f"inputs of each{f' ({of_each})' if of_each else ''}; paired t-intervals over seeds, for the accuracy no "
        "narrower than Newcombe's interval over the test images, which all seeds share. Differences within "
        f"±{100 * SMALLEST['accuracy']:.0f} point and ±{SMALLEST['nats']} nats count as none.",
        findings=(
            _finding("Clean test accuracy", None, accuracy, "points", lower, _missing(accuracy, "clean test accuracy")),
            _finding("Training loss", None, loss, "nats", higher, _missing(loss, "training loss")),
        ),
        figures=("training_curves", "robustness"),
    )


def _prefers_shape(run_records: RunRecords, pair: tuple[str, str]) -> Claim:
    rows = run_records.select(quantity="shape_bias", inputs="clean", subset="conflict")
    first, second = map(name_of, pair)
    gap = difference_at_the_end(rows, pair)
    findings = [
        _finding(
            f"Shape bias, {second} minus {first}",
            None,
            gap,
            "points",
            judge_difference(gap, sign=+1, smallest=SMALLEST["shape bias"]),
            _missing(gap, "shape bias on cue-conflict images"),
        )
    ]
    for training, sign, words in ((pair[0], -1, "prefers texture"), (pair[1], +1, "prefers shape")):
        mean, low, high, count = t_interval(final_rows(rows[rows["training"] == training])["value"])
        if not count:
            continue
        lead = Interval(mean - HALF, low - HALF, high - HALF, count)
        verdict = judge_difference(lead, sign=sign, smallest=SMALLEST["shape bias"])
        bias = Interval(mean, max(low, 0.0), min(high, 1.0), count)
        label = f"Shape bias of {name_of(training)} (claim: {words}, that is {'<' if sign < 0 else '>'} ½)"
        findings.append(
            _finding(label, None, bias, "share", verdict, "context: depends on the cues' strengths", decides=False)
        )
    return Claim(
        number="3",
        name=f"{second} prefers shape, {first} texture",
        text=f"{first} networks prefer texture, {second} networks shape.",
        method="Shape bias on images whose shape and texture belong to different classes: choices of the shape's "
        f"class over choices of either cue's class (Geirhos et al. 2019). The claim rests on {second} minus "
        f"{first}, paired by seed, t-interval; within ±{100 * SMALLEST['shape bias']:.0f} points counts as none. "
        "Which side of ½ one network is on depends on how strong the data set makes each cue, so that is shown as "
        "context and does not decide.",
        findings=tuple(findings),
        figures=("shape_bias", "cue_conflict"),
    )


def _geometry(run_records: RunRecords, pair: tuple[str, str]) -> Claim:
    share, remark = scale_share(run_records, pair)
    findings = [
        _finding(
            "Share of the I(X;T) difference that is scale",
            None,
            share,
            "share",
            judge_threshold(share, threshold=HALF),
            remark,
        )
    ]
    for noise_rule in noise_rules(run_records):
        rows = run_records.select(
            inputs="clean", estimator="kde", quantity="i_tx_upper", noise_rule=noise_rule, subset=None, training=pair
        )
        flags = final_rows(rows).assign(flag=lambda table: table["saturated"].fillna(False).astype(float))
        saturated = t_interval(flags.groupby("seed")["flag"].mean())
        if saturated.count:
            saturated = Interval(saturated.mean, max(saturated.low, 0.0), min(saturated.high, 1.0), saturated.count)
            context = "context: a saturated estimate counts distinct samples and measures no information"
            findings.append(
                _finding(
                    "Share of layers saturated", noise_rule, saturated, "share", "undecided", context, decides=False
                )
            )
    first, second = map(name_of, pair)
    return Claim(
        number="4",
        name="estimates show scale, not information",
        text="The estimators outline the geometry of a layer's output (spread, clustering) rather than information "
        "alone.",
        method=f"How much of the {second} minus {first} difference in I(X;T) is a difference in the scale of "
        "activations. With D the difference of the upper bounds under a noise that both share (the fixed one, or "
        "that of the trace noise rule where the fixed one saturates every layer), and R the difference once "
        f"{second} activations are rescaled to {first}'s variance, the share is Σ|D{MINUS}R| / (Σ|D{MINUS}R| + "
        "Σ|R|), sums over the layers unsaturated in both; per seed, then a t-interval. Supported above one half. "
        "If no rescaled estimates were recorded, a proxy stands in: D and R are then relative differences, "
        f"2(b{MINUS}a)/(a+b), D under a noise rule that both trainings share (the fixed one, or the trace noise rule where that "
        "saturates everywhere), R under one that follows each training's own scale. It is a proxy because the second "
        "noise rule also changes how large the noise is. The study geometry records the rescaled estimates.",
        findings=tuple(findings),
        figures=("information_difference", "scale_split", "geometry"),
    )


def _finding(
    statistic: str,
    noise_rule: str | None,
    interval: Interval,
    unit: str,
    verdict: Verdict,
    remark: str,
    *,
    decides: bool = True,
) -> Finding:
    if interval.count == 1:
        remark = "; ".join(filter(None, ["one paired seed: an interval needs two", remark]))
    value, low, high = (None if math.isnan(number) else number for number in interval[:3])
    return Finding(
        statistic=statistic,
        noise_rule=noise_rule,
        value=value,
        low=low,
        high=high,
        unit=unit,
        seeds=interval.count,
        verdict=verdict,
        remark=remark,
        decides=decides,
    )


def _layers_remark(found: Paired) -> str:
    if not len(found.values):
        return "every layer is saturated" if found.saturated else "not measured in this run for both trainings"
    parts = [f"{found.values.columns.get_level_values('layer').nunique()} layers"]
    if found.saturated:
        parts.append(f"saturated and left out: {', '.join(found.saturated)}")
    if found.partial:
        parts.append(f"not measured in every seed and left out: {', '.join(found.partial)}")
    if found.seeds:
        parts.append(f"without seed {', '.join(map(str, found.seeds))}, of which no layer was measured in both")
    return "; ".join(parts)


def _missing(interval: Interval, what: str) -> str:
    return "" if interval.count else f"{what} was not measured in this run for both trainings"
