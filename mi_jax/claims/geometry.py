"""Claim 4: the estimates show the geometry of a layer's output, above all its scale, rather than information alone."""

import itertools
import math

import numpy as np

from mi_jax.claims.paired import Pair, evidence, layer_information, scope, undersampled
from mi_jax.claims.registry import CLAIMS
from mi_jax.claims.verdicts import SMALLEST, Claim, ClaimStatistic, context, difference, statistic
from mi_jax.records.labels import counted, name_of
from mi_jax.records.run_records import RunRecords, final_rows
from mi_jax.statistics.intervals import Interval, Table, t_interval
from mi_jax.statistics.jackknife import Sample, crossed

_RULES = ("fixed", "trace")
"""The noise rules under which a difference in scale shows: both trainings have the same noise variance."""
_MOVEMENTS = {
    "scaling": "Movement when all activations are doubled, minus when one bit is lost",
    "channel_gain": "Movement when channels get gains of their own, minus when one bit is lost",
}
"""Statistics by the map that preserves the information of the activations without noise."""
_LOSS = "repetition"
_FULL = "every layer is saturated"
_NEEDS = "needs the study geometry"
_AGAIN = "the study geometry has to be run again, its maps are of an earlier version"
CRITERION = difference(sign=+1, smallest=SMALLEST["bits"])


@CLAIMS.registering("geometry")
def geometry(run_records: RunRecords, pair: Pair) -> Claim:
    """Scale against the rest in the difference of I(X;T), and maps that keep information against one that loses it."""
    statistics = []
    for rule in _RULES:
        split, maps = _split(run_records, pair, rule), _maps(run_records, pair, rule)
        if split and not maps:
            maps = _without_value(_AGAIN, rule)
        statistics += split + maps
    if not any(s.decides for s in statistics):
        statistics.append(statistic("Scale part minus the rest", t_interval([]), "bits", CRITERION, _NEEDS))
    for noise_rule in run_records.noise_rules:
        rows = final_rows(layer_information(run_records, "i_tx_upper", noise_rule, inputs="clean"))
        rows = rows[rows["training"].isin(pair)]
        flags = rows["saturated"].fillna(False).astype(float).groupby(rows["seed"]).mean()
        saturated = t_interval(flags).clipped(0.0, 1.0)
        if saturated.count:
            note = "context: a saturated estimate counts distinct samples and measures no information"
            statistics.append(
                statistic("Share of layers saturated", saturated, "share", context, note, noise_rule=noise_rule,
                          decides=False)
            )  # fmt: skip
    first, second = map(name_of, pair)
    return Claim(
        number="4",
        name="estimates show scale, not information",
        text="The estimators outline the geometry of a layer's output (spread, clustering) rather than information "
        "alone.",
        method=f"The difference in I(X;T) between {second} and {first} (upper bounds under a noise variance that both "
        "share) is split by layer into the part due to the scale of the activations and the rest, averaged over the "
        "two orders in which scale and rest can be exchanged (Shapley value), so that neither training is the "
        "reference. The statistic compares the two parts: the mean square of the scale part over layers minus that of "
        "the rest, each computed from products of different seeds, so that noise between seeds adds to neither. It is "
        "shown in bits, as the root of the difference with its sign, and is 0 where there is only noise. The other two "
        "are how far the estimate moves under a map that takes no information from the activations (all of them "
        "doubled; each channel multiplied by its own factor, at the same total variance), minus how far it moves under "
        "one that takes a known amount (of each pair of images, one takes the activations of the other: one bit). "
        "These amounts are of activations without noise. That of activations with noise, which is what is estimated, "
        "itself grows with their scale: the statistics say what it shows, not how exactly it is estimated. Layers that "
        "are saturated are left out, of the first statistic where they are so in both trainings. All must agree; "
        "intervals are over seeds, for these images; an interval within "
        f"±{SMALLEST['bits']} bits counts as no difference.",
        statistics=tuple(statistics),
        figures=("information_difference", "scale_split", "geometry"),
        scope=scope(run_records, run_records.select(quantity="i_tx_change")),
    )


def _split(run_records: RunRecords, pair: Pair, rule: str) -> list[ClaimStatistic]:
    """Scale part minus the rest, and the two parts as context; empty where the study was not run under the rule."""
    parts = {
        name: run_records.select(quantity=name, noise_rule=rule, reference="baseline", training=pair[1], inputs="clean")
        for name in ("i_tx_change", "i_tx_change_scale", "i_tx_upper_rescaled")
    }
    whole = layer_information(run_records, "i_tx_upper", rule, inputs="clean")
    parts["i_tx_upper"] = whole[whole["training"] == pair[1]]
    name, measured = "Scale part minus the rest", _aligned(list(parts.values()))[0] is not None
    full = _saturated(run_records, pair, rule)
    left = full[pair[0]] & full[pair[1]]
    values, seeds = _aligned([rows[~rows["layer"].isin(left)] for rows in parts.values()])
    if values is None:
        return [statistic(name, t_interval([]), "bits", CRITERION, _FULL, noise_rule=rule)] if measured else []
    change, forward, rescaled, own = values
    scale = (forward + own - rescaled) / 2  # rescaling the baseline up, and the other training down
    rest = change - scale
    few_seeds = f"{counted(seeds, 'seed')}: products of different ones need three"
    remark = counted(scale.shape[1], "layer") if seeds > 2 else few_seeds
    gap = scale_minus_rest(scale, rest)
    few = _undersampled(run_records, pair, rule, without=left)
    statistics = [statistic(name, gap, "bits", CRITERION, remark, noise_rule=rule, undersampled=few)]
    for name, part in (("scale", scale), ("rest, at equal variance", rest)):
        mean = t_interval(part.mean(axis=1))
        label, note = f"Difference of I(X;T), mean over layers: {name}", "context"
        statistics.append(statistic(label, mean, "bits", context, note, noise_rule=rule, decides=False))
    return statistics


def scale_minus_rest(scale: np.ndarray, rest: np.ndarray) -> Interval:
    """Signed root of the mean square of the scale part minus that of the rest, parts `[seeds layers]` in bits.

    NaN for fewer than three seeds.
    """
    seeds = len(scale)
    if seeds < 3:
        return Interval(math.nan, math.nan, math.nan, seeds)
    found = crossed(lambda c, h: excess(c) - excess(h), Sample(scale), Sample(rest)).interval()
    mean, low, high = (math.copysign(math.sqrt(abs(end)), end) for end in found[:3])
    return Interval(mean, low, high, seeds)


def excess(part: np.ndarray) -> float:
    """Mean square over layers of the mean over seeds of `[seeds layers]`, from products of different seeds.

    Examples:
        >>> excess(np.array([[1.0, 2.0], [3.0, 2.0]]))
        3.5
    """
    seeds = len(part)
    if seeds < 2:
        return math.nan
    return float(((part.sum(axis=0) ** 2 - (part**2).sum(axis=0)) / (seeds * (seeds - 1))).mean())


def _maps(run_records: RunRecords, pair: Pair, rule: str) -> list[ClaimStatistic]:
    """How far each map that preserves information moves the estimate, minus how far a known loss does."""
    rows = run_records.select(quantity="i_tx_map_change", noise_rule=rule)
    names = (*_MOVEMENTS, _LOSS)
    full = _saturated(run_records, pair, rule)
    left = full[pair[0]] | full[pair[1]]
    measured, rows = len(rows) > 0, rows[~rows["layer"].isin(left)]
    if measured and rows.empty:
        return _without_value(_FULL, rule)
    values, seeds = _aligned(
        [
            rows[(rows["reference"] == name) & (rows["training"] == training)]
            for name, training in itertools.product(names, pair)
        ]
    )
    if values is None:
        return []
    moved = np.abs(values).reshape(len(names), len(pair), seeds, -1).mean(axis=(1, 3))  # [maps, seeds]
    few = _undersampled(run_records, pair, rule, without=left)
    return [
        statistic(
            name, t_interval(preserving - moved[-1]), "bits", CRITERION,
            f"moves by {preserving.mean():.2f} bits where nothing is lost, by {moved[-1].mean():.2f} where one bit is",
            noise_rule=rule, undersampled=few,
        )
        for name, preserving in zip(_MOVEMENTS.values(), moved[:-1], strict=True)
    ]  # fmt: skip


def _without_value(reason: str, rule: str) -> list[ClaimStatistic]:
    """The statistics of the maps where there is nothing to compute them from."""
    return [statistic(name, t_interval([]), "bits", CRITERION, reason, noise_rule=rule) for name in _MOVEMENTS.values()]


def _saturated(run_records: RunRecords, pair: Pair, rule: str) -> dict[str, set[str]]:
    """By training, the layers that are saturated in some seed at the end: their estimates only count images."""
    rows = final_rows(layer_information(run_records, "i_tx_upper", rule, inputs="clean"))
    full = rows[rows["saturated"].fillna(False).astype(bool)]
    return {training: set(full.loc[full["training"] == training, "layer"]) for training in pair}


def _undersampled(run_records: RunRecords, pair: Pair, rule: str, *, without: set[str]) -> tuple[int, int]:
    """`undersampled` of the layers of the two trainings at the end that are compared."""
    rows = final_rows(layer_information(run_records, "i_tx_upper", rule, inputs="clean"))
    rows = rows[~rows["layer"].isin(without)]
    return undersampled(*(rows[rows["training"] == training] for training in pair))


def _aligned(tables: list[Table]) -> tuple[list[np.ndarray] | None, int]:
    """Finished values of several quantities `[seeds layers]` on the seeds and layers that all have, or None."""
    grids = [
        evidence(final_rows(rows)).pivot_table(index="seed", columns="layer", values="value", sort=False).dropna(axis=1)
        if len(rows)
        else None
        for rows in tables
    ]
    known = [grid for grid in grids if grid is not None]
    if len(known) < len(grids):
        return None, 0
    seeds = sorted(set.intersection(*[set(grid.index) for grid in known]))
    layers = [layer for layer in known[0].columns if all(layer in grid.columns for grid in known)]
    if not seeds or not layers:
        return None, 0
    return [grid.loc[seeds, layers].to_numpy(float) for grid in known], len(seeds)
