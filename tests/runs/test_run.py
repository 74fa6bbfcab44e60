"""A run from configuration to report: everything is measured, and bad input is refused early."""

import dataclasses
import errno
import fcntl
import json
import math
import os
import re

import jax
import jaxtyping
import numpy as np
import pytest

import mi_jax as mj
from mi_jax import data, runs
from mi_jax.attacks import PGD
from mi_jax.batches import BATCH_SIZE
from mi_jax.data.sample import fixed_sample
from mi_jax.errors import InputError
from mi_jax.records.labels import LABEL_FREE_ATTACKS
from mi_jax.runs import json_codec
from mi_jax.runs.config import Evaluation, RunConfig


def test_every_layer_is_measured_at_every_scheduled_epoch_for_both_trainings(finished_run):
    df = mj.records.load(finished_run)
    layers = mj.checkpoints.restore(finished_run, training="nt").network.layers
    kde = df[(df.quantity == "i_tx_upper") & (df.estimator == "kde") & ~df.attack.isin(LABEL_FREE_ATTACKS)]
    expected = 2 * 2 * 3 * 2 * len(layers) * 3  # trainings, seeds, epochs 0 1 3, inputs, layers, noise rules
    assert len(kde) == expected
    assert set(kde.noise_rule) == {"fixed", "trace", "scale_free"}
    assert set(kde.epoch) == {0.0, 1.0, 3.0}
    assert df.ok.all()
    assert (kde.unit == "bits").all()
    assert (kde.value.dropna() <= math.log2(60) + 1e-6).all()
    strong = df[(df.attack == "pgd") & (df.attack_steps == 3) & (df.checkpoint == "last") & (df.quantity == "accuracy")]
    assert set(strong.training) == {"nt", "at"}


def test_the_untrained_network_is_the_same_for_both_trainings_and_frozen_noise_variances_stay(finished_run):
    df = mj.records.load(finished_run)
    kde = df[(df.quantity == "i_tx_upper") & (df.estimator == "kde") & (df.seed == 0)]
    start_rows = kde[(kde.epoch == 0)].set_index(["inputs", "layer", "noise_rule"]).sort_index()
    nt, at = (start_rows[start_rows.training == name].value for name in ("nt", "at"))
    np.testing.assert_array_equal(nt.to_numpy(), at.to_numpy())
    frozen = kde[kde.noise_rule == "trace"].groupby("layer").noise_variance.nunique()
    assert (frozen == 1).all()
    following = (
        kde[(kde.noise_rule == "scale_free") & (kde.inputs == "clean")].groupby("layer").noise_variance.nunique()
    )
    assert (following > 1).all()


def test_a_recorded_number_can_be_recomputed_from_the_checkpoint(finished_run):
    """From nothing but the run directory and the data: the estimate, its sample and its noise are what they say."""
    state = mj.checkpoints.restore(finished_run, training="at", seed=1)
    dataset = mj.data.load(state.config.dataset, limit=state.config.limit)
    rows = np.sort(np.random.default_rng(0).permutation(len(dataset.test))[:60])
    images, labels = dataset.test.images[rows] / np.float32(255), dataset.test.labels[rows]
    _, taps = state.network.apply(state.variables, images)
    df = mj.records.load(finished_run)
    layer = state.network.layers[1]
    row = df[
        (df.training == "at") & (df.seed == 1) & (df.step == state.step) & (df.layer == layer) & (df.inputs == "clean")
        & (df.estimator == "kde") & (df.noise_rule == "fixed") & df["class"].isna()
    ].set_index("quantity")  # fmt: skip
    estimate = mj.information.kde(taps[layer], labels, noise_variance=0.1, num_classes=10)
    for name in ("i_tx_upper", "i_tx_lower", "i_ty_upper", "i_ty_certified_lower"):
        assert row.value[name] == pytest.approx(float(getattr(estimate, name)) / math.log(2), abs=1e-4), name


def test_networks_are_evaluated_by_autoattack_and_on_images_made_on_each_other(finished_run):
    df = mj.records.load(finished_run)
    reduced = df[(df.quantity == "accuracy") & (df.attack == "autoattack-custom")]
    assert set(reduced.reduced) == {True}
    assert set(reduced.eps) == {0.1}
    assert len(reduced) == 4  # trainings x seeds
    finished = df[(df.quantity == "accuracy") & (df.inputs == "clean") & (df.checkpoint == "last")]
    clean = finished.set_index(["training", "seed"]).value
    assert (reduced.set_index(["training", "seed"]).value <= clean + 1e-9).all()
    transfer = df[df.quantity == "transfer_accuracy"]
    assert set(zip(transfer.training, transfer.source, strict=True)) == {("nt", "at"), ("at", "nt")}

    state = mj.checkpoints.restore(finished_run, training="nt", seed=1)
    dataset = mj.data.load("digits", limit=state.config.limit)
    images, labels = fixed_sample(dataset.test.images, dataset.test.labels, 60)
    key = jax.random.split(jax.random.fold_in(jax.random.key(1), 1), 1)[0]
    filled = np.minimum(np.arange(BATCH_SIZE), 59)
    made = mj.attacks.pgd(
        state.network.logits, state.variables, images[filled], labels[filled], key, config=state.config.final_attack
    )
    other = mj.checkpoints.restore(finished_run, training="at", seed=1)
    predicted = np.argmax(other.network.apply(other.variables, made.images[:60])[0], axis=1)
    row = transfer[(transfer.training == "at") & (transfer.seed == 1)].value.item()
    assert row == pytest.approx(float(np.mean(predicted == np.asarray(labels))), abs=1e-6)


def test_a_finished_run_is_left_alone(finished_run, small_config, quiet):
    before = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*") if path.name != ".lock"}
    runs.run(small_config, run_dir=finished_run, reporter=quiet)
    assert "complete; overwrite it to run it again" in quiet.console.file.getvalue()
    assert {path: path.stat().st_mtime_ns for path in finished_run.rglob("*") if path.name != ".lock"} == before


def test_a_run_of_numbers_of_numpy_is_that_of_pythons(finished_run, small_config, quiet):
    attack = dataclasses.replace(small_config.attack, eps=np.float64(0.1))
    config = dataclasses.replace(small_config, seeds=np.int64(2), limit=np.int32(300), width=np.float64(1))
    runs.run(dataclasses.replace(config, attack=attack), run_dir=finished_run, reporter=quiet)
    assert "holds this run, complete" in quiet.console.file.getvalue()


def test_a_file_system_that_cannot_lock_is_said_and_used(finished_run, small_config, quiet, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    runs.run(small_config, run_dir=finished_run, reporter=quiet)
    first, last = quiet.console.file.getvalue().splitlines()
    assert first == f"The file system of {finished_run} cannot lock; make sure that no other process writes there."
    assert "holds this run, complete" in last


def test_another_config_is_refused_and_nothing_is_lost(finished_run, small_config, quiet):
    before = (finished_run / "records.jsonl").read_bytes()
    with pytest.raises(InputError, match="epochs was 3, now 4"):
        runs.run(dataclasses.replace(small_config, epochs=4), run_dir=finished_run, reporter=quiet)
    assert (finished_run / "records.jsonl").read_bytes() == before


def test_the_run_directory_says_where_its_numbers_come_from(finished_run, small_config):
    provenance = json.loads((finished_run / "provenance.json").read_text())
    assert provenance["packages"]["jax"] == jax.__version__
    assert provenance["end"] >= provenance["start"]
    assert provenance["command"] == "test"
    read = json_codec.from_dict(RunConfig, json.loads((finished_run / "config.json").read_text()))
    assert read == small_config


def two_classes_of_tiny_images() -> data.Dataset:
    """The corners of the first digits, even and odd."""
    digits = data.load("digits", limit=300)
    train, test = (
        dataclasses.replace(split, images=split.images[:, :4, :4], labels=split.labels % 2)
        for split in (digits.train, digits.test)
    )
    return dataclasses.replace(digits, train=train, test=test, class_names=("even", "odd"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 301}, r"Invalid batch_size 301: expected a number in \[1, 300\]"),
        ({"batch_size": 250, "held_out": 0.2}, r"Invalid batch_size 250: expected a number in \[1, 240\]"),
        (
            {"attack": PGD(eps=0.0)},
            r"AutoAttack \(apgd-ce,square\) cannot evaluate this run: Invalid eps 0.0: expected",
        ),
        ({"attack": PGD(norm="l2", eps=128.0)}, r"Invalid eps 128: images .* are at most 8 apart; give it in pixel"),
        ({"attack": PGD(norm="l2", eps=6.0, step_size=15.0)}, r"Invalid step_size 15: images .* are at most 8 apart"),
        ({"evaluation": Evaluation(autoattack=("standard",)), "dataset": "two"}, r"\(standard\) .* at least 4 classes"),
        ({"evaluation": Evaluation(), "studies": ("autoattack",), "dataset": "two"}, r"\(standard\) .* at least 4"),
        (
            {"evaluation": Evaluation(autoattack=("square",)), "attack": PGD(norm="l2"), "dataset": "two"},
            "5 x 5 pixels",
        ),
        ({"limit": 1}, r"The test split of digits has too few images .* \(1, expected at least 2\); give it more"),
    ],
)
def test_what_cannot_be_done_with_the_data_is_refused_before_anything_is_written(
    small_config, tmp_path, quiet, monkeypatch, changes, words
):
    if changes.get("dataset") == "two":
        made = two_classes_of_tiny_images()
        monkeypatch.setattr(data, "load", lambda name, **_: made)
    with pytest.raises(InputError, match=words):
        runs.run(dataclasses.replace(small_config, **changes), run_dir=tmp_path / "run", reporter=quiet)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("dataset", None, "Invalid dataset: expected a name, not NoneType."),
        ("training", None, "Invalid training: expected names, such as ('nt', 'at'), not NoneType."),
        ("attack", None, "Invalid attack: expected mi_jax.attacks.pgd.PGD, not NoneType."),
        ("attack", {"eps": 0.1}, "Invalid attack: expected mi_jax.attacks.pgd.PGD, not dict."),
        ("attack", mj.attacks.APGD(), "Invalid attack: expected mi_jax.attacks.pgd.PGD, not APGD."),
        ("evaluation", 5, "Invalid evaluation: expected mi_jax.runs.config.Evaluation, not int."),
        ("studies", None, "Invalid studies: expected a tuple, which is empty for none, not NoneType."),
        ("studies", (3,), "Invalid studies: expected names, not int."),
        ("mesh", None, "Invalid mesh: expected auto, none, data=N, or seed=M,data=N, not NoneType."),
        ("objective_options", {"a.b": 1}, "Invalid objective_options: expected a tuple, which is empty for none"),
        ("objective_options", (("a.b",),), "Invalid objective_options ('a.b',): expected pairs such as"),
        ("run_dir", 5, "Invalid run_dir: expected the path of a folder, not int."),
        ("run_dir", "a\0b", "expected the path of a folder, without a null character."),
        ("data_dir", 5, "Invalid data_dir: expected the path of a folder, not int."),
        ("overwrite", "no", "Invalid overwrite 'no': expected True or False."),
        ("quiet", "no", "Invalid quiet 'no': expected True or False."),
        ("tensorboard", "no", "Invalid tensorboard 'no': expected True or False."),
    ],
)
def test_arguments_of_another_kind_are_refused_before_anything_is_written(option, value, words, tmp_path, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it would refuse them first
    given = {"arch": "mlp", "dataset": "digits", "quiet": True, "run_dir": tmp_path / "run", option: value}
    with pytest.raises(InputError, match=re.escape(words)):
        mj.run(**given)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("as_a_user")
def test_a_run_directory_that_is_no_path_is_refused():
    for read in (mj.checkpoints.restore, mj.checkpoints.restore_finished, mj.checkpoints.steps):
        with pytest.raises(InputError, match=r"^Invalid run_dir None: expected the path of a run directory"):
            read(None, training="nt")


def test_a_network_that_a_run_does_not_hold_is_named(finished_run, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="has no training 'trades'; it has nt, at"):
        mj.checkpoints.restore(finished_run, training="trades")
    with pytest.raises(InputError, match="has no seed 2; it has seeds 0 to 1"):
        mj.checkpoints.restore(finished_run, training="nt", seed=2)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it would refuse the text first
    with pytest.raises(InputError, match="Invalid seed '0': expected a whole number of at least 0"):
        mj.checkpoints.restore(finished_run, training="nt", seed="0")
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(InputError, match="is not a run directory"):
            mj.checkpoints.restore(path, training="nt")


@pytest.mark.parametrize(
    ("batch_size", "where"),
    [(50, "the loss of seed 0 is"), (300, "the loss of seed 0 on the fixed sample is not finite")],
)
def test_a_network_that_has_diverged_is_named_with_what_to_do(small_config, tmp_path, quiet, batch_size, where):
    """Where an epoch is one update its own loss is still finite: the measurement meets the network first."""
    wild = dataclasses.replace(small_config.optimizer, learning_rate=1e30)
    config = dataclasses.replace(small_config, trainings=("nt",), seeds=1, batch_size=batch_size, optimizer=wild)
    with pytest.raises(InputError, match=rf"Training nt diverged: {where}.*; lower optimizer"):
        runs.run(config, run_dir=tmp_path / "run", reporter=quiet)


def test_a_study_of_no_image_is_refused(finished_run, quiet):
    with pytest.raises(InputError, match="Invalid samples 0"):
        runs.study("geometry", run_dir=finished_run, samples=0, reporter=quiet)
