"""Claims: statistics computed by hand on a few rows, every verdict, and the reasons where nothing can be said."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import pytest

from mi_jax import records
from mi_jax.claims import CLAIMS, Claim, evaluate
from mi_jax.claims.extracts_less import effects_of
from mi_jax.claims.paired import compared, evidence
from mi_jax.records.labels import MINUS
from mi_jax.records.run_records import compared_trainings, final_rows, read
from mi_jax.records.table import Record
from mi_jax.statistics.intervals import t_interval, wilson
from mi_jax.statistics.jackknife import Sample, blocks_to_text, crossed

EPOCHS = (0, 1, 2, 4)


def information(training, seed, layer, values, *, quantity="i_tx_upper", rule="fixed", inputs="clean", **columns):
    shared = {"training": training, "seed": seed, "layer": layer, "quantity": quantity, "inputs": inputs}
    shared |= {
        "noise_rule": rule,
        "estimator": "kde",
        "unit": "bits",
        "n": 100,
        "noise_variance": 0.1,
        "image_set": "test",
    }
    return [Record(**{**shared, "epoch": e, "value": v, **columns}) for e, v in zip(EPOCHS, values, strict=True)]


def at_end(quantity, training, seed, value, **columns):
    return Record(quantity=quantity, training=training, seed=seed, value=value, epoch=4, **columns)


NAMES = {"1": "same_trend", "2a": "extracts_less", "2b": "harder_to_train", "3": "prefers_shape", "4": "geometry"}


class Claims(Mapping):
    """The claims on some records by number, evaluated when they are asked for."""

    def __init__(self, run_records):
        self.run_records = run_records

    def __getitem__(self, number):
        return CLAIMS[NAMES[number]](self.run_records, ("nt", "at"))

    def __iter__(self):
        return iter(NAMES)

    def __len__(self):
        return len(NAMES)


def claims_of(tmp_path, rows):
    records.append(tmp_path, rows)
    return Claims(read(tmp_path))


def statistic(claim, name, noise_rule=None):
    (found,) = (s for s in claim.statistics if s.name == name and s.noise_rule == noise_rule)
    return found


def both_bounds(training, seed, layer, end, **columns):
    rows = information(training, seed, layer, (1, 1, 1, end), **columns)
    return rows + information(training, seed, layer, (1, 1, 1, end - 0.5), quantity="i_tx_lower", **columns)


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        ((2.0, 2.1, 2.2), "supported"),
        ((6.0, 6.1, 6.2), "contradicted"),
        ((4.0, 4.01, 4.02), "equivalent"),
        ((2.0, 6.0, 4.0), "undecided"),
    ],
)
def test_less_information_is_the_paired_difference_of_the_sums_over_layers(tmp_path, ends, verdict):
    rows = []
    for seed, end in enumerate(ends):
        rows += both_bounds("nt", seed, "a", 4.0) + both_bounds("nt", seed, "b", 4.0)
        rows += both_bounds("at", seed, "a", end - 0.1) + both_bounds("at", seed, "b", end + 0.1)
    claim = claims_of(tmp_path, rows)["2a"]
    found = statistic(claim, "I(X;T), KDE upper bound", "fixed")
    expected = t_interval([(end - 4.0) / 4.0 for end in ends])
    assert (found.value, found.low, found.high) == pytest.approx(expected[:3])
    assert (found.seeds, found.over_images, found.remark.partition(";")[0]) == (3, False, "2 layers")
    assert claim.verdict("fixed") == verdict
    assert claim.verdict("trace") == "undecided"


def test_less_information_needs_both_bounds_to_agree(tmp_path):
    rows = []
    for seed in range(3):
        for training, upper, lower in (("nt", 4.0, 1.0), ("at", 3.0, 2.0)):
            rows += information(training, seed, "a", (0, 0, 0, upper + 0.01 * seed))
            rows += information(training, seed, "a", (0, 0, 0, lower + 0.01 * seed), quantity="i_tx_lower")
    claim = claims_of(tmp_path, rows)["2a"]
    assert statistic(claim, "I(X;T), KDE upper bound", "fixed").verdict == "supported"
    assert statistic(claim, "I(X;T), KDE lower bound", "fixed").verdict == "contradicted"
    assert claim.verdict("fixed") == claim.combined(("fixed", "trace")) == "mixed"


def test_a_layer_saturated_in_one_training_is_kept_up_to_what_the_sample_allows(tmp_path):
    rows = []
    for seed, shift in enumerate((-1e-4, 0.0, 1e-4)):
        rows += both_bounds("nt", seed, "wide", 6.5, saturated=True) + both_bounds("at", seed, "wide", 4.0 + shift)
        rows += both_bounds("nt", seed, "narrow", 3.5) + both_bounds("at", seed, "narrow", 3.0 - shift / 2)
    found = statistic(claims_of(tmp_path, rows)["2a"], "I(X;T), KDE upper bound", "fixed")
    assert (found.value, found.high) == pytest.approx((-3 / 10, -3 / 10), abs=1e-4)
    full = math.log2(100)
    lowest = (4.0 - full + 3.0 - 3.5) / (full + 3.5)
    assert found.low == pytest.approx(lowest, abs=1e-4), "NT may carry up to log2 N"
    assert found.remark == "2 layers; less in: wide, narrow; saturated in one training: wide"


def test_a_layer_saturated_in_the_compared_training_cannot_support_less(tmp_path):
    rows = []
    for seed in range(3):
        rows += both_bounds("nt", seed, "wide", 6.0) + both_bounds("at", seed, "wide", 5.0, saturated=True)
        rows += both_bounds("nt", seed, "full", 6.6, saturated=True) + both_bounds(
            "at", seed, "full", 6.6, saturated=True
        )
    found = statistic(claims_of(tmp_path, rows)["2a"], "I(X;T), KDE upper bound", "fixed")
    assert (found.low, found.high) == pytest.approx((-1 / 6, (math.log2(100) - 6) / 6))
    assert found.verdict == "undecided"
    assert found.remark == "1 of 2 layers; saturated in one training: wide"


def test_an_interval_with_a_saturated_layer_is_no_narrower_than_without_censoring(tmp_path):
    rows = []
    for seed, end in enumerate((6.0, 6.3, 6.6)):
        rows += both_bounds("nt", seed, "full", end, saturated=True) + both_bounds("nt", seed, "b", 3.0)
        rows += both_bounds("at", seed, "full", 6.0) + both_bounds("at", seed, "b", 4.0)
    found = statistic(claims_of(tmp_path, rows)["2a"], "I(X;T), KDE upper bound", "fixed")
    nt, at = np.array([9.0, 9.3, 9.6]), np.full(3, 10.0)
    exact = crossed(lambda a, b: (b - a).sum() / a.sum(), Sample(nt), Sample(at)).interval()
    assert (found.low, found.high) == pytest.approx(exact[1:3])
    assert found.verdict == "undecided", "the estimates may be exact, and then nothing is decided"


@pytest.mark.parametrize("ends", [(0.0, 0.0, 0.0), (0.0, 2.0, 0.0)])
def test_without_information_in_the_baseline_there_is_no_relative_difference(tmp_path, ends):
    rows = []
    for seed, end in enumerate(ends):
        rows += information("nt", seed, "a", (1, 1, 1, end)) + information("at", seed, "a", (1, 1, 1, 3.0))
    found = statistic(claims_of(tmp_path, rows)["2a"], "I(X;T), KDE upper bound", "fixed")
    assert (found.low, found.high, found.verdict) == (None, None, "undecided")
    assert "the baseline has information in at most one seed" in found.remark


def test_the_interval_joins_seeds_and_the_images_that_all_networks_share(tmp_path):
    devs = [0.1, -0.1, 0.05, -0.05]
    rows = []
    for seed, end in enumerate((3.0, 3.2, 3.4)):
        rows += both_bounds("nt", seed, "a", 4.0, blocks=blocks_to_text(np.array(devs)))
        rows += both_bounds("at", seed, "a", end, blocks=blocks_to_text(np.array([0.2, -0.2, 0.0, 0.0])))
    found = statistic(claims_of(tmp_path, rows)["2a"], "I(X;T), KDE upper bound", "fixed")
    assert found.over_images
    effect = crossed(
        lambda a, b: (b - a).sum() / a.sum(),
        Sample(np.full(3, 4.0), 4.0 + np.tile(devs, (3, 1))),
        Sample(np.array([3.0, 3.2, 3.4]), np.add.outer([3.0, 3.2, 3.4], [0.2, -0.2, 0.0, 0.0])),
    )
    assert (found.value, found.low, found.high) == pytest.approx(effect.interval()[:3])
    seeds_alone = t_interval([(end - 4.0) / 4.0 for end in (3.0, 3.2, 3.4)])
    assert effect.of_seeds == pytest.approx((seeds_alone.high - seeds_alone.mean) ** 2 / 4.30265272974946**2)
    assert effect.of_images > 0


def test_a_layer_that_differs_in_the_other_direction_makes_the_verdict_mixed(tmp_path):
    rows = []
    for seed in range(4):
        rows += both_bounds("nt", seed, "a", 9.0) + both_bounds("nt", seed, "b", 1.0 + 0.001 * seed)
        rows += both_bounds("at", seed, "a", 5.0 + 0.001 * seed) + both_bounds("at", seed, "b", 2.0)
    claim = claims_of(tmp_path, rows)["2a"]
    assert statistic(claim, "I(X;T), KDE upper bound", "fixed").remark == "2 layers; less in: a; more in: b"
    assert claim.verdict("fixed") == "mixed"


def test_single_layers_of_all_statistics_of_the_claim_are_one_family(tmp_path):
    rows = []
    for seed, side in ((0, -1), (1, 1)):
        rows += both_bounds("nt", seed, "a", 9.0) + both_bounds("nt", seed, "b", 1.0)
        rows += both_bounds("at", seed, "a", 5.0 + 0.001 * side)
        # Student's t with one degree of freedom is Cauchy's: p = 0.03.
        rows += both_bounds("at", seed, "b", 1.5 + side * 0.5 * math.tan(math.pi * 0.03 / 2))
    claim = claims_of(tmp_path, rows)["2a"]
    one = compared(read(tmp_path).select(quantity="i_tx_upper"), ("nt", "at"))
    (alone,) = effects_of([one])
    assert (alone.p_values[1], alone.less, alone.more) == (pytest.approx(0.03), ["a"], ["b"])
    both = effects_of([one, None, one])
    assert both[1] is None
    assert [(e.p_values[1], e.less, e.more) for e in both[::2]] == [(pytest.approx(0.06), ["a"], [])] * 2
    assert statistic(claim, "I(X;T), KDE upper bound", "fixed").remark == "2 layers; less in: a"
    assert claim.verdict("fixed") == "supported"


def test_the_whole_noise_grid_must_agree_where_it_was_measured(tmp_path):
    rows = []
    for seed in range(3):
        for training, scale in (("nt", 1.0), ("at", 0.7 + 0.001 * seed)):
            rows += both_bounds(training, seed, "a", 4.0 * scale)
            rows += [
                row
                for variance in (0.1, 0.4, 1.6)
                for row in information(
                    training, seed, "a", [scale / variance] * 4, rule="grid", noise_variance=variance
                )
            ]
    claim = claims_of(tmp_path, rows)["2a"]
    found = statistic(claim, "I(X;T), KDE upper bound over the whole noise grid")
    assert (found.value, found.verdict) == (pytest.approx(-0.299), "supported")
    assert found.remark == "3 points; less in: a 1, a 2, a 3"
    assert claim.verdict("fixed") == "supported"
    full = {"rule": "trace", "saturated": True}
    rows = [
        row for training in ("nt", "at") for seed in range(3) for row in both_bounds(training, seed, "a", 9, **full)
    ]
    claim = claims_of(tmp_path, rows)["2a"]
    assert claim.testable(("fixed", "trace")) == ("fixed",), "the grid makes no saturated rule testable"
    assert claim.combined(("fixed", "trace")) == "supported"


def test_a_noise_grid_that_misses_a_variance_is_not_compared_place_by_place(tmp_path):
    rows = []
    for seed in range(3):
        for training in ("nt", "at"):
            for layer in "ab":
                for value, variance in ((4.0, 0.1), (2.0, 0.4), (1.0, 1.6)):
                    if (training, seed, layer, variance) != ("at", 0, "a", 0.1):
                        rows += information(training, seed, layer, [value] * 4, rule="grid", noise_variance=variance)
    found = statistic(claims_of(tmp_path, rows)["2a"], "I(X;T), KDE upper bound over the whole noise grid")
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)
    assert found.remark == "3 points; left out as not measured in every seed: a 1, a 2, a 3"


def test_too_few_samples_for_the_population_leave_the_verdict_and_are_named(tmp_path):
    rows = []
    for seed in range(3):
        for layer, flag in (("a", "sample size"), ("b", None), ("c", None)):
            rows += both_bounds("nt", seed, layer, 4.0, unreliable=flag)
            rows += both_bounds("at", seed, layer, 3.0 + 0.01 * seed)
    claim = claims_of(tmp_path, rows)["2a"]
    assert claim.verdict("fixed") == "supported"
    assert statistic(claim, "I(X;T), KDE upper bound", "fixed").undersampled == (1, 3)
    words = "for the images measured only, as they are too few for the population in 1 of 3 layers (fixed)"
    assert claim.of_images_alone(("fixed", "trace")) == words


@pytest.mark.parametrize("limit", ["dimension", "batch size"])
def test_estimates_beyond_the_limit_of_their_estimator_are_no_evidence(tmp_path, limit):
    rows = []
    for seed in range(3):
        rows += both_bounds("nt", seed, "a", 4.0) + both_bounds("at", seed, "a", 3.0 + 0.01 * seed)
        rows += both_bounds("nt", seed, "b", 4.0) + both_bounds("at", seed, "b", 99.0, unreliable=limit)
    found = statistic(claims_of(tmp_path, rows)["2a"], "I(X;T), KDE upper bound", "fixed")
    assert found.value == pytest.approx(-0.99 / 4)
    assert found.remark == "1 layer; less in: a; left out as not measured in every seed: b"
    flagged = read(tmp_path).select(quantity="i_tx_upper", training="nt")
    assert len(evidence(flagged.assign(estimator="denoiser", unreliable="sample size"))) == 0


def test_the_population_differs_by_what_the_brackets_of_both_trainings_allow(tmp_path):
    rows = []
    for seed in range(3):
        for training, lower, left_out in (("nt", 3.5, 5.0), ("at", 1.5, 3.0)):
            rows += both_bounds(training, seed, "a", lower + 0.5)
            rows += information(training, seed, "a", (9, 9, 9, left_out), quantity="i_tx_leave_one_out")
            rows += both_bounds(training, seed, "full", 6.5, saturated=True)
    found = statistic(claims_of(tmp_path, rows)["2a"], "I(X;T) of the population", "fixed")
    assert (found.value, found.low, found.high) == pytest.approx((4.5 / 8.5 - 1, 1.5 / 5 - 1, 3 / 3.5 - 1))
    assert (found.decides, found.verdict) == (False, "supported")
    assert found.remark == "context: KDE lower bound to leave-one-out; 1 of 2 layers"


def test_brackets_of_other_seeds_say_nothing_of_the_population(tmp_path):
    rows = []
    for seed in range(3):
        for training in ("nt", "at"):
            rows += both_bounds(training, seed, "a", 4.0) + both_bounds(training, seed, "b", 4.0)
            if seed < 2:
                rows += information(training, seed, "a", (9, 9, 9, 5.0), quantity="i_tx_leave_one_out")
    names = {s.name for s in claims_of(tmp_path, rows)["2a"].statistics}
    assert names == {"I(X;T), KDE upper bound", "I(X;T), KDE lower bound"}


def test_where_every_layer_is_saturated_the_claim_says_so(tmp_path):
    rows = [r for t in ("nt", "at") for s in (0, 1) for r in both_bounds(t, s, "a", 6.6, saturated=True)]
    found = claims_of(tmp_path, rows)
    assert found["2a"].weakest("fixed").remark == "every layer is saturated in both trainings"
    assert {c.verdict("fixed") for c in found.values()} == {"undecided"}


def test_an_unfinished_training_is_compared_at_the_last_common_epoch(tmp_path):
    rows = both_bounds("nt", 0, "a", 9.0) + both_bounds("nt", 1, "a", 9.0)
    rows += [r for s in (0, 1) for r in both_bounds("at", s, "a", 9.0) if r.epoch < 4]
    found = statistic(claims_of(tmp_path, rows)["2a"], "I(X;T), KDE upper bound", "fixed")
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)
    assert found.remark == "1 layer; measured at epoch 2, while the run has epoch 4"


def test_a_quantity_last_measured_before_the_end_is_named_with_its_epoch(tmp_path):
    rows = [row for training in ("nt", "at") for seed in range(2) for row in both_bounds(training, seed, "a", 4.0)]
    for training in ("nt", "at"):
        for seed in range(2):
            where = {"inputs": "clean", "image_set": "test"}
            rows.append(Record(quantity="loss", training=training, seed=seed, value=0.1, epoch=1, **where))
            rows.append(at_end("accuracy", training, seed, 0.9, **where))
    claims = claims_of(tmp_path, rows)
    assert statistic(claims["2b"], "Clean test loss").remark == "measured at epoch 1, while the run has epoch 4"
    assert statistic(claims["2b"], "Clean test accuracy").remark == ""
    assert statistic(claims["2a"], "I(X;T), KDE upper bound", "fixed").remark == "1 layer"


def test_harder_means_lower_accuracy_and_higher_loss_on_the_same_clean_images(tmp_path):
    rows = []
    for seed, accuracy in enumerate((0.8, 0.82, 0.84)):
        for training, right, loss in (("nt", 0.95, 0.1), ("at", accuracy, 0.7)):
            rows += [at_end("accuracy", training, seed, right, inputs="clean", image_set="test")]
            rows += [at_end("loss", training, seed, loss, inputs="clean", image_set="test")]
            rows += [at_end("loss", training, seed, 9.0, inputs="adversarial", image_set="test")]
    claim = claims_of(tmp_path, rows)["2b"]
    accuracy, loss = claim.statistics
    assert (accuracy.value, accuracy.low, accuracy.high) == pytest.approx(t_interval([-0.15, -0.13, -0.11])[:3])
    assert (loss.value, loss.verdict) == (pytest.approx(0.6), "supported")
    assert claim.verdict("fixed") == claim.verdict("trace") == "supported"


def test_speed_is_counted_to_a_share_of_the_fall_of_each_ones_own_loss(tmp_path):
    losses = {"nt": (2.0, 0.2, 0.0, 0.0), "at": (4.0, 2.4, 1.2, 0.4)}
    rows = [
        Record(quantity="loss", training=training, seed=seed, epoch=epoch, value=value, image_set="train", inputs="x")
        for training, values in losses.items()
        for seed in range(2)
        for epoch, value in enumerate(values, 1)
    ]
    found = statistic(claims_of(tmp_path, rows)["2b"], "Epochs until 90 % of the fall of its own training loss")
    # NT falls by 2.0 and reaches 0.2 at epoch 2; AT falls by 3.6 and reaches 0.76 between epochs 3 and 4.
    assert (found.value, found.decides) == (pytest.approx(3 + (1.2 - 0.76) / 0.8 - 2), False)


@pytest.mark.parametrize(
    ("nt", "at", "verdict"),
    [
        ((0.2, 0.22), (0.9, 0.92), "supported"),
        ((0.9, 0.92), (0.2, 0.22), "contradicted"),
        ((0.5, 0.51), (0.51, 0.52), "equivalent"),
        ((0.2, 0.6), (0.9, 0.5), "undecided"),
        ((0.2,), (0.9,), "undecided"),
    ],
)
def test_shape_preference_is_the_paired_difference_of_shape_bias(tmp_path, nt, at, verdict):
    rows = [
        at_end("shape_bias", training, seed, value, inputs="clean", image_set="conflict")
        for training, values in (("nt", nt), ("at", at))
        for seed, value in enumerate(values)
    ]
    claim = claims_of(tmp_path, rows)["3"]
    assert claim.statistics[0].value == pytest.approx(sum(at) / len(at) - sum(nt) / len(nt))
    assert claim.verdict("fixed") == verdict
    biases = [f.value for f in claim.statistics if not f.decides]
    assert biases == pytest.approx([sum(nt) / len(nt), sum(at) / len(at)])
    if len(nt) == 1:
        assert claim.statistics[0].remark == "one paired seed: an interval needs two"


@pytest.mark.parametrize(("no_shape", "no_texture"), [(1, None), (1, 2)])
def test_sensitivities_of_other_seeds_are_not_paired(tmp_path, no_shape, no_texture):
    rows = [
        at_end(f"{cue}_sensitivity", training, seed, 0.5, inputs="clean", image_set="conflict")
        for training in ("nt", "at")
        for seed in range(3)
        for cue, missing in (("shape", no_shape), ("texture", no_texture))
        if (training, seed) != ("at", missing)
    ]
    found = statistic(claims_of(tmp_path, rows)["3"], f"Shape {MINUS} texture sensitivity, AT minus NT")
    assert (found.value, found.verdict) == (None, "undecided")
    assert found.remark == "the sensitivities to the two cues were not measured in the same seeds"


def test_what_was_not_measured_is_undecided_and_says_so(tmp_path):
    found = claims_of(tmp_path, [at_end("accuracy", "nt", 0, 0.9, inputs="clean", image_set="test")])
    assert {claim.verdict("fixed") for claim in found.values()} == {"undecided"}
    assert all(
        "measured in this run" in f.remark for c in ("1", "2a", "2b", "3") for f in found[c].statistics if f.decides
    )


def split_rows(seed, *, forward, own, rescaled, change):
    """Rows of the study geometry for one layer: `forward` rescales the baseline up, `rescaled` the other one down."""
    where = {"training": "at", "seed": seed, "layer": "a", "noise_rule": "fixed", "estimator": "kde", "unit": "bits"}
    where |= {"epoch": 4, "inputs": "clean", "image_set": "test"}
    based = {**where, "reference": "baseline"}
    return [
        Record(quantity="i_tx_change", value=change, **based),
        Record(quantity="i_tx_change_scale", value=forward, **based),
        Record(quantity="i_tx_upper_rescaled", value=rescaled, **based),
        Record(quantity="i_tx_upper", value=own, **where),
    ]


def map_rows(scaling, *, seeds, gain=0.0, saturated=False):
    """Rows of the study geometry for one layer: it moves by `scaling` without a loss, `gain` more than that by gains.

    It moves by 1 with a loss of one bit.
    """
    where = {"layer": "a", "noise_rule": "fixed", "inputs": "clean", "image_set": "test"}
    moves = {"scaling": scaling, "channel_gain": scaling + gain, "repetition": -1.0}
    return [
        row
        for training in ("nt", "at")
        for seed in range(seeds)
        for row in (
            *(at_end("i_tx_map_change", training, seed, v, reference=k, **where) for k, v in moves.items()),
            at_end("i_tx_upper", training, seed, 3.0, estimator="kde", saturated=saturated, **where),
        )
    ]


@pytest.mark.parametrize(
    ("scale", "scaling", "verdict"),
    [(-2.0, 2.5, "supported"), (-0.2, 0.1, "contradicted"), (-1.1, 1.0, "equivalent")],
)
def test_scale_is_compared_with_the_rest_by_the_mean_of_both_orders(tmp_path, scale, scaling, verdict):
    rows = [row for row in map_rows(scaling, seeds=3) if row.quantity == "i_tx_map_change"]
    for seed in range(3):
        # The mean of the two orders is `scale`; the rest is the other part of the change of -2.2.
        rows += split_rows(seed, forward=scale - 0.3, own=3.0, rescaled=3.0 - scale - 0.3, change=-2.2)
    claim = claims_of(tmp_path, rows)["4"]
    found = statistic(claim, "Scale part minus the rest", "fixed")
    gap = scale**2 - (-2.2 - scale) ** 2
    assert found.value == pytest.approx(math.copysign(math.sqrt(abs(gap)), gap))
    assert (found.verdict, found.remark.partition(";")[0]) == (verdict, "1 layer")
    assert claim.combined(("fixed", "trace")) == verdict
    means = [s.value for s in claim.statistics if s.name.startswith("Difference of I(X;T)")]
    assert means == pytest.approx([scale, -2.2 - scale])


def test_without_the_study_nothing_is_said_about_scale(tmp_path):
    rows = [r for seed in range(3) for t in ("nt", "at") for r in both_bounds(t, seed, "a", 4.0)]
    claim = claims_of(tmp_path, rows)["4"]
    assert (claim.weakest("fixed").remark, claim.verdict("fixed")) == ("needs the study geometry", "undecided")


DOUBLED = "Movement when all activations are doubled, minus when one bit is lost"
GAINS = "Movement when channels get gains of their own, minus when one bit is lost"


@pytest.mark.parametrize(
    ("scaling", "gain", "verdicts"),
    [
        (2.5, 0.0, ["supported", "supported", "supported"]),
        (0.1, 0.0, ["contradicted", "contradicted", "contradicted"]),
        (2.5, -2.0, ["supported", "contradicted", "mixed"]),
    ],
)
def test_each_map_that_keeps_information_is_compared_with_the_loss_of_one_bit(tmp_path, scaling, gain, verdicts):
    claim = claims_of(tmp_path, map_rows(scaling, seeds=2, gain=gain))["4"]
    found = [statistic(claim, name, "fixed") for name in (DOUBLED, GAINS)]
    assert [f.value for f in found] == pytest.approx([scaling - 1, scaling + gain - 1])
    assert [*(f.verdict for f in found), claim.verdict("fixed")] == verdicts


def test_saturated_layers_show_nothing_about_scale(tmp_path):
    # At the ceiling log2 N no map changes the estimate but the loss of images, whatever the layer holds.
    rows = map_rows(0.0, seeds=3, saturated=True)
    for seed in range(3):
        split = split_rows(seed, forward=0.0, own=3.0, rescaled=3.0, change=0.0)
        rows += [row for row in split if row.quantity != "i_tx_upper"]
    claim = claims_of(tmp_path, rows)["4"]
    for name in ("Scale part minus the rest", DOUBLED, GAINS):
        found = statistic(claim, name, "fixed")
        assert (found.value, found.verdict, found.remark) == (None, "undecided", "every layer is saturated")


def test_layers_that_are_left_out_are_not_counted_as_undersampled(tmp_path):
    rows = map_rows(2.5, seeds=2)
    for training in ("nt", "at"):
        for seed in range(2):
            for layer, full in (("full", True), ("few", False)):
                where = {"layer": layer, "noise_rule": "fixed", "inputs": "clean", "image_set": "test"}
                limit = "saturated" if full else "sample size"
                flags = {"estimator": "kde", "saturated": full, "unreliable": limit}
                rows.append(at_end("i_tx_upper", training, seed, 3.0, **flags, **where))
    assert statistic(claims_of(tmp_path, rows)["4"], DOUBLED, "fixed").undersampled == (1, 2)


def test_maps_of_an_earlier_version_have_to_be_measured_again(tmp_path):
    rows = [r for seed in range(3) for r in split_rows(seed, forward=-2.0, own=3.0, rescaled=5.0, change=-2.0)]
    rows += [
        at_end("i_tx_map_change", t, s, -3.0, reference="merging", layer="a", noise_rule="fixed", inputs="clean")
        for t in ("nt", "at")
        for s in range(3)
    ]
    claim = claims_of(tmp_path, rows)["4"]
    assert statistic(claim, "Scale part minus the rest", "fixed").verdict == "supported"
    assert "has to be run again" in claim.weakest("fixed").remark
    assert claim.verdict("fixed") == "undecided"


def test_maps_of_a_seed_that_failed_in_one_training_are_left_out_in_both(tmp_path):
    moves = {"scaling": 1.5, "channel_gain": 1.5, "repetition": -1.0}
    rows = [
        at_end("i_tx_map_change", training, seed, value * (10 if seed == 1 else 1 + 0.01 * seed),
               reference=name, layer="a", noise_rule="fixed", inputs="clean")
        for training in ("nt", "at")
        for seed in range(3)
        for name, value in moves.items()
        if (training, seed, name) != ("at", 1, "repetition")
    ]  # fmt: skip
    for name in (DOUBLED, GAINS):
        found = statistic(claims_of(tmp_path, rows)["4"], name, "fixed")
        assert (found.value, found.seeds) == (pytest.approx(0.505), 2)


def test_the_texts_of_claims_call_no_training_adversarial_that_is_not(tmp_path):
    rows = [row for training in ("nt", "vib") for seed in range(2) for row in both_bounds(training, seed, "a", 4.0)]
    records.append(tmp_path, rows)
    claims = {claim.number: claim for claim in evaluate(read(tmp_path), treated="vib")}
    assert claims["2b"].text == "VIB is harder than NT: its networks have lower clean accuracy and a higher clean loss."
    assert "that of VIB is on adversarial images" not in claims["2b"].method
    assert "for NT and VIB networks and for clean and adversarial inputs" in claims["1"].text


def test_a_single_training_is_never_compared_with_itself(tmp_path):
    records.append(tmp_path, [row for seed in range(3) for row in both_bounds("at", seed, "a", 4.0)])
    run_records = read(tmp_path)
    assert compared_trainings(run_records) == ("nt", "at")
    for claim in evaluate(run_records):
        assert claim.verdict("fixed") == claim.verdict("trace") == "undecided", claim.number


def test_rows_of_distorted_images_add_no_noise_rule(tmp_path):
    rows = both_bounds("nt", 0, "a", 4.0) + both_bounds("nt", 0, "a", 4.0, rule="trace")
    rows += both_bounds("nt", 0, "a", 4.0, rule="scale_free", level=0.5, distortion="saturate")
    records.append(tmp_path, rows)
    assert read(tmp_path).noise_rules == ("fixed", "trace")


def test_a_layer_that_failed_in_one_seed_is_left_out_for_all_and_named(tmp_path):
    rows = []
    for seed, end in enumerate((3.0, 3.1, 3.2)):
        rows += (
            both_bounds("nt", seed, "a", 4.0) + both_bounds("nt", seed, "b", 4.0) + both_bounds("at", seed, "a", end)
        )
        if seed < 2:
            rows += both_bounds("at", seed, "b", 9.0)
    found = statistic(claims_of(tmp_path, rows)["2a"], "I(X;T), KDE upper bound", "fixed")
    assert (found.value, found.seeds) == (pytest.approx(-0.9 / 4), 3)
    assert found.remark == "1 layer; less in: a; left out as not measured in every seed: b"


def test_a_seed_that_failed_at_the_end_is_named_and_not_taken_from_an_earlier_epoch(tmp_path):
    rows = []
    for seed in range(3):
        rows += both_bounds("nt", seed, "a", 4.0)
        for row in both_bounds("at", seed, "a", 3.0 + 0.01 * seed):
            failed = seed == 2 and row.epoch == EPOCHS[-1]
            rows.append(dataclasses.replace(row, value=None, ok=False, note="constant") if failed else row)
    claim = claims_of(tmp_path, rows)["2a"]
    found = statistic(claim, "I(X;T), KDE upper bound", "fixed")
    assert (found.value, found.seeds) == (pytest.approx(-0.995 / 4), 2)
    assert found.remark == "1 layer; less in: a; without seed 2: nothing was measured in one of the trainings"


def test_finished_networks_are_those_best_on_held_out_images(tmp_path):
    rows = []
    for seed, best in enumerate((1, 2)):
        for training, end in (("nt", 4.0), ("at", 3.0)):
            rows += information(training, seed, "a", (5, end + 0.1, end + 0.2, 9.0))
            where = {"quantity": "accuracy", "training": training, "seed": seed, "inputs": "clean", "value": 0.9}
            rows.append(Record(epoch=best, checkpoint="best", image_set="test", **where))
    records.append(tmp_path, rows)
    last = final_rows(read(tmp_path).select(quantity="i_tx_upper"))
    assert sorted(zip(last["training"], last["epoch"], last["value"], strict=True)) == [
        ("at", 1.0, 3.1), ("at", 2.0, 3.2), ("nt", 1.0, 4.1), ("nt", 2.0, 4.2),
    ]  # fmt: skip


def test_equal_accuracies_on_few_images_do_not_show_that_there_is_no_difference(tmp_path):
    def rows(n):
        return [
            at_end("accuracy", training, seed, 1.0, inputs="clean", image_set="test", n=n)
            for training in ("nt", "at")
            for seed in range(3)
        ]

    few, many = (tmp_path / name for name in ("few", "many"))
    for directory, n in ((few, 250), (many, 10_000)):
        directory.mkdir()
        found = statistic(claims_of(directory, rows(n))["2b"], "Clean test accuracy")
        reach = 1 - wilson(1.0, n)[0]
        assert (found.value, found.low, found.high) == (0.0, pytest.approx(-reach), pytest.approx(reach))
        assert found.verdict == ("undecided" if n == 250 else "equivalent")
        assert found.remark == f"{n:,} images"


def test_errors_of_accuracies_over_seeds_and_over_images_add_as_squares(tmp_path):
    values = {"nt": (0.8, 0.8, 0.8), "at": (0.68, 0.7, 0.72)}
    rows = [
        at_end("accuracy", training, seed, value, inputs="clean", image_set="test", n=400)
        for training, of_seeds in values.items()
        for seed, value in enumerate(of_seeds)
    ]
    found = statistic(claims_of(tmp_path, rows)["2b"], "Clean test accuracy")
    half = t_interval(values["at"]).high - 0.7
    (low, high), (low_at, high_at) = wilson(0.8, 400), wilson(0.7, 400)
    assert found.over_images
    assert found.low == pytest.approx(-0.1 - math.sqrt(half**2 + (0.7 - low_at) ** 2 + (high - 0.8) ** 2))
    assert found.high == pytest.approx(-0.1 + math.sqrt(half**2 + (high_at - 0.7) ** 2 + (0.8 - low) ** 2))


def test_a_registered_claim_is_evaluated_with_the_others(tmp_path, monkeypatch):
    def doubled(run_records, pair):
        return Claim(number="5", name=pair[1], text="t", method="m", statistics=(), figures=())

    evaluate_once = [claim.number for claim in claims_of(tmp_path, [at_end("loss", "nt", 0, 1.0)]).values()]
    assert evaluate_once == ["1", "2a", "2b", "3", "4"]
    monkeypatch.setitem(CLAIMS._entries, "doubled", doubled)
    assert [claim.number for claim in evaluate(read(tmp_path))] == [*evaluate_once, "5"]


def test_intervals_of_differences_stay_within_what_is_possible(tmp_path):
    rows = [
        at_end("shape_bias", training, seed, value, inputs="clean", image_set="conflict")
        for training, values in (("nt", (0.0, 0.6)), ("at", (0.9, 0.7)))
        for seed, value in enumerate(values)
    ]
    found = statistic(claims_of(tmp_path, rows)["3"], "Shape bias, AT minus NT")
    assert (found.low, found.high) == (-1.0, 1.0)
