"""The claim of one trend: curves on what two conditions share, distances and bands by hand, every verdict."""

import dataclasses
import math

import numpy as np
import pytest

from mi_jax import records
from mi_jax.claims import CLAIMS
from mi_jax.claims.curves import Curves, aligned
from mi_jax.claims.same_trend import log_ratio, shared_variance
from mi_jax.claims.trend_band import band
from mi_jax.records.run_records import read
from mi_jax.records.table import Record
from mi_jax.report.figures import available
from mi_jax.report.figures.trend_difference import bands


def claim_of(tmp_path, rows):
    records.append(tmp_path, rows)
    return CLAIMS["same_trend"](read(tmp_path), ("nt", "at"))


def statistic(claim, name):
    (found,) = (s for s in claim.statistics if (s.name, s.noise_rule) == (name, "fixed"))
    return found


def trend_rows(curves, *, seeds=5, epochs=12):
    """Rows of I(X;T) and I(T;Y) under one rule; `curves` maps (training, inputs) to a function of seed and epoch."""
    return [
        Record(training=training, inputs=inputs, seed=seed, epoch=epoch, value=curve(seed, epoch), quantity=quantity,
               layer=layer, noise_rule="fixed", estimator="kde", unit="bits", image_set="test", **columns)
        for (training, inputs, *attack), curve in curves.items()
        for columns in [{"attack": attack[0]} if attack else {}]
        for seed in range(seeds)
        for epoch in range(epochs)
        for layer in "ab"
        for quantity in ("i_tx_upper", "i_ty_upper")
    ]  # fmt: skip


def rising(seed, epoch):
    return 4 - 3 * math.exp(-epoch / 3) + 0.1 * math.sin(2.4 * seed + epoch)


def late(seed, epoch):
    return 1 + 3 * (epoch / 11) ** 3 + 0.1 * math.cos(2.4 * seed + epoch)


CONDITIONS = tuple((training, inputs) for training in ("nt", "at") for inputs in ("clean", "adversarial"))
ACROSS = "I(X;T): NT and AT, clean inputs"


@pytest.mark.parametrize(
    ("at", "verdict"),
    [
        (lambda seed, epoch: rising(seed + 7, epoch) + 2, "supported"),
        (lambda seed, epoch: -rising(seed + 7, epoch), "contradicted"),
        (late, "contradicted"),
    ],
    ids=["another level", "falling", "rising late"],
)
def test_a_trend_is_the_same_where_trainings_differ_as_seeds_do(tmp_path, at, verdict):
    curves = {condition: rising if condition[0] == "nt" else at for condition in CONDITIONS}
    claim = claim_of(tmp_path, trend_rows(curves))
    found = statistic(claim, ACROSS)
    assert (found.verdict, found.remark.partition(";")[0]) == (verdict, "2 layers, 11 epochs")
    assert found.low < found.value < found.high
    within = statistic(claim, "I(T;Y): clean and adversarial inputs, AT")
    assert (within.value, within.verdict) == (pytest.approx(1, abs=0.1), "supported")


def test_the_distance_between_trends_by_hand():
    a, b = np.zeros((3, 1, 2)), np.zeros((3, 1, 2))
    a[:, 0, 1] = (2.0, 4.0, 6.0)  # centred: ±1, ±2, ±3
    b[:, 0, 1] = (4.0, 6.0, 8.0)  # centred: ±2, ±3, ±4
    # Mean squares between seeds: of a and of b (1 + 4 + 1) / 3 = 2; of a and b (4 + 9 + 0 + 4 + 1 + 0) / 6 = 3.
    noise = 0.01 * (2**2 + 3**2) / 2
    assert log_ratio(a, b) == pytest.approx(0.5 * math.log((3 + noise) / (2 + noise)))
    assert shared_variance(a) == pytest.approx(1 - 1 / ((1 + 4 + 9) / 3))


def test_the_band_of_the_difference_of_trends_by_hand():
    first, second = np.zeros((3, 2, 3)), np.zeros((3, 2, 3))
    second[:, :, 2] = np.array([[2.0], [3.0], [4.0]]) + np.array([-1.0, 1.0])  # 2, 3 and 4 in the mean over layers
    found = band(Curves(first, second, ["a", "b"], np.array([1.0, 2.0, 4.0])))
    assert found.difference == pytest.approx([-1, -1, 2])
    alpha = 0.05 / 3
    t = (1 - alpha) * math.sqrt(2 / (alpha * (2 - alpha)))  # Student's t with 2 degrees of freedom, two-sided
    assert found.half_width == pytest.approx(t * np.array([1, 1, 2]) / 3 / math.sqrt(3), rel=1e-6)
    # Squared distances between seeds, means over epochs: 2/9 (1 and 1 apart) and 8/9; none between the first curves.
    assert found.seed_distance == pytest.approx(math.sqrt((2 / 9 + 2 / 9 + 8 / 9) / 3 / 2))
    assert found.in_words() == "band of the difference includes 0 at every epoch"
    found = found._replace(half_width=found.half_width / 2)
    assert found.in_words() == "band of the difference above 0 at epoch 4, below 0 at epochs 1 to 2"


def test_the_epochs_at_which_trends_differ_are_named_and_drawn(tmp_path, assert_shows):
    def slower(seed, epoch):
        return rising(seed, epoch) - 2 * (epoch == 1) + 0.001 * seed * epoch

    claim = claim_of(tmp_path, trend_rows({c: rising if c[0] == "nt" else slower for c in CONDITIONS}))
    run_records = read(tmp_path)
    words = "band of the difference above 0 at epochs 2 to 11, below 0 at epoch 1"
    assert statistic(claim, ACROSS).remark == f"2 layers, 11 epochs; {words}"
    (spec,) = (found for found in available(run_records) if found.name == "trend_difference")
    one = bands(run_records)["i_tx", "fixed"]
    assert_shows(spec.draw(run_records), one.difference / one.seed_distance)
    assert words in spec.caption(run_records)
    assert "trend_difference" in claim.figures


def test_trends_of_leave_one_out_values_are_context(tmp_path):
    rows = trend_rows(dict.fromkeys(CONDITIONS, rising))
    rows += [dataclasses.replace(row, quantity="i_tx_leave_one_out") for row in rows if row.quantity == "i_tx_upper"]
    claim = claim_of(tmp_path, rows)
    found = statistic(claim, f"{ACROSS}, leave-one-out")
    assert (found.decides, found.value) == (False, pytest.approx(statistic(claim, ACROSS).value))
    assert found.remark.startswith("context: leave-one-out value, in expectation at least the information")


def test_label_free_inputs_replace_those_whose_attack_knows_the_label_for_label_information(tmp_path):
    curves = dict.fromkeys(CONDITIONS, rising)
    curves |= {(training, "adversarial", "pgd-prediction"): rising for training in ("nt", "at")}
    claim = claim_of(tmp_path, trend_rows(curves))
    names = [s.name for s in claim.deciding("fixed") if s.name.startswith("I(T;Y)")]
    assert len(names) == 3
    assert sum("without the label" in name for name in names) == 2
    known = statistic(claim, "I(T;Y): clean and adversarial inputs, NT")
    assert not known.decides
    assert known.remark.startswith("context: the attack knows the label")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"epochs": 10}, "too few epochs: 9 after epoch 0 in common; a trend needs 10"),
        ({"seeds": 2}, "too few seeds: 2; the distance between seeds needs 3"),
    ],
)
def test_few_epochs_or_seeds_are_no_trend(tmp_path, options, reason):
    found = statistic(claim_of(tmp_path, trend_rows(dict.fromkeys(CONDITIONS, rising), **options)), ACROSS)
    assert (found.value, found.verdict, found.remark) == (None, "undecided", reason)


def test_curves_that_seeds_do_not_share_are_no_trend(tmp_path):
    def own(seed, epoch):
        return math.sin((1 + seed) * epoch)

    found = statistic(claim_of(tmp_path, trend_rows(dict.fromkeys(CONDITIONS, own))), ACROSS)
    assert (found.low, found.verdict) == (None, "undecided")
    assert found.remark.startswith("seeds share too little of their curves")


def test_a_layer_saturated_in_a_quarter_of_its_values_has_no_curve(tmp_path):
    # Of eleven epochs after epoch 0, layer a is saturated in three (27 %) and layer b in two (18 %).
    rows = trend_rows(dict.fromkeys(CONDITIONS, rising))
    rows = [dataclasses.replace(r, saturated=r.epoch in ((9, 10, 11) if r.layer == "a" else (0, 10, 11))) for r in rows]
    found = statistic(claim_of(tmp_path, rows), ACROSS)
    assert found.remark.startswith("1 layer, 11 epochs")


def test_a_curve_that_moves_by_no_more_than_rounding_is_constant(tmp_path):
    moves = {"steps": (3, 3.3, 3.1, 3), "rounded": (3, 3 + 1e-6, 3 - 1e-6, 3), "erroneous": (3, 3.01, 3.02, 3)}
    errors, quantity = {"erroneous": 0.01}, "i_tx_upper"
    rows = [
        Record(training=training, seed=seed, layer=layer, epoch=epoch, value=value, quantity=quantity, estimator="kde",
               numerical_error=errors.get(layer))
        for training in ("nt", "at")
        for seed in range(2)
        for layer, values in moves.items()
        for epoch, value in enumerate(values)
    ]  # fmt: skip
    records.append(tmp_path, rows)
    table = read(tmp_path).select(quantity=quantity)
    curves = aligned(*(table[table["training"] == training] for training in ("nt", "at")))
    assert curves.layers == ["steps"]
    np.testing.assert_array_equal(curves.first[:, 0], [[3.3, 3.1, 3]] * 2)
    np.testing.assert_array_equal(curves.epochs, [1, 2, 3])
