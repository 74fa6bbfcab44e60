"""Claim 1: information follows the same trend through normal and adversarial training, on clean and adversarial inputs.

Two families of curves are compared as functions: how far apart they are, relative to how far seeds are apart.
"""

import math
from typing import NamedTuple

import numpy as np

from mi_jax.claims.paired import Pair, layer_information, scope
from mi_jax.claims.registry import CLAIMS
from mi_jax.claims.verdicts import Claim, ClaimStatistic, at_most, statistic
from mi_jax.records.labels import INFORMATION, LABEL_FREE_ATTACKS, LABEL_LEAK, name_of
from mi_jax.records.run_records import RunRecords, noise_rules
from mi_jax.statistics.intervals import Interval, Table, t_interval
from mi_jax.statistics.jackknife import Sample, crossed

FEWEST_EPOCHS = 10
"""Measured epochs after epoch 0 that a comparison of trends needs."""
FEWEST_SEEDS = 3
_THRESHOLD = math.sqrt(2)
"""Ratio of distances at which two mean curves are as far apart as two seeds of one training."""
_SHARED = 0.5
"""Least share of the variance of curves over epochs that seeds of one training have in common."""
_NOISE = 0.1
"""Part of the trend itself within which two curves count as the same, however alike the seeds are."""
_WITH_LABEL = "adversarial inputs"
_WITHOUT_LABEL = {
    "pgd-prediction": "adversarial inputs made without the label (against the prediction)",
    "pgd-random-target": "adversarial inputs made without the label (towards a random class)",
}
assert set(_WITHOUT_LABEL) == set(LABEL_FREE_ATTACKS)


class Condition(NamedTuple):
    """Whose curves: of a training, on a kind of inputs, made by an attack (None: the one that knows the label)."""

    training: str
    inputs: str = "clean"
    attack: str | None = None


@CLAIMS.registering("same_trend")
def same_trend(run_records: RunRecords, pair: Pair) -> Claim:
    """Distance of the curves between trainings, and between clean and adversarial inputs of each."""
    first, second = map(name_of, pair)
    first_rule, *_, last_rule = noise_rules(run_records)
    comparisons = _comparisons(pair, _label_free(run_records, first_rule))
    statistics = [
        _statistic(run_records, noise_rule, quantity, label, conditions, decides=decides)
        for noise_rule in noise_rules(run_records)
        for quantity in ("i_tx_upper", "i_ty_upper")
        for label, conditions, decides in comparisons[quantity]
    ]
    return Claim(
        number="1",
        name="same trend through training",
        text="Mutual information follows almost the same trend through training, for normally and adversarially "
        "trained networks and for clean and adversarial inputs.",
        method=f"Curves over at least {FEWEST_EPOCHS} measured epochs, without epoch 0 (where {first} and {second} are "
        "one network) and less their mean over epochs, so that a difference in level does not count. The statistic is "
        "the root mean square distance, over epochs and layers, between curves of the two kinds from different seeds, "
        "divided by that between different seeds of one kind (both kinds taken together): 1 where the kinds differ as "
        f"seeds do. Almost the same: less than √2 = {_THRESHOLD:.2f}, that is, the two mean curves are less far apart "
        f"than two seeds; differences within {100 * _NOISE:.0f} % of the trend itself count as none. 95 % intervals of "
        "the logarithm by the jackknife over seeds, at least three; all comparisons listed must agree. Nothing is "
        f"concluded where seeds of one training share less than {100 * _SHARED:.0f} % of the variance of their curves: "
        f"there is then no trend to compare. Layers saturated at every epoch are left out. {LABEL_LEAK} Where "
        "adversarial inputs made without the label were measured through training, they decide for I(T;Y).",
        statistics=tuple(statistics),
        figures=tuple(f"information_epochs_{q}_upper_{r}" for q in INFORMATION for r in (first_rule, last_rule)),
        scope=scope(run_records, layer_information(run_records, "i_tx_upper", first_rule, inputs="clean")),
    )


def _label_free(run_records: RunRecords, noise_rule: str) -> list[str]:
    """The attacks without the label on whose inputs information was measured through training."""
    return [
        attack
        for attack in LABEL_FREE_ATTACKS
        if layer_information(run_records, "i_ty_upper", noise_rule, inputs="adversarial", attack=attack)[
            "epoch"
        ].nunique()
        > FEWEST_EPOCHS
    ]


def _comparisons(pair: Pair, label_free: list[str]) -> dict[str, list[tuple[str, tuple[Condition, Condition], bool]]]:
    """By quantity: label, conditions and whether they decide; the two trainings, and clean against adversarial inputs.

    Where there are inputs without the label, those with it do not decide for I(T;Y).
    """
    first, second = map(name_of, pair)
    found = {}
    for quantity in ("i_tx_upper", "i_ty_upper"):
        found[quantity] = [(f"{first} and {second}, clean inputs", (Condition(pair[0]), Condition(pair[1])), True)]
        for attack in (None, *label_free):
            made = _WITH_LABEL if attack is None else _WITHOUT_LABEL[attack]
            decides = attack is not None or not label_free or quantity == "i_tx_upper"
            found[quantity] += [
                (
                    f"clean and {made}, {name_of(name)}",
                    (Condition(name), Condition(name, "adversarial", attack)),
                    decides,
                )
                for name in pair
            ]
    return found


def _statistic(
    run_records: RunRecords,
    noise_rule: str,
    quantity: str,
    label: str,
    conditions: tuple[Condition, Condition],
    *,
    decides: bool,
) -> ClaimStatistic:
    curves = []
    for training, inputs, attack in conditions:
        rows = layer_information(run_records, quantity, noise_rule, inputs=inputs, attack=attack)
        curves.append(rows[rows["training"] == training])
    interval, remark = distance(*curves)
    if not decides:
        remark = f"context: the attack knows the label; {remark}"
    name = f"{INFORMATION[quantity[:4]]}: {label}"
    return statistic(name, interval, "ratio", at_most(_THRESHOLD), remark, noise_rule=noise_rule, decides=decides)


def distance(a: Table, b: Table) -> tuple[Interval, str]:
    """Distance between two families of curves relative to that between seeds.

    Args:
        a, b: record rows of one quantity (columns seed, layer, epoch, value, saturated), paired by seed.

    Returns:
        The ratio with its 95 % interval, without ends (and the reason as the remark) where nothing can be concluded.
    """
    if a.empty or b.empty:
        return t_interval([]), "not measured in this run"
    left, right, used, seeds, epochs = _aligned(a, b)
    if epochs < FEWEST_EPOCHS:
        return t_interval([]), f"too few epochs: {epochs} after epoch 0 in common; a trend needs {FEWEST_EPOCHS}"
    if not used:
        return t_interval([]), "every layer is saturated or constant"
    if seeds < FEWEST_SEEDS:
        return t_interval([]), f"too few seeds: {seeds}; the distance between seeds needs {FEWEST_SEEDS}"
    interval, reason = ratio(left, right)
    remark = f"{used} layer{'' if used == 1 else 's'}, {epochs} epochs"
    return interval, f"{reason}; {remark}" if reason else remark


def ratio(a: np.ndarray, b: np.ndarray) -> tuple[Interval, str]:
    """The exponential of `log_ratio` with its interval over seeds.

    Args:
        a, b: `[seeds layers epochs]`, paired by seed, of at least three seeds.

    Returns:
        The interval, without ends where seeds share too little of their curves, and that reason or nothing.
    """
    effect = crossed(log_ratio, Sample(a), Sample(b))
    low, high = (math.exp(end) for end in effect.interval()[1:3])
    interval = Interval(math.exp(float(effect.value)), low, high, len(a))
    shares = [shared_variance(a), shared_variance(b)]
    # Curves of one kind may have no trend of their own, and differ from a trend that the other kind has.
    if min(shares) >= _SHARED or (max(shares) >= _SHARED and low > _THRESHOLD):
        return interval, ""
    shown = " and ".join(f"{share:.0%}" for share in shares)
    return interval._replace(low=math.nan, high=math.nan), f"seeds share too little of their curves ({shown})"


def log_ratio(a: np.ndarray, b: np.ndarray) -> float:
    """Logarithm of the distance between two families of curves, relative to the distance between seeds.

    Args:
        a, b: `[seeds layers epochs]`, paired by seed.

    Returns:
        0 in expectation where both families have one distribution; log 2 / 2 where their means are as far apart as two
        seeds.

    Examples:
        >>> seeds = np.array([[[0.0, 1.0]], [[0.0, 2.0]], [[0.0, 3.0]]])
        >>> round(abs(log_ratio(seeds, seeds)), 2)
        0.0
    """
    a, b = (curves - curves.mean(axis=-1, keepdims=True) for curves in (a, b))
    apart, of_a, of_b = (_between(*two) for two in ((a, b), (a, a), (b, b)))
    trend = ((a.mean(axis=0) ** 2).mean() + (b.mean(axis=0) ** 2).mean()) / 2
    noise = _NOISE**2 * trend
    return 0.5 * math.log((apart + noise) / ((of_a + of_b) / 2 + noise))


def shared_variance(a: np.ndarray) -> float:
    """Share of the variance over epochs that curves `[seeds layers epochs]` of different seeds have in common."""
    a = a - a.mean(axis=-1, keepdims=True)
    total = float((a**2).mean())
    return 1 - _between(a, a) / 2 / total if total > 0 else 0.0


def _between(a: np.ndarray, b: np.ndarray) -> float:
    """Mean squared distance between curves of different seeds."""
    seeds = len(a)
    squares = ((a[:, None] - b[None]) ** 2).mean(axis=(2, 3))
    return float((squares.sum() - np.trace(squares)) / (seeds * (seeds - 1))) if seeds > 1 else math.nan


def _aligned(a: Table, b: Table) -> tuple[np.ndarray, np.ndarray, int, int, int]:
    """Curves `[seeds layers epochs]` on what both have in common after epoch 0; numbers of layers, seeds and epochs."""
    tables = [
        rows[rows["epoch"] > 0].pivot_table(index=["seed", "layer"], columns="epoch", values="value", sort=False)
        for rows in (a, b)
    ]
    both = tables[0].index.intersection(tables[1].index)
    seeds = sorted(set(both.get_level_values("seed")))
    layers = set(both.get_level_values("layer")) - _always_saturated(a) - _always_saturated(b)
    layers = [
        layer for layer in dict.fromkeys(a["layer"]) if layer in layers and all((s, layer) in both for s in seeds)
    ]
    epochs = tables[0].columns.intersection(tables[1].columns)
    index = [(seed, layer) for seed in seeds for layer in layers]
    if index:
        whole = [table.loc[index, epochs].notna().all() for table in tables]
        epochs = epochs[(whole[0] & whole[1]).to_numpy()]
    shape = (len(seeds), len(layers), len(epochs))
    left, right = (table.loc[index, epochs].to_numpy(float).reshape(shape) for table in tables)
    moves = (
        (np.ptp(left, axis=-1) + np.ptp(right, axis=-1)).max(axis=0) > 0 if left.size else np.zeros(len(layers), bool)
    )
    return left[:, moves], right[:, moves], int(moves.sum()), len(seeds), len(epochs)


def _always_saturated(rows: Table) -> set[str]:
    flags = rows["saturated"].fillna(False).astype(bool).groupby(rows["layer"]).min()
    return set(flags[flags].index)
