"""Early stopping: which images are held out, which epoch is best, when to stop, and what a run does with it."""

import dataclasses
import functools
import io
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import mi_jax as mj
from mi_jax import data, runs
from mi_jax.attacks import PGD, pgd
from mi_jax.batches import map_batches
from mi_jax.errors import InputError
from mi_jax.runs import experiment
from mi_jax.runs.progress import Reporter
from mi_jax.training import (
    EarlyStopping,
    HeldOutAccuracy,
    Interrupted,
    TrainingProgress,
    evaluate,
    held_out,
    held_out_attack,
    held_out_rows,
    split_held_out,
)
from mi_jax.training.held_out import best, collapsed


def history(*ends: tuple[float, float, float]) -> list[HeldOutAccuracy]:
    """From (clean, robust, trained) of every epoch."""
    return [HeldOutAccuracy(10 * n, n, *end) for n, end in enumerate(ends, start=1)]


def test_held_out_images_are_apart_from_the_rest_always_the_same_and_of_every_class(digits):
    split = data.load("digits").train
    train, held_out = split_held_out(split, 0.1)
    rows = held_out_rows(split.labels, 0.1)
    np.testing.assert_array_equal(rows, held_out_rows(split.labels.copy(), 0.1))
    assert len(set(rows)) == len(rows) == len(held_out) == len(split) - len(train)
    np.testing.assert_array_equal(held_out.images, split.images[rows])
    np.testing.assert_array_equal(train.images, np.delete(split.images, rows, axis=0))
    np.testing.assert_array_equal(train.labels, np.delete(split.labels, rows))
    sizes, all_sizes = np.bincount(held_out.labels), np.bincount(split.labels)
    np.testing.assert_array_equal(sizes, [round(0.1 * int(n)) for n in all_sizes])


def test_nothing_held_out_leaves_the_images_as_they_are(digits):
    train, held_out = split_held_out(digits.train, 0.0)
    assert train is digits.train
    assert held_out is None


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (-0.1, r"Invalid held_out -0.1: expected a number in \[0, 1\)"),
        (1.0, r"Invalid held_out 1.0: expected a number in \[0, 1\)"),
        (1e-4, "holds out 0 of 320 images"),
    ],
)
def test_a_share_that_leaves_nothing_is_refused(digits, share, message):
    with pytest.raises(InputError, match=message):
        held_out_rows(digits.train.labels, share)


def test_the_best_epoch_is_the_earliest_of_the_accuracy_that_is_trained_for():
    ends = history((0.5, 0.30, 0.3), (0.7, 0.40, 0.4), (0.9, 0.40, 0.6), (0.9, 0.35, 0.9))
    assert [best(ends, name).epoch for name in ("at", "trades", "fast", "nt", "noise")] == [2, 2, 2, 3, 3]


def test_a_collapse_is_a_large_fall_while_training_goes_on_rising():
    healthy = [(0.5, 0.2, 0.2), (0.6, 0.3, 0.3), (0.7, 0.4, 0.4)]
    assert not any(collapsed(history(*healthy[:n]), 500) for n in (0, 1, 2, 3))
    assert collapsed(history(*healthy, (0.8, 0.01, 0.9)), 500)
    assert not collapsed(history(*healthy, (0.2, 0.01, 0.1)), 500), "everything fell: no overfitting"
    assert not collapsed(history(*healthy, (0.8, 0.25, 0.9)), 500), "robust overfitting is slow and training continues"
    assert not collapsed(history(*healthy, (0.8, 0.15, 0.9)), 10), "too few images to tell"
    assert collapsed(history(*healthy, (0.8, 0.15, 0.9)), 500)


def test_the_attack_on_held_out_images_is_strong_enough_to_see_a_collapse():
    attack = held_out_attack(PGD(norm="l2", eps=0.5, steps=1, step_size=0.1, random_start=False, keep="best"))
    assert (attack.norm, attack.eps, attack.steps, attack.random_start, attack.keep) == ("l2", 0.5, 10, True, "last")
    assert attack.step_size == pytest.approx(2.5 * 0.5 / 10), "ten steps of 0.1 would hardly leave the start"
    assert (held_out_attack(PGD(steps=40)).steps, held_out_attack(PGD(steps=40)).step_size) == (40, 2 / 255)


def test_a_small_class_is_held_out_in_proportion_and_never_whole():
    labels = np.repeat([0, 1, 2, 3], [960, 20, 20, 1])
    for share, counts in ((0.02, [19, 1, 1]), (0.1, [96, 2, 2]), (0.9, [864, 18, 18]), (0.999, [959, 19, 19])):
        assert np.bincount(labels[held_out_rows(labels, share)]).tolist() == counts


def test_adversarial_images_do_not_depend_on_the_batch_size(trainer, digits, monkeypatch):
    images = data.to_float(jnp.asarray(digits.test.images[:9]))
    labels = jnp.asarray(digits.test.labels[:9])
    network = mj.models.create("mlp", num_classes=10, input_shape=(8, 8, 1), width=0.25)
    variables, seen = network.init(jax.random.key(0)), []

    def recorded(*args, **options):
        result = pgd(*args, **options)
        seen.append(np.asarray(result.images))
        return result

    monkeypatch.setattr(held_out, "pgd", recorded)
    for size in (3, 9):
        monkeypatch.setattr(held_out, "map_batches", functools.partial(map_batches, batch_size=size))
        held_out._accuracies(
            network, variables, images, labels, jax.random.key(1), held_out_attack(PGD(eps=0.1, step_size=0.02))
        )
    np.testing.assert_array_equal(np.concatenate(seen[:3]), seen[3])
    assert float(np.abs(seen[3] - images).max()) <= 0.1 + 1e-6


def test_accuracy_of_every_seed_is_measured_and_restored_after_an_interruption(trainer, digits, arrays):
    network = mj.models.create("mlp", num_classes=10, input_shape=(8, 8, 1), width=0.25)
    trainer = dataclasses.replace(trainer, network=network, objective="nt", seeds=(0, 4))
    images, labels = digits.test.images[:60], digits.test.labels[:60]
    stopping, state = EarlyStopping(trainer, images, labels, trainer.objective_config.attack), trainer.init(arrays[0])
    for epoch, accuracy in ((1, [0.5, 0.6]), (2, [0.7, 0.8])):
        progress = TrainingProgress(
            10 * epoch, float(epoch), True, np.zeros(2), np.zeros(2), np.asarray(accuracy), 1.0, 640
        )
        stopping.measure(state, progress)
    x = data.to_float(jnp.asarray(images))
    for (seed, member), trained in zip(trainer.members(state), (0.7, 0.8), strict=True):
        end = stopping.histories[seed][-1]
        assert (end.step, end.epoch, end.trained) == (20, 2, trained)
        assert end.clean == evaluate(network, member["variables"], x, labels)[1]
        key = jax.random.fold_in(jax.random.key(seed), 3)
        noise = [jax.random.uniform(jax.random.fold_in(key, i), (8, 8, 1), minval=-1) for i in range(60)]
        start = jnp.clip(x + stopping.attack.eps * jnp.stack(noise), 0, 1)
        hit = pgd(network.logits, member["variables"], x, labels, config=stopping.attack, start=start).success
        assert end.robust == pytest.approx(1 - float(jnp.mean(hit)), abs=1e-6)
        assert stopping.kept(seed) == [10]
    assert stopping.improved() == [], "an epoch as good as an earlier one is not the best"
    again = EarlyStopping(trainer, images, labels, trainer.objective_config.attack)
    again.resume(0, json.loads(json.dumps(stopping.to_json(0))), stopping.kept(0))
    assert again.histories[0] == stopping.histories[0]
    again.resume(0, stopping.to_json(0), [])
    assert again.histories[0] == (), "a best epoch that is not on disk is none"


@pytest.fixture(scope="module")
def stopping_config(small_config):
    """Fast training with everything that rides on it: held-out images, averaged and perturbed weights."""
    unprobed = dataclasses.replace(small_config.information, epochs=(3,))  # the best epoch is one before
    return dataclasses.replace(
        small_config, trainings=("fast",), seeds=1, held_out=0.2, average=0.8, awp=0.005, information=unprobed
    )


@pytest.fixture(scope="module")
def stopped_early(stopping_config, tmp_path_factory):
    """A run of it, told that its second epoch is a collapse; with what it said on screen."""
    return collapsing_run(stopping_config, tmp_path_factory.mktemp("early") / "run")


def collapsing_run(config, run_dir: Path, **options):
    screen = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held_out, "collapsed", lambda ends, count: len(ends) >= 2)
        patch.setattr(experiment.report, "build", lambda run_dir, **_: run_dir / "report.html")
        runs.run(config, run_dir=run_dir, reporter=Reporter(Console(file=screen, width=500)), **options)
    return run_dir, screen.getvalue()


def test_a_collapse_ends_the_training_and_is_said_in_records_and_on_screen(stopped_early):
    run_dir, screen = stopped_early
    df = mj.records.load(run_dir)
    assert "catastrophic overfitting: stopped after epoch 2 of 3" in screen
    stopped = df[df.quantity == "stopped_epoch"]
    assert list(stopped.value) == [2.0]
    assert stopped.note.iloc[0].startswith("catastrophic overfitting")
    assert df[df.image_set == "train"].epoch.max() == 2.0
    assert mj.checkpoints.steps(run_dir, training="fast")[-1] == 2 * 4, "240 images of 300 are left, 50 an update"


def test_the_best_epoch_is_recorded_named_kept_and_evaluated(stopped_early):
    run_dir, _ = stopped_early
    df = mj.records.load(run_dir)
    rows = df[(df.image_set == "held_out") & (df.quantity == "accuracy")]
    assert set(rows.n) == {60}
    robust = rows[rows.inputs == "adversarial"].set_index("step").value
    named = json.loads((run_dir / "checkpoints" / "fast" / "0" / "best.json").read_text())
    assert named["step"] == robust.idxmax()
    assert named["robust"] == robust.max()
    assert list(df[df.quantity == "best_epoch"].value) == [named["epoch"]]
    assert mj.checkpoints.restore(run_dir, training="fast", step=named["step"]).step == named["step"]
    final = df[df.checkpoint == "best"]
    assert set(final.step) == {named["step"]}
    assert named["step"] in set(df[df.quantity == "i_tx_upper"].step), "the network that is evaluated is measured"


def test_what_is_measured_and_restored_is_the_averaged_network(stopped_early):
    run_dir, _ = stopped_early
    state = mj.checkpoints.restore(run_dir, training="fast")
    dataset = mj.data.load("digits", limit=300)
    rows = np.sort(np.random.default_rng(0).permutation(len(dataset.test))[:60])
    images, labels = data.to_float(jnp.asarray(dataset.test.images[rows])), dataset.test.labels[rows]
    loss, _ = evaluate(state.network, state.variables, images, labels)
    df = mj.records.load(run_dir)
    found = df[(df.quantity == "loss") & (df.image_set == "test") & (df.inputs == "clean") & (df.step == state.step)]
    assert found.value.iloc[0] == pytest.approx(loss, abs=1e-5)


def test_an_interrupted_run_with_early_stopping_goes_on_to_the_same_bits(stopped_early, stopping_config, tmp_path):
    run_dir = tmp_path / "run"
    asked = {"chunks": 0}

    def stop_asked() -> bool:
        asked["chunks"] += (run_dir / "checkpoints" / "fast" / "0").is_dir()
        return asked["chunks"] >= 3

    with pytest.raises(Interrupted):
        collapsing_run(stopping_config, run_dir, stop_asked=stop_asked)
    assert not any('"stopped_epoch"' in line for line in (run_dir / "records.jsonl").read_text().splitlines())
    collapsing_run(stopping_config, run_dir)
    assert (run_dir / "records.jsonl").read_text() == (stopped_early[0] / "records.jsonl").read_text()
    for step in mj.checkpoints.steps(stopped_early[0], training="fast")[-2:]:
        a, b = (mj.checkpoints.restore(d, training="fast", step=step).variables for d in (run_dir, stopped_early[0]))
        jax.tree.map(np.testing.assert_array_equal, a, b)
