"""Claim 1: information follows the same trend through normal and adversarial training, on clean and adversarial inputs.

How alike two families of curves are is a rank correlation over epochs, per layer and seed.
"""

import math

import numpy as np
import pandas as pd

from mi_jax.claims.paired import Pair, layer_information
from mi_jax.claims.registry import CLAIMS
from mi_jax.claims.verdicts import Claim, ClaimStatistic, judge_threshold, statistic
from mi_jax.records.labels import INFORMATION, LABEL_LEAK, name_of
from mi_jax.records.run_records import RunRecords, noise_rules
from mi_jax.statistics.intervals import Table, t_interval

SMALLEST_MOVE = 0.1
"""Range in bits over epochs below which a curve counts as flat."""
FEWEST_EPOCHS = 4
"""Epochs that a rank correlation needs here."""

_SAME = math.sqrt(0.5)
"""The correlation from which two trends count as almost the same."""


@CLAIMS.registering("same_trend")
def same_trend(run_records: RunRecords, pair: Pair) -> Claim:
    """Rank correlation over epochs between trainings, and between clean and adversarial inputs of each."""
    first, second = map(name_of, pair)
    first_rule, *_, last_rule = noise_rules(run_records)
    comparisons = (
        (f"{first} and {second}, clean inputs", ((pair[0], "clean"), (pair[1], "clean"))),
        (f"clean and adversarial inputs, {first}", ((pair[0], "clean"), (pair[0], "adversarial"))),
        (f"clean and adversarial inputs, {second}", ((pair[1], "clean"), (pair[1], "adversarial"))),
    )
    return Claim(
        number="1",
        name="same trend through training",
        text="Mutual information follows almost the same trend through training, for normally and adversarially "
        "trained networks and for clean and adversarial inputs.",
        method="Spearman's rank correlation, over the measured epochs, of the two curves of one layer and one "
        "seed; averaged over layers, then over seeds with a t-interval. A layer counts if at least one of its two "
        f"curves moves by {SMALLEST_MOVE} bits (flat curves have no trend to compare) and neither is saturated at "
        f"every epoch. At least {FEWEST_EPOCHS} epochs. “Almost the same” is read as a correlation of at least "
        "√½ = 0.71 (half of the rank variance shared), for all the comparisons listed; below 0 the trends are "
        "opposed. Two rising curves correlate whatever drives them, so this tests the trend and nothing finer; the "
        f"correlation between different {first} seeds is given as the value that “the same” has in this run. "
        f"{LABEL_LEAK}",
        statistics=tuple(
            _trend(run_records, noise_rule, quantity, label, conditions)
            for noise_rule in noise_rules(run_records)
            for quantity in ("i_tx_upper", "i_ty_upper")
            for label, conditions in comparisons
        ),
        figures=tuple(f"information_epochs_{q}_upper_{r}" for q in INFORMATION for r in (first_rule, last_rule)),
    )


def _trend(
    run_records: RunRecords,
    noise_rule: str,
    quantity: str,
    label: str,
    conditions: tuple[tuple[str, str], tuple[str, str]],
) -> ClaimStatistic:
    curves = []
    for training, inputs in conditions:
        rows = layer_information(run_records, quantity, noise_rule, inputs=inputs)
        curves.append(rows[rows["training"] == training])
    per_seed, remark = similarity(*curves)
    if per_seed.size and conditions[0][0] != conditions[1][0]:
        reference = between_seeds(curves[0])
        if not math.isnan(reference):
            remark += f"; between two {name_of(conditions[0][0])} seeds {reference:.2f}"
    interval = t_interval(per_seed).clipped(-1.0, 1.0)
    verdict = judge_threshold(interval, threshold=_SAME, reversed_below=0.0)
    name = f"{INFORMATION[quantity[:4]]}: {label}"
    return statistic(name, interval, "correlation", verdict, remark, noise_rule=noise_rule)


def similarity(a: Table, b: Table) -> tuple[np.ndarray, str]:
    """Spearman correlation over epochs of two conditions' curves, averaged over layers.

    A layer counts if one of its two seed-mean curves moves by `SMALLEST_MOVE` and neither is saturated at every epoch.

    Args:
        a, b: record rows of one quantity (columns seed, layer, epoch, value, saturated), paired by seed.

    Returns:
        One value per seed (none where they cannot be formed), and a remark: the layers and epochs used, or the reason.
    """
    if a.empty or b.empty:
        return np.empty(0), "not measured in this run"
    left, right = _curves(a), _curves(b)
    epochs = left.columns.intersection(right.columns)
    pairs = left.index.intersection(right.index)
    left, right = left.loc[pairs, epochs].dropna(axis=1), right.loc[pairs, epochs].dropna(axis=1)
    epochs = left.columns.intersection(right.columns)
    if len(epochs) < FEWEST_EPOCHS:
        return np.empty(0), f"{len(epochs)} common epochs; a trend needs {FEWEST_EPOCHS}"
    left, right = left[epochs], right[epochs]
    layers = _comparable(left, right, _always_saturated(a) | _always_saturated(b))
    if not layers:
        return np.empty(0), "every layer is saturated or flat"
    rows = [
        (seed, correlation(one, other))
        for (seed, layer), one, other in zip(pairs, left.to_numpy(), right.to_numpy(), strict=True)
        if layer in layers
    ]
    per_seed: Table = pd.DataFrame(rows, columns=["seed", "correlation"]).groupby("seed")["correlation"].mean()
    total = pairs.get_level_values("layer").nunique()
    return per_seed.to_numpy(), f"{len(layers)} of {total} layers, {len(epochs)} epochs"


def between_seeds(rows: Table) -> float:
    """Mean similarity of one condition's curves between different seeds, as a reference; NaN for one seed."""
    seeds = rows["seed"].dropna().unique()
    values = [
        similarity(rows[rows["seed"] == one].assign(seed=0), rows[rows["seed"] == other].assign(seed=0))[0]
        for i, one in enumerate(seeds)
        for other in seeds[i + 1 :]
    ]
    found = np.concatenate([np.empty(0), *values])
    return float(found.mean()) if found.size else math.nan


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation; 0 where one of the two is constant (it has no trend to share)."""
    ranks = [pd.Series(values).rank().to_numpy() for values in (a, b)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _curves(rows: Table) -> Table:
    """One row per (seed, layer), one column per epoch."""
    return rows.pivot_table(index=["seed", "layer"], columns="epoch", values="value", sort=False).sort_index(axis=1)


def _always_saturated(rows: Table) -> set[str]:
    flags = rows["saturated"].fillna(False).astype(bool).groupby(rows["layer"]).min()
    return set(flags[flags].index)


def _comparable(left: Table, right: Table, saturated: set[str]) -> set[str]:
    means = [curves.groupby(level="layer").mean() for curves in (left, right)]
    moves: Table = pd.concat([mean.max(axis=1) - mean.min(axis=1) for mean in means], axis=1).max(axis=1)
    return set(moves[moves >= SMALLEST_MOVE].index) - saturated
