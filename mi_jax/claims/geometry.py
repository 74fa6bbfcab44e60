"""Claim 4: the estimates show the geometry of a layer's output, above all its scale, rather than information alone."""

import pandas as pd

from mi_jax.claims.paired import Pair, by_layer, layer_information, shares_noise
from mi_jax.claims.registry import CLAIMS
from mi_jax.claims.verdicts import Claim, judge_threshold, statistic
from mi_jax.records.labels import MINUS, NOISE_RULE_NAMES, name_of
from mi_jax.records.run_records import RunRecords, final_rows, noise_rules
from mi_jax.statistics.intervals import Interval, Table, t_interval

_HALF = 0.5


@CLAIMS.registering("geometry")
def geometry(run_records: RunRecords, pair: Pair) -> Claim:
    """The share of the difference in I(X;T) that is scale; the share of layers that are saturated as context."""
    share, remark = scale_share(run_records, pair)
    verdict = judge_threshold(share, threshold=_HALF)
    statistics = [statistic("Share of the I(X;T) difference that is scale", share, "share", verdict, remark)]
    for noise_rule in noise_rules(run_records):
        rows = layer_information(run_records, "i_tx_upper", noise_rule, inputs="clean")
        flags = final_rows(rows[rows["training"].isin(pair)])
        flags = flags.assign(flag=flags["saturated"].fillna(False).astype(float))
        saturated = t_interval(flags.groupby("seed")["flag"].mean()).clipped(0.0, 1.0)
        if saturated.count:
            context = "context: a saturated estimate counts distinct samples and measures no information"
            name = "Share of layers saturated"
            statistics.append(
                statistic(name, saturated, "share", "undecided", context, noise_rule=noise_rule, decides=False)
            )
    first, second = map(name_of, pair)
    return Claim(
        number="4",
        name="estimates show scale, not information",
        text="The estimators outline the geometry of a layer's output (spread, clustering) rather than information "
        "alone.",
        method=f"How much of the {second} minus {first} difference in I(X;T) is a difference in the scale of "
        "activations. With D the difference of the upper bounds under a noise variance that both share (the fixed one, "
        "or that of the trace noise rule where the fixed one saturates every layer), and R the difference once "
        f"{second} activations are rescaled to {first}'s variance, the share is Σ|D{MINUS}R| / (Σ|D{MINUS}R| + "
        "Σ|R|), sums over the layers unsaturated in both; per seed, then a t-interval. Supported above one half. "
        "If no rescaled estimates were recorded, a proxy is used: D and R are then relative differences, "
        f"2(b{MINUS}a)/(a+b), D under a noise rule that both trainings share (the fixed one, or the trace noise rule "
        "where that saturates everywhere), R under one that follows each training's own scale. It is a proxy because "
        "the second noise rule also changes how large the noise is. The study geometry records the rescaled estimates.",
        statistics=tuple(statistics),
        figures=("information_difference", "scale_split", "geometry"),
    )


def scale_share(run_records: RunRecords, pair: Pair) -> tuple[Interval, str]:
    """How much of the difference in I(X;T) is a difference in the scale of the activations.

    By rescaling where the study `geometry` has recorded `i_tx_upper_rescaled` (the second training's activations
    rescaled to the first's variance), under the fixed noise, or the trace noise rule where that saturates every layer;
    else by comparing a noise rule that both trainings share with one that follows each.

    Returns:
        The share over seeds with its 95 % interval, and a remark: how it was formed, or why it could not be.
    """
    rows = {
        rule: layer_information(run_records, "i_tx_upper", rule, inputs="clean")
        for rule in ("fixed", "trace", "scale_free")
    }
    for rule in ("fixed", "trace"):
        rescaled, whole = layer_information(run_records, "i_tx_upper_rescaled", rule, inputs="clean"), rows[rule]
        if not rescaled.empty:
            without = pd.concat([whole[whole["training"] == pair[0]], rescaled[rescaled["training"] == pair[1]]])
            found = _share(run_records, pair, whole, without, f"by rescaling, {NOISE_RULE_NAMES[rule]}", relative=False)
            if found[0].count:
                return found
    own = [rule for rule in ("scale_free", "trace") if not rows[rule].empty and not shares_noise(rows[rule], pair)]
    if not own:
        return t_interval([]), "needs rescaled estimates, or a noise rule that follows the scale of each training"
    found = (t_interval([]), "")
    for shared in ("fixed", "trace"):
        if shared not in own:
            remark = f"proxy: {NOISE_RULE_NAMES[shared]} against {NOISE_RULE_NAMES[own[0]]}"
            found = _share(run_records, pair, rows[shared], rows[own[0]], remark, relative=True)
            if found[0].count:
                break
    return found


def _share(
    run_records: RunRecords, pair: Pair, whole: Table, without: Table, remark: str, *, relative: bool
) -> tuple[Interval, str]:
    """sum|D - R| / (sum|D - R| + sum|R|) per seed: D from `whole`, R from the rows `without` a difference in scale."""
    found = by_layer(whole, pair), by_layer(without, pair)
    a, b = (part.values for part in found)
    layers = [layer for layer in run_records.layers if all(len(t) and layer in t[pair[0]].columns for t in (a, b))]
    if not layers:
        saturated = any(part.saturated for part in found)
        reason = "every layer is saturated" if saturated else "not measured in this run for both trainings"
        return t_interval([]), reason
    seeds = a.index.intersection(b.index)
    (first, second), (first_r, second_r) = [[t.loc[seeds, name][layers] for name in pair] for t in (a, b)]
    difference, rest = second - first, second_r - first_r
    if relative:
        difference, rest = 2 * difference / (first + second), 2 * rest / (first_r + second_r)
    scale = (difference - rest).abs().sum(axis=1)
    total = scale + rest.abs().sum(axis=1)
    remark += f"; {len(layers)} of {len(run_records.layers)} layers"
    return t_interval((scale / total.where(total > 0)).to_numpy()).clipped(0.0, 1.0), remark
