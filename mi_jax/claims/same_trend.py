"""Claim 1: information follows the same trend through normal and adversarial training, on clean and adversarial inputs.

Two families of curves are compared as functions: how far apart they are, relative to how far seeds are apart.
"""

import math
from typing import NamedTuple

import numpy as np

from mi_jax.claims.curves import Curves, aligned, between_seeds, detrended
from mi_jax.claims.paired import Pair, layer_information, scope, undersampled
from mi_jax.claims.registry import CLAIMS
from mi_jax.claims.trend_band import band
from mi_jax.claims.verdicts import Claim, ClaimStatistic, at_most, statistic
from mi_jax.records.labels import INFORMATION, LABEL_FREE_ATTACKS, LABEL_LEAK, counted, name_of
from mi_jax.records.run_records import RunRecords
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
"""Part of the trend itself within which two curves count as the same, however similar the seeds are."""
_COLUMNS = ["training", "seed", "layer", "epoch", "estimator", "value", "saturated", "unreliable", "numerical_error"]
"""What of a table of some forty columns its curves need: each selection of rows copies every column."""
_QUANTITIES = ("i_tx_upper", "i_ty_upper")
_LEAVE_ONE_OUT = {
    "i_tx_leave_one_out": "leave-one-out value, in expectation at least the information of the population",
    "i_ty_leave_one_out": "leave-one-out value, in expectation at most the information of the population",
}
_WITH_LABEL = "adversarial inputs"
_WITHOUT_LABEL = {
    "pgd-prediction": "adversarial inputs made without the label (against the prediction)",
    "pgd-random-target": "adversarial inputs made without the label (towards a random class)",
}
assert set(_WITHOUT_LABEL) == set(LABEL_FREE_ATTACKS)


class Condition(NamedTuple):
    """Which curves: of a training, on a kind of inputs, made by an attack (None: the one that knows the label)."""

    training: str
    inputs: str = "clean"
    attack: str | None = None


@CLAIMS.registering("same_trend")
def same_trend(run_records: RunRecords, pair: Pair) -> Claim:
    """Distance of the curves between trainings, and between clean and adversarial inputs of each."""
    first, second = map(name_of, pair)
    first_rule, *_, last_rule = run_records.noise_rules
    comparisons = _comparisons(pair, _label_free(run_records, first_rule))
    statistics = [
        _statistic(run_records, noise_rule, quantity, label, conditions, decides=decides)
        for noise_rule in run_records.noise_rules
        for quantity in comparisons
        for label, conditions, decides in comparisons[quantity]
    ]
    statistics = [s for s in statistics if s.decides or s.value is not None]
    return Claim(
        number="1",
        name="same trend through training",
        text=f"Mutual information follows almost the same trend through training, for {first} and {second} networks "
        "and for clean and adversarial inputs.",
        method=f"Curves over at least {FEWEST_EPOCHS} measured epochs, without epoch 0 (where {first} and {second} are "
        "the same network) and less their mean over epochs, so that a difference in level does not count. The "
        "statistic is the root mean square distance, over epochs and layers, between curves of the two kinds from "
        "different seeds, divided by that between different seeds of one kind (both kinds taken together): 1 where "
        f"the kinds differ as much as seeds do. Almost the same: less than √2 = {_THRESHOLD:.2f}, that is, the two "
        f"mean curves are closer together than two seeds; differences within {100 * _NOISE:.0f} % of the trend itself "
        "count as none. 95 % intervals of the logarithm by the jackknife over seeds, at least three; all comparisons "
        f"listed must agree. Nothing is concluded where seeds of one training share less than {100 * _SHARED:.0f} % of "
        "the variance of their curves: there is then no trend to compare. Layers of which a quarter of the values or "
        "more are saturated are left out, as all curves agree at the ceiling. The remarks state at which epochs the "
        "second kind differs from the first: the difference of the means over layers, less its mean over epochs, with "
        "a simultaneous 95 % band over epochs (Student's t over paired seeds, Bonferroni's inequality over epochs). "
        f"{LABEL_LEAK} Where adversarial inputs made without the label were measured through training, they decide for "
        "I(T;Y).",
        statistics=tuple(statistics),
        figures=(
            *(f"information_epochs_{q}_upper_{r}" for q in INFORMATION for r in (first_rule, last_rule)),
            "trend_difference",
        ),
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
    across, label = (Condition(pair[0]), Condition(pair[1])), f"{first} and {second}, clean inputs"
    found = {quantity: [(f"{label}, leave-one-out", across, False)] for quantity in _LEAVE_ONE_OUT}
    for quantity in _QUANTITIES:
        found[quantity] = [(label, across, True)]
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
    return {quantity: found[quantity] for quantity in (*_QUANTITIES, *_LEAVE_ONE_OUT)}


def _statistic(
    run_records: RunRecords,
    noise_rule: str,
    quantity: str,
    label: str,
    conditions: tuple[Condition, Condition],
    *,
    decides: bool,
) -> ClaimStatistic:
    rows = condition_rows(run_records, quantity, noise_rule, conditions)
    interval, remark, few = distance(*rows)
    if not decides:
        remark = f"context: {_LEAVE_ONE_OUT.get(quantity, 'the attack knows the label')}; {remark}"
    name = f"{INFORMATION[quantity[:4]]}: {label}"
    return statistic(
        name, interval, "ratio", at_most(_THRESHOLD), remark,
        noise_rule=noise_rule, decides=decides, undersampled=few,
    )  # fmt: skip


def condition_rows(
    run_records: RunRecords, quantity: str, noise_rule: str, conditions: tuple[Condition, Condition]
) -> list[Table]:
    """The rows of a quantity under a noise rule of each of the conditions."""
    found = []
    for training, inputs, attack in conditions:
        rows = layer_information(run_records, quantity, noise_rule, inputs=inputs, attack=attack)
        found.append(rows.loc[rows["training"] == training, _COLUMNS])
    return found


def distance(a: Table, b: Table) -> tuple[Interval, str, tuple[int, int]]:
    """Distance between two families of curves relative to that between seeds.

    Args:
        a, b: record rows of one quantity (columns seed, layer, epoch, value, saturated), paired by seed.

    Returns:
        The ratio with its 95 % interval, without ends (and the reason as the remark) where nothing can be concluded;
        and `undersampled` of its layers.
    """
    curves, reason = comparable(a, b)
    if reason:
        return t_interval([]), reason, (0, 0)
    interval, reason = ratio(curves.first, curves.second)
    layers, epochs = len(curves.layers), len(curves.epochs)
    parts = [reason, f"{counted(layers, 'layer')}, {epochs} epochs", band(curves).in_words()]
    few = undersampled(*(rows[rows["layer"].isin(curves.layers) & (rows["epoch"] > 0)] for rows in (a, b)))
    return interval, "; ".join(filter(None, parts)), few


def comparable(a: Table, b: Table) -> tuple[Curves, str]:
    """The curves of two conditions, and the reason where they are too few to compare; else empty."""
    curves = aligned(a, b)
    seeds, _, epochs = curves.first.shape
    if a.empty or b.empty:
        return curves, "not measured in this run"
    if epochs < FEWEST_EPOCHS:
        return curves, f"too few epochs: {epochs} after epoch 0 in common; a trend needs {FEWEST_EPOCHS}"
    if not curves.layers:
        return curves, "every layer is saturated or constant"
    if seeds < FEWEST_SEEDS:
        return curves, f"too few seeds: {seeds}; the distance between seeds needs {FEWEST_SEEDS}"
    return curves, ""


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
    a, b = map(detrended, (a, b))
    apart, of_a, of_b = (between_seeds(*two) for two in ((a, b), (a, a), (b, b)))
    trend = ((a.mean(axis=0) ** 2).mean() + (b.mean(axis=0) ** 2).mean()) / 2
    noise = _NOISE**2 * trend
    return 0.5 * math.log((apart + noise) / ((of_a + of_b) / 2 + noise))


def shared_variance(a: np.ndarray) -> float:
    """Share of the variance over epochs that curves `[seeds layers epochs]` of different seeds have in common."""
    a = detrended(a)
    total = float((a**2).mean())
    return 1 - between_seeds(a, a) / 2 / total if total > 0 else 0.0
