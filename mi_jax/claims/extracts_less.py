"""Claim 2a: adversarially trained networks extract less information about the input."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mi_jax.claims.paired import (
    END,
    OVER_BOTH,
    Compared,
    Pair,
    compared,
    earlier_epoch,
    layer_information,
    scope,
    undersampled,
)
from mi_jax.claims.registry import CLAIMS
from mi_jax.claims.verdicts import SMALLEST, Claim, ClaimStatistic, Verdict, difference, statistic
from mi_jax.records.labels import counted, name_of
from mi_jax.records.run_records import RunRecords, final_rows
from mi_jax.statistics.intervals import Interval, Table, t_interval
from mi_jax.statistics.jackknife import Sample, crossed, holm

_ESTIMATES = (
    ("kde", "i_tx_upper", "KDE upper bound"),
    ("kde", "i_tx_lower", "KDE lower bound"),
    ("monte_carlo", "i_tx", "Monte Carlo"),
)
_POPULATION = (("monte_carlo", "i_tx", "Monte Carlo"), ("kde", "i_tx_lower", "KDE lower bound"))
"""Estimators with a leave-one-out value, the narrower bracket of the population first: plug-in quantity and label."""
_LEAVE_ONE_OUT = "i_tx_leave_one_out"
_ALPHA = 0.05
_CRITERION = difference(sign=-1, smallest=SMALLEST["relative"])


class Effect(NamedTuple):
    """The relative difference of the summed information of all cells, and the cells that differ individually.

    Attributes:
        interval: interval of the relative difference; its ends allow for censored cells.
        cells: names of the cells, of which none is saturated in both trainings.
        signs: of the differences of single cells, `[cells]`; 0 where they are smaller than the smallest of interest, or
            where the smaller value is saturated.
        p_values: of the differences of single cells, `[cells]`, adjusted for the cells of all effects of the claim.
        censored: the cells where one of the two is saturated.
        over_images: whether the interval contains the error over images.
    """

    interval: Interval
    cells: list[str]
    signs: np.ndarray
    p_values: np.ndarray
    censored: list[str]
    over_images: bool

    @property
    def less(self) -> list[str]:
        """The cells with less information in the second training, at the claim's family-wise error of 5 %."""
        return self._alone(-1)

    @property
    def more(self) -> list[str]:
        """The cells with more information in the second training, at the claim's family-wise error of 5 %."""
        return self._alone(+1)

    def _alone(self, sign: int) -> list[str]:
        return np.array(self.cells)[(self.signs == sign) & (self.p_values <= _ALPHA)].tolist()

    def criterion(self, low: float, high: float) -> Verdict:
        """The verdict on "less": mixed where cells differ significantly in the other direction, or in both."""
        verdict = _CRITERION(low, high)
        against = {"supported": self.more, "contradicted": self.less}.get(verdict, self.less and self.more)
        if against:
            return "mixed"
        return "undecided" if verdict == "equivalent" and self.censored else verdict


class _Comparison(NamedTuple):
    """What a statistic that decides compares.

    Attributes:
        name: name of the statistic.
        noise_rule: the noise rule of the rows; None for the noise grid.
        rows: records of one quantity.
        cell: the column that distinguishes cells.
        found: the values compared; None where nothing was measured in both trainings.
        epoch: the remark on their epoch, see `earlier_epoch`.
    """

    name: str
    noise_rule: str | None
    rows: Table
    cell: str
    found: Compared | None
    epoch: str


@CLAIMS.registering("extracts_less")
def extracts_less(run_records: RunRecords, pair: Pair) -> Claim:
    """I(X;T) on clean test images, the second training relative to the first, under every noise rule and estimator."""
    first, second = map(name_of, pair)
    comparisons = _comparisons(run_records, pair)
    effects = effects_of([comparison.found for comparison in comparisons])
    deciding = [_statistic(*both, pair) for both in zip(comparisons, effects, strict=True)]
    statistics = []
    for noise_rule in run_records.noise_rules:
        statistics += [s for s in deciding if s.noise_rule == noise_rule]
        statistics += _of_population(run_records, pair, noise_rule)
    statistics += [s for s in deciding if s.noise_rule is None]
    shown = layer_information(run_records, "i_tx_upper", "fixed", inputs="clean")
    return Claim(
        number="2a",
        name=f"{second} extracts less of the input",
        text=f"{second} networks extract less information about the input than {first} networks.",
        method=f"I(X;T) of {second} on the same clean test images relative to {first}: the sum over layers of the "
        f"difference, divided by the sum for {first}, {END}; {OVER_BOTH}. The bounds, Monte Carlo where it was "
        "measured, and the whole grid of noise variances where it was measured, must agree: a difference of upper "
        "bounds alone is not a difference of information. Equivalent: the whole interval lies within "
        f"±{100 * SMALLEST['relative']:.0f} %, whatever single layers do that cancel in the sum, and no layer is "
        "saturated in one training only. Mixed: single layers (or layers at a noise variance) differ in the other "
        f"direction, by {100 * SMALLEST['relative']:.0f} % of the layer's value for {first} or more and by Holm's test "
        "at a family-wise error of 5 % over the layers of all these statistics and noise rules together. Where one "
        "training is saturated in a layer, the estimate is a lower limit: the interval then reaches to the largest "
        "value that the sample allows, log2 N, so the verdict concerns the information about which of the N images "
        "was seen. Layers saturated in both cannot be compared. Context: the "
        "difference in the information of the population, from the smallest to the largest that the brackets of both "
        "trainings allow (from the lower bound, or Monte Carlo, to the leave-one-out value), with 95 % interval ends "
        "over seeds only, for these images.",
        statistics=tuple(statistics),
        figures=("information_difference", "noise_grid_i_tx"),
        scope=scope(run_records, shown),
    )


def _comparisons(run_records: RunRecords, pair: Pair) -> list[_Comparison]:
    """Of every noise rule and estimator, and of the noise grid where it was measured."""

    def comparison(name: str, noise_rule: str | None, rows: Table, cell: str) -> _Comparison:
        found = compared(rows, pair, cell=cell)
        return _Comparison(name, noise_rule, rows, cell, found, earlier_epoch(run_records, rows, pair))

    comparisons = []
    for noise_rule in run_records.noise_rules:
        for estimator, quantity, label in _ESTIMATES:
            rows = layer_information(run_records, quantity, noise_rule, inputs="clean", estimator=estimator)
            if len(rows) or estimator == "kde":
                comparisons.append(comparison(f"I(X;T), {label}", noise_rule, rows, "layer"))
    grid = layer_information(run_records, "i_tx_upper", "grid", inputs="clean")
    if len(grid):
        name = "I(X;T), KDE upper bound over the whole noise grid"
        comparisons.append(comparison(name, None, _with_cells(grid), "cell"))
    return comparisons


def _statistic(comparison: _Comparison, effect: Effect | None, pair: Pair) -> ClaimStatistic:
    name, noise_rule, rows, cell, found, epoch = comparison
    interval = t_interval([]) if effect is None else effect.interval
    criterion = _CRITERION if effect is None else effect.criterion
    over_images = effect is not None and effect.over_images
    remark = _remark(found, effect, "layer" if cell == "layer" else "point", epoch)
    few = (0, 0) if found is None else _undersampled(rows, pair, found, cell)
    return statistic(
        name, interval, "relative", criterion, remark,
        noise_rule=noise_rule, over_images=over_images, undersampled=few,
    )  # fmt: skip


def _undersampled(rows: Table, pair: Pair, found: Compared, cell: str) -> tuple[int, int]:
    """`undersampled` of the cells that are compared, which are those not saturated in both trainings."""
    both = np.asarray(found.first_saturated.any(axis=0) & found.second_saturated.any(axis=0))
    used = [name for name, excluded in zip(found.cells, both, strict=True) if not excluded]
    last = final_rows(rows[rows["training"].isin(pair) & rows[cell].isin(used)])
    return undersampled(*(last[last["training"] == training] for training in pair))


def _of_population(run_records: RunRecords, pair: Pair, noise_rule: str) -> list[ClaimStatistic]:
    """The difference for the population under a noise rule, as context; empty where no bracket was measured."""
    for estimator, quantity, label in _POPULATION:
        at_least, at_most = (
            layer_information(run_records, name, noise_rule, inputs="clean", estimator=estimator)
            for name in (quantity, _LEAVE_ONE_OUT)
        )
        last = final_rows(at_least)
        least = compared(_unsaturated(last), pair)
        most = compared(at_most[at_most["epoch"].isin(last["epoch"])], pair)
        if least is None or most is None:
            continue
        interval, layers = population_difference(least, most)
        if not interval.count:
            continue
        remark = f"context: {label} to leave-one-out; {layers} of {at_least['layer'].nunique()} layers"
        name = "I(X;T) of the population"
        return [statistic(name, interval, "relative", _CRITERION, remark, noise_rule=noise_rule, decides=False)]
    return []


def _unsaturated(rows: Table) -> Table:
    """The rows of the layers that are not saturated in any training or seed at the end."""
    full = rows.loc[rows["saturated"].fillna(False).astype(bool), "layer"]
    return rows[~rows["layer"].isin(full)]


def population_difference(least: Compared, most: Compared) -> tuple[Interval, int]:
    """Relative difference of two trainings from brackets of the information of the population.

    Args:
        least: values that are at most the information of the population, in expectation.
        most: values that are at least that.

    Returns:
        The difference of the middles of the brackets, with the 95 % ends over seeds only (for these images) beyond the
        least and the largest difference that they allow; and the number of layers in common. Without a value where they
        have none, or other seeds.
    """
    common = [cell for cell in least.cells if cell in most.cells]
    if not common or least.seeds != most.seeds:
        return t_interval([]), 0
    (first_least, second_least), (first_most, second_most) = (
        [Sample(part.values[:, [found.cells.index(cell) for cell in common]]) for part in (found.first, found.second)]
        for found in (least, most)
    )
    middle = _relative(first_least.values + first_most.values, second_least.values + second_most.values)
    low = crossed(_relative, first_most, second_least).interval()
    high = crossed(_relative, first_least, second_most).interval()
    return Interval(middle, low.low, high.high, low.count), len(common)


def _with_cells(rows: Table) -> Table:
    """Finished rows of the noise grid with the column `cell`: the layer and the place of the noise variance in it.

    Without the layers that miss a noise variance in some network, where the same place is another variance.
    """
    last = final_rows(rows)
    grids = last.groupby(["training", "seed", "layer"])["noise_variance"]
    last = last.assign(cell=last["layer"] + " " + grids.rank().astype(int).astype(str))
    return last[grids.transform("count") == last.groupby("layer")["cell"].transform("nunique")]


def effects_of(comparisons: Sequence[Compared | None]) -> list[Effect | None]:
    """The differences between two trainings; None where nothing is compared, or every cell is saturated in both.

    The cells of all comparisons are one family, as any one that differs in the other direction makes the claim mixed.
    """
    effects = [None if found is None else _effect_of(found) for found in comparisons]
    ends = np.cumsum([0 if effect is None else len(effect.cells) for effect in effects])
    adjusted = holm(np.concatenate([[], *(effect.p_values for effect in effects if effect is not None)]))
    return [
        None if effect is None else effect._replace(p_values=adjusted[end - len(effect.cells) : end])
        for effect, end in zip(effects, ends, strict=True)
    ]


def _effect_of(found: Compared) -> Effect | None:
    """The effect of one comparison, with p-values that are not adjusted."""
    first_full, second_full = (np.asarray(part.any(axis=0)) for part in (found.first_saturated, found.second_saturated))
    use = ~(first_full & second_full)
    if not use.any():
        return None
    first, second = (
        Sample(part.values[:, use], None if part.without_block is None else part.without_block[..., use])
        for part in (found.first, found.second)
    )
    observed = crossed(_relative, first, second)
    least = crossed(_relative, _at_ceiling(first, found.first_saturated[:, use], found.ceiling), second)
    most = crossed(_relative, first, _at_ceiling(second, found.second_saturated[:, use], found.ceiling))
    # At the ceiling seeds differ less: there an interval may be the narrower one.
    low, high = min(observed.interval().low, least.interval().low), max(observed.interval().high, most.interval().high)
    interval = Interval(float(observed.value), low, high, observed.seeds)
    each = crossed(lambda a, b: (b - a).mean(axis=0), first, second)
    cells = np.array(found.cells)
    smallest = SMALLEST["relative"] * first.values.mean(axis=0)
    smaller_is_full = np.where(each.value < 0, second_full[use], first_full[use])
    signs = np.where((np.abs(each.value) >= smallest) & ~smaller_is_full, np.sign(each.value), 0)
    censored = cells[first_full ^ second_full].tolist()
    return Effect(interval, cells[use].tolist(), signs, each.p_values(), censored, observed.blocks > 0)


def _relative(first: np.ndarray, second: np.ndarray) -> float:
    total = first.sum()
    return float((second - first).sum() / total) if total > 0 else math.nan  # dead layers carry none


def _at_ceiling(sample: Sample, saturated: np.ndarray, ceiling: float) -> Sample:
    """The sample with its saturated values at the largest value that the number of images allows."""
    values = np.where(saturated, ceiling, sample.values)
    kept = sample.without_block
    return Sample(values, None if kept is None else np.where(saturated[:, None], ceiling, kept))


def _remark(found: Compared | None, effect: Effect | None, noun: str, epoch: str) -> str:
    if found is None:
        return "not measured in this run for both trainings"
    if effect is None:
        return "every layer is saturated in both trainings"
    both = (found.first_saturated.any(axis=0) & found.second_saturated.any(axis=0)).sum()
    total = len(found.cells)
    parts = [f"{total - both} of {total} {noun}s" if both else counted(total, noun)]
    parts += [
        f"{word}: {_listed(cells)}" for word, cells in (("less in", effect.less), ("more in", effect.more)) if cells
    ]
    if effect.interval.count > 1 and math.isnan(effect.interval.low):
        parts.append("the baseline has information in at most one seed")
    if effect.censored:
        parts.append(f"saturated in one training: {_listed(effect.censored)}")
    if found.left_out_cells:
        parts.append(f"left out as not measured in every seed: {_listed(found.left_out_cells)}")
    if found.left_out_seeds:
        seeds = ", ".join(map(str, found.left_out_seeds))
        parts.append(f"without seed {seeds}: nothing was measured in one of the trainings")
    return "; ".join(filter(None, [*parts, epoch]))


def _listed(cells: list[str]) -> str:
    return ", ".join(cells) if len(cells) <= 12 else f"{len(cells)} points"
