"""Claim 2a: adversarially trained networks extract less information about the input."""

from mi_jax.claims.paired import END, Pair, Paired, by_layer, layer_information
from mi_jax.claims.registry import CLAIMS
from mi_jax.claims.verdicts import SMALLEST, Claim, judge_difference, statistic
from mi_jax.records.labels import name_of
from mi_jax.records.run_records import RunRecords, noise_rules
from mi_jax.statistics.intervals import t_interval

_ESTIMATES = (
    ("kde", "i_tx_upper", "KDE upper bound"),
    ("kde", "i_tx_lower", "KDE lower bound"),
    ("monte_carlo", "i_tx", "Monte Carlo"),
)


@CLAIMS.registering("extracts_less")
def extracts_less(run_records: RunRecords, pair: Pair) -> Claim:
    """I(X;T) on clean test images, the second training minus the first, under every noise rule and estimator."""
    statistics = []
    for noise_rule in noise_rules(run_records):
        for estimator, quantity, label in _ESTIMATES:
            rows = layer_information(run_records, quantity, noise_rule, inputs="clean", estimator=estimator)
            if rows.empty and estimator != "kde":
                continue
            found = by_layer(rows, pair)
            table = found.values
            difference = t_interval((table[pair[1]] - table[pair[0]]).mean(axis=1)) if len(table) else t_interval([])
            verdict = judge_difference(difference, sign=-1, smallest=SMALLEST["bits"])
            statistics.append(
                statistic(f"I(X;T), {label}", difference, "bits", verdict, _remark(found), noise_rule=noise_rule)
            )
    first, second = map(name_of, pair)
    return Claim(
        number="2a",
        name=f"{second} extracts less of the input",
        text=f"{second} networks extract less information about the input than {first} networks.",
        method=f"{second} minus {first} of I(X;T) on the same clean test images, averaged for each seed over the "
        f"layers that are saturated in neither training, {END}; mean over seeds with a paired t-interval. All bounds "
        "must agree: a difference of upper bounds alone is not a difference of information (and as the lower bound is "
        "the upper bound at four times the noise variance, the sign must hold at two noise levels). A difference "
        f"within ±{SMALLEST['bits']} bits counts as none. The estimate of a saturated layer is a count of samples; "
        "leaving the layer out understates a difference that it hides.",
        statistics=tuple(statistics),
        figures=("information_difference",),
    )


def _remark(found: Paired) -> str:
    if not len(found.values):
        return "every layer is saturated" if found.saturated else "not measured in this run for both trainings"
    count = found.values.columns.get_level_values("layer").nunique()
    parts = [f"{count} layer{'' if count == 1 else 's'}"]
    if found.saturated:
        parts.append(f"left out as saturated: {', '.join(found.saturated)}")
    if found.partial:
        parts.append(f"left out as not measured in every seed: {', '.join(found.partial)}")
    if found.seeds:
        parts.append(f"without seed {', '.join(map(str, found.seeds))}: no layer was measured in both trainings")
    return "; ".join(parts)
