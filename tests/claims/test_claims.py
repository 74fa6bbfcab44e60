"""Claims: statistics computed by hand on a few rows, every verdict, and the reasons where nothing can be said."""

import dataclasses
import math

import pytest

from mi_jax import records
from mi_jax.claims.claims import evaluate
from mi_jax.records.run_records import final_rows, compared_trainings, noise_rules, read
from mi_jax.records.table import Record
from mi_jax.statistics.intervals import t_interval, wilson

EPOCHS = (0, 1, 2, 4)
PAIR_HALF = 12.706204736174707 / math.sqrt(2) / math.sqrt(2)
"""Half-width of the t-interval of two values that are 1 apart."""


def information(training, seed, layer, values, *, quantity="i_tx_upper", rule="fixed", inputs="clean", **columns):
    shared = {"training": training, "seed": seed, "layer": layer, "quantity": quantity, "inputs": inputs}
    shared |= {"noise_rule": rule, "estimator": "kde", "unit": "bits", "n": 100, "noise_variance": 0.1}
    return [Record(**{**shared, "epoch": e, "value": v, **columns}) for e, v in zip(EPOCHS, values, strict=True)]


def at_end(quantity, training, seed, value, **columns):
    return Record(quantity=quantity, training=training, seed=seed, value=value, epoch=4, **columns)


def claims_of(tmp_path, rows):
    records.append(tmp_path, rows)
    return {claim.number: claim for claim in evaluate(read(tmp_path))}


def finding(claim, statistic, noise_rule=None):
    (found,) = (f for f in claim.findings if f.statistic == statistic and f.noise_rule == noise_rule)
    return found


def both_bounds(training, seed, layer, end, **columns):
    rows = information(training, seed, layer, (1, 1, 1, end), **columns)
    return rows + information(training, seed, layer, (1, 1, 1, end - 0.5), quantity="i_tx_lower", **columns)


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        ((2.0, 2.1, 2.2), "supported"),
        ((6.0, 6.1, 6.2), "reversed"),
        ((4.0, 4.01, 4.02), "not supported"),
        ((2.0, 6.0, 4.0), "undecided"),
    ],
)
def test_less_information_is_the_paired_mean_over_layers(tmp_path, ends, verdict):
    rows = []
    for seed, end in enumerate(ends):
        rows += both_bounds("nt", seed, "a", 4.0) + both_bounds("nt", seed, "b", 4.0)
        rows += both_bounds("at", seed, "a", end - 0.25) + both_bounds("at", seed, "b", end + 0.25)
    claim = claims_of(tmp_path, rows)["2a"]
    found = finding(claim, "I(X;T), KDE upper bound", "fixed")
    expected = t_interval([end - 4.0 for end in ends])
    assert (found.value, found.low, found.high) == pytest.approx(expected[:3])
    assert (found.seeds, found.remark) == (3, "2 layers")
    assert claim.verdict("fixed") == verdict
    assert claim.verdict("trace") == "undecided"


def test_less_information_needs_both_bounds_to_agree(tmp_path):
    rows = []
    for seed in range(3):
        for training, upper, lower in (("nt", 4.0, 1.0), ("at", 3.0, 2.0)):
            rows += information(training, seed, "a", (0, 0, 0, upper + 0.01 * seed))
            rows += information(training, seed, "a", (0, 0, 0, lower + 0.01 * seed), quantity="i_tx_lower")
    claim = claims_of(tmp_path, rows)["2a"]
    assert finding(claim, "I(X;T), KDE upper bound", "fixed").verdict == "supported"
    assert finding(claim, "I(X;T), KDE lower bound", "fixed").verdict == "reversed"
    assert claim.verdict("fixed") == "not supported"


def test_a_layer_saturated_in_one_training_is_left_out_of_both(tmp_path):
    rows = []
    for seed in range(2):
        rows += both_bounds("nt", seed, "wide", 6.6, saturated=seed == 1) + both_bounds("at", seed, "wide", 1.0)
        rows += both_bounds("nt", seed, "narrow", 3.0) + both_bounds("at", seed, "narrow", 2.0 + seed)
    found = finding(claims_of(tmp_path, rows)["2a"], "I(X;T), KDE upper bound", "fixed")
    assert found.value == pytest.approx(-0.5)
    assert found.low == pytest.approx(-0.5 - PAIR_HALF)
    assert found.remark == "1 layers; saturated and left out: wide"


def test_where_every_layer_is_saturated_the_claim_says_so(tmp_path):
    rows = [r for t in ("nt", "at") for s in (0, 1) for r in both_bounds(t, s, "a", 6.6, saturated=True)]
    found = claims_of(tmp_path, rows)
    assert found["2a"].weakest("fixed").remark == "every layer is saturated"
    assert {c.verdict("fixed") for c in found.values()} == {"undecided"}


def test_an_unfinished_training_is_compared_at_the_last_common_epoch(tmp_path):
    rows = both_bounds("nt", 0, "a", 9.0) + both_bounds("nt", 1, "a", 9.0)
    rows += [r for s in (0, 1) for r in both_bounds("at", s, "a", 9.0) if r.epoch < 4]
    found = finding(claims_of(tmp_path, rows)["2a"], "I(X;T), KDE upper bound", "fixed")
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_harder_means_lower_accuracy_and_higher_loss(tmp_path):
    rows = []
    for seed, accuracy in enumerate((0.8, 0.82, 0.84)):
        rows += [at_end("accuracy", "nt", seed, 0.95, inputs="clean", subset="test")]
        rows += [at_end("accuracy", "at", seed, accuracy, inputs="clean", subset="test")]
        rows += [at_end("loss", "nt", seed, 0.1, inputs="clean", subset="train")]
        rows += [at_end("loss", "at", seed, 0.7, inputs="adversarial", subset="train")]
    claim = claims_of(tmp_path, rows)["2b"]
    accuracy, loss = claim.findings
    assert (accuracy.value, accuracy.low, accuracy.high) == pytest.approx(t_interval([-0.15, -0.13, -0.11])[:3])
    assert (loss.value, loss.verdict) == (pytest.approx(0.6), "supported")
    assert claim.verdict("fixed") == claim.verdict("trace") == "supported"


@pytest.mark.parametrize(
    ("nt", "at", "verdict"),
    [
        ((0.2, 0.22), (0.9, 0.92), "supported"),
        ((0.9, 0.92), (0.2, 0.22), "reversed"),
        ((0.5, 0.51), (0.51, 0.52), "not supported"),
        ((0.2, 0.6), (0.9, 0.5), "undecided"),
        ((0.2,), (0.9,), "undecided"),
    ],
)
def test_shape_preference_is_the_paired_difference_of_shape_bias(tmp_path, nt, at, verdict):
    rows = [
        at_end("shape_bias", training, seed, value, inputs="clean", subset="conflict")
        for training, values in (("nt", nt), ("at", at))
        for seed, value in enumerate(values)
    ]
    claim = claims_of(tmp_path, rows)["3"]
    assert claim.findings[0].value == pytest.approx(sum(at) / len(at) - sum(nt) / len(nt))
    assert claim.verdict("fixed") == verdict
    assert [f.value for f in claim.findings[1:]] == pytest.approx([sum(nt) / len(nt), sum(at) / len(at)])
    if len(nt) == 1:
        assert claim.findings[0].remark == "one paired seed: an interval needs two"


def test_what_was_not_measured_is_undecided_and_says_so(tmp_path):
    found = claims_of(tmp_path, [at_end("accuracy", "nt", 0, 0.9, inputs="clean", subset="test")])
    assert {claim.verdict("fixed") for claim in found.values()} == {"undecided"}
    assert all(
        "measured in this run" in f.remark for c in ("1", "2a", "2b", "3") for f in found[c].findings if f.decides
    )


def trend_rows(curves, *, seeds=3):
    """Rows of I(X;T) and I(T;Y) under one rule; `curves` maps (training, inputs) to a curve or one a seed."""
    return [
        row
        for (training, inputs), curve in curves.items()
        for seed in range(seeds)
        for quantity in ("i_tx_upper", "i_ty_upper")
        for row in information(training, seed, "a", curve(seed), inputs=inputs, quantity=quantity)
    ]


RISING, FALLING, HUMP = (1, 2, 3, 4), (4, 3, 2, 1), (1, 2, 4, 3)
"""Spearman with RISING: 1, -1, 0.8."""


@pytest.mark.parametrize(
    ("at_clean", "value", "verdict"),
    [
        (lambda seed: RISING, 1.0, "supported"),
        (lambda seed: HUMP, 0.8, "supported"),
        (lambda seed: FALLING, -1.0, "reversed"),
        (lambda seed: (RISING, FALLING, HUMP)[seed], 0.8 / 3, "undecided"),
        (lambda seed: (2, 2, 2, 2), 0.0, "not supported"),
    ],
)
def test_same_trend_is_the_rank_correlation_of_the_curves(tmp_path, at_clean, value, verdict):
    same = lambda seed: RISING  # noqa: E731
    curves = {
        ("nt", "clean"): same,
        ("nt", "adversarial"): same,
        ("at", "clean"): at_clean,
        ("at", "adversarial"): at_clean,
    }
    claim = claims_of(tmp_path, trend_rows(curves))["1"]
    found = finding(claim, "I(X;T): NT and AT, clean inputs", "fixed")
    assert (found.value, found.verdict) == (pytest.approx(value), verdict)
    assert found.remark == "1 of 1 layers, 4 epochs; between two NT seeds 1.00"
    assert finding(claim, "I(T;Y): clean and adversarial inputs, NT", "fixed").value == pytest.approx(1.0)


def test_flat_and_saturated_curves_have_no_trend(tmp_path):
    rows = []
    for seed in range(2):
        for training in ("nt", "at"):
            rows += information(training, seed, "flat", (1, 1.05, 1.01, 1.02))
            rows += information(training, seed, "full", (6.1, 6.3, 6.5, 6.6), saturated=True)
            rows += information(training, seed, "good", RISING)
    found = finding(claims_of(tmp_path, rows)["1"], "I(X;T): NT and AT, clean inputs", "fixed")
    assert found.value == pytest.approx(1.0)
    assert found.remark.startswith("1 of 3 layers")


def test_three_epochs_are_no_trend(tmp_path):
    rows = [r for t in ("nt", "at") for s in (0, 1) for r in information(t, s, "a", RISING) if r.epoch < 4]
    found = finding(claims_of(tmp_path, rows)["1"], "I(X;T): NT and AT, clean inputs", "fixed")
    assert (found.value, found.remark) == (None, "3 common epochs; a trend needs 4")


def test_scale_share_by_rescaling(tmp_path):
    rows = []
    for seed, rest in enumerate((-0.5, -1.0)):
        rows += information("nt", seed, "a", (0, 0, 0, 5.0)) + information("at", seed, "a", (0, 0, 0, 3.0))
        rows += information("at", seed, "a", (0, 0, 0, 5.0 + rest), quantity="i_tx_upper_rescaled")
    claim = claims_of(tmp_path, rows)["4"]
    share = finding(claim, "Share of the I(X;T) difference that is scale")
    # D = -2; R = -0.5, -1: the shares are 1.5 / 2 and 1 / 2.
    assert share.value == pytest.approx((0.75 + 0.5) / 2)
    assert (share.low, share.high) == (0.0, 1.0)
    assert share.remark == "by rescaling, fixed noise rule; 1 of 1 layers"


@pytest.mark.parametrize(("trace_at", "verdict"), [(1.999, "supported"), (1.2, "not supported")])
def test_scale_share_by_the_trace_ruler(tmp_path, trace_at, verdict):
    rows = []
    for seed in range(3):
        rows += information("nt", seed, "a", (0, 0, 0, 5.0))
        rows += information("at", seed, "a", (0, 0, 0, 3.0 + 0.01 * seed))
        rows += information("nt", seed, "a", (0, 0, 0, 2.0), rule="trace", noise_variance=2.0)
        rows += information("at", seed, "a", (0, 0, 0, trace_at), rule="trace", noise_variance=1.0)
    claim = claims_of(tmp_path, rows)["4"]
    whole = [2 * (3.0 + 0.01 * seed - 5.0) / (8.0 + 0.01 * seed) for seed in range(3)]
    rest = 2 * (trace_at - 2.0) / (trace_at + 2.0)
    expected = t_interval([abs(d - rest) / (abs(d - rest) + abs(rest)) for d in whole])
    share = finding(claim, "Share of the I(X;T) difference that is scale")
    assert (share.value, share.low) == pytest.approx((expected.mean, max(expected.low, 0.0)))
    assert claim.verdict(None) == verdict


def test_a_trace_ruler_shared_by_the_trainings_cannot_tell_scale(tmp_path):
    rows = []
    for seed in range(3):
        for training, end in (("nt", 5.0), ("at", 3.0)):
            rows += information(training, seed, "a", (0, 0, 0, end))
            rows += information(training, seed, "a", (0, 0, 0, end / 2), rule="trace", noise_variance=2.0)
    share = finding(claims_of(tmp_path, rows)["4"], "Share of the I(X;T) difference that is scale")
    assert (share.value, share.verdict) == (None, "undecided")
    assert share.remark.startswith("needs rescaled estimates")


def test_a_single_training_is_never_compared_with_itself(tmp_path):
    records.append(tmp_path, [row for seed in range(3) for row in both_bounds("at", seed, "a", 4.0)])
    run_records = read(tmp_path)
    assert compared_trainings(run_records) == ("nt", "at")
    for claim in evaluate(run_records):
        assert claim.verdict("fixed") == claim.verdict("trace") == "undecided", claim.number


def test_rows_of_distorted_images_bring_no_ruler(tmp_path):
    rows = both_bounds("nt", 0, "a", 4.0) + both_bounds("nt", 0, "a", 4.0, rule="trace")
    rows += both_bounds("nt", 0, "a", 4.0, rule="scale_free", level=0.5, subset="saturate")
    records.append(tmp_path, rows)
    assert noise_rules(read(tmp_path)) == ("fixed", "trace")


def test_a_layer_that_failed_in_one_seed_is_left_out_for_all_and_named(tmp_path):
    rows = []
    for seed, end in enumerate((3.0, 3.1, 3.2)):
        rows += (
            both_bounds("nt", seed, "a", 4.0) + both_bounds("nt", seed, "b", 4.0) + both_bounds("at", seed, "a", end)
        )
        if seed < 2:
            rows += both_bounds("at", seed, "b", 9.0)
    found = finding(claims_of(tmp_path, rows)["2a"], "I(X;T), KDE upper bound", "fixed")
    assert (found.value, found.seeds) == (pytest.approx(-0.9), 3)
    assert found.remark == "1 layers; not measured in every seed and left out: b"


def test_a_seed_that_failed_at_the_end_is_named_and_not_taken_from_an_earlier_epoch(tmp_path):
    rows = []
    for seed in range(3):
        rows += both_bounds("nt", seed, "a", 4.0)
        for row in both_bounds("at", seed, "a", 3.0 + 0.01 * seed):
            failed = seed == 2 and row.epoch == EPOCHS[-1]
            rows.append(dataclasses.replace(row, value=None, ok=False, note="constant") if failed else row)
    claim = claims_of(tmp_path, rows)["2a"]
    found = finding(claim, "I(X;T), KDE upper bound", "fixed")
    assert (found.value, found.seeds) == (pytest.approx(-0.995), 2)
    assert found.remark == "1 layers; without seed 2, of which no layer was measured in both"


def test_finished_networks_are_those_best_on_held_out_images(tmp_path):
    rows = []
    for seed, best in enumerate((1, 2)):
        for training, end in (("nt", 4.0), ("at", 3.0)):
            rows += information(training, seed, "a", (5, end + 0.1, end + 0.2, 9.0))
            rows.append(at_end("best_epoch", training, seed, best, subset="held_out"))
    records.append(tmp_path, rows)
    run_records = read(tmp_path)
    last = final_rows(run_records.select(quantity="i_tx_upper"))
    assert sorted(zip(last["training"], last["epoch"], last["value"], strict=True)) == [
        ("at", 1.0, 3.1), ("at", 2.0, 3.2), ("nt", 1.0, 4.1), ("nt", 2.0, 4.2),
    ]  # fmt: skip
    assert final_rows(run_records.select(quantity="best_epoch"))["epoch"].max() == 4, "rows of no finished network"


def test_equal_accuracies_on_few_images_do_not_show_that_there_is_no_difference(tmp_path):
    def rows(n):
        return [
            at_end("accuracy", training, seed, 1.0, inputs="clean", subset="test", n=n)
            for training in ("nt", "at")
            for seed in range(3)
        ]

    few, many = (tmp_path / name for name in ("few", "many"))
    for directory, n in ((few, 250), (many, 10_000)):
        directory.mkdir()
        found = finding(claims_of(directory, rows(n))["2b"], "Clean test accuracy")
        reach = 1 - wilson(1.0, n)[0]
        assert (found.value, found.low, found.high) == (0.0, pytest.approx(-reach), pytest.approx(reach))
        assert found.verdict == ("undecided" if n == 250 else "not supported")


def test_the_loss_of_any_training_is_found_and_its_inputs_are_named(tmp_path):
    rows = [
        at_end("loss", training, seed, value + 0.01 * seed, inputs=inputs, subset="train")
        for training, inputs, value in (("nt", "clean", 0.1), ("noise", "noisy", 0.7))
        for seed in range(3)
    ]
    records.append(tmp_path, rows)
    claim = next(c for c in evaluate(read(tmp_path), treated="noise") if c.number == "2b")
    assert finding(claim, "Training loss").value == pytest.approx(0.6)
    assert "(Noise: noisy, NT: clean)" in claim.method
