"""A run from configuration to report: everything is measured, a kill loses nothing, bad input is refused early."""

import dataclasses
import errno
import fcntl
import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import mi_jax as mj
from mi_jax import cli, data, runs
from mi_jax.attacks import PGD, Budget
from mi_jax.batches import BATCH_SIZE
from mi_jax.data.sample import fixed_sample
from mi_jax.errors import InputError
from mi_jax.measure.information import InformationConfig
from mi_jax.records.labels import LABEL_FREE_ATTACKS
from mi_jax.runs import json_codec, workload
from mi_jax.runs.checkpoints import Checkpoints
from mi_jax.runs.config import Evaluation, RunConfig
from mi_jax.runs.progress import Reporter
from mi_jax.training import Interrupted

ROOT = Path(__file__).parents[2]
FLAGS = [
    "--arch=mlp", "--dataset=digits", "--seeds=2", "--epochs=3", "--width=1", "--batch-size=50", "--limit=300",
    "--optimizer.name=adam", "--optimizer.schedule=multistep", "--optimizer.learning-rate=3e-3",
    "--optimizer.weight-decay=5e-4", "--attack.eps=0.1", "--attack.steps=2", "--attack.step-size=0.05",
    "--attack-warmup=0", "--probe.samples=60", "--probe.epochs=1", "--evaluation.samples=60", "--evaluation.steps=3",
    "--evaluation.autoattack=apgd-ce,square", "--evaluation.autoattack-samples=60",
    "--evaluation.budget.apgd-steps=4", "--evaluation.budget.square-queries=20",
]  # fmt: skip


def rows_of(run_dir: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run_dir / "records.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in ("run", "crc")} for row in rows]


def final_variables(run_dir: Path, training: str, seed: int):
    return mj.checkpoints.restore(run_dir, training=training, seed=seed).variables


def assert_same_run(a: Path, b: Path) -> None:
    assert rows_of(a) == rows_of(b)
    for training in ("nt", "at"):
        for seed in (0, 1):
            jax.tree.map(
                np.testing.assert_array_equal, final_variables(a, training, seed), final_variables(b, training, seed)
            )


def start(run_dir: Path, *flags: str) -> subprocess.Popen:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(ROOT / "experiments" / "run.py"), *FLAGS, f"--run-dir={run_dir}", *flags]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, process: subprocess.Popen, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1][-2000:]
        assert time.monotonic() < end, "the run did not get that far"
        time.sleep(0.02)


def damage_step(run_dir: Path, training: str, seed: int, step: int) -> None:
    for path in (run_dir / "checkpoints" / training / str(seed) / str(step) / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


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


def test_a_killed_run_resumes_to_the_same_bits(finished_run, tmp_path, small_config, quiet):
    """SIGKILL in the middle of adversarial training; then the same configuration from another process."""
    run_dir = tmp_path / "killed"
    process = start(run_dir)
    records = run_dir / "records.jsonl"
    wait_for(lambda: records.exists() and '"training":"at","seed":0,"step":6' in records.read_text(), process)
    process.kill()
    process.communicate()
    assert (finished_run / "report.html").exists()
    assert not (run_dir / "report.html").exists()
    runs.run(small_config, run_dir=run_dir, reporter=quiet)
    assert_same_run(finished_run, run_dir)


@pytest.fixture(scope="module")
def stopped_run(small_config, tmp_path_factory):
    """`small_config` until a stop was asked for after the second compiled chunk of the first adversarial training."""
    run_dir = tmp_path_factory.mktemp("stopped") / "run"
    asked = {"chunks": 0}

    def stop_asked() -> bool:
        asked["chunks"] += (run_dir / "checkpoints" / "at" / "0").is_dir()
        return asked["chunks"] >= 2

    with pytest.raises(Interrupted):
        runs.run(small_config, run_dir=run_dir, reporter=Reporter(Console(file=io.StringIO())), stop_asked=stop_asked)
    return run_dir


@pytest.fixture
def stopped(stopped_run, tmp_path):
    return Path(shutil.copytree(stopped_run, tmp_path / "run"))


def test_an_interrupted_run_saves_within_the_epoch_and_resumes_to_the_same_bits(
    finished_run, stopped, small_config, quiet
):
    steps = mj.checkpoints.steps(stopped, training="at", seed=0)
    assert steps[-1] % 6 != 0, "the state within the epoch was not saved"
    runs.run(small_config, run_dir=stopped, reporter=quiet)
    assert_same_run(finished_run, stopped)


LONG = ["--epochs=400", "--training=nt", "--seeds=1", "--evaluation.autoattack=none"]


def test_a_scheduler_that_ends_the_run_gets_status_75_and_a_saved_state(tmp_path):
    run_dir = tmp_path / "run"
    process = start(run_dir, *LONG, "--overwrite")
    wait_for(lambda: (run_dir / "checkpoints" / "nt" / "0").is_dir(), process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 75, err[-2000:]
    assert "The same command without --overwrite resumes from here" in out
    assert "Traceback" not in err
    assert mj.checkpoints.restore(run_dir, training="nt", seed=0).step > 0


def test_an_interruption_from_the_keyboard_gives_status_130_and_a_saved_state(tmp_path, capsys):
    run_dir = tmp_path / "run"

    def interrupt() -> None:
        while not (run_dir / "checkpoints" / "nt" / "0").is_dir():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(SystemExit) as left:
        cli.main(["run", *FLAGS, *LONG, f"--run-dir={run_dir}"])
    assert left.value.code == 130
    assert "The same command resumes from here" in capsys.readouterr().out
    assert mj.checkpoints.restore(run_dir, training="nt", seed=0).step > 0


def test_a_damaged_newest_checkpoint_costs_only_its_steps(finished_run, stopped, small_config, quiet):
    damage_step(stopped, "at", 0, mj.checkpoints.steps(stopped, training="at", seed=0)[-1])
    runs.run(small_config, run_dir=stopped, reporter=quiet)
    assert "cannot be read" in quiet.console.file.getvalue()
    assert_same_run(finished_run, stopped)


@pytest.fixture(scope="module")
def tiny_config(small_config):
    """Two trainings and seeds, side by side, that take next to no time."""
    return dataclasses.replace(
        small_config, trainings=("nt", "noise"), population="vmap", epochs=2, limit=100, batch_size=25,
        information=InformationConfig(samples=20, epochs=(0,), noise=("fixed",)),
        evaluation=Evaluation(samples=20, steps=1),
    )  # fmt: skip


def measured(run_dir: Path):
    """The table of a run's records, in an order that does not depend on that of its units."""
    table = mj.records.load(run_dir).assign(run=None)
    return table.sort_values(list(table.columns), ignore_index=True)


@pytest.fixture(scope="module")
def tiny_run(tiny_config, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("tiny") / "run"
    runs.run(tiny_config, run_dir=run_dir, reporter=Reporter(Console(file=io.StringIO())))
    return run_dir


@pytest.fixture(scope="module")
def interrupted_run(tiny_config, tmp_path_factory):
    """The same, stopped by a batch job in its second training."""
    run_dir = tmp_path_factory.mktemp("tiny") / "run"
    noise = run_dir / "checkpoints" / "noise" / "1"
    reporter = Reporter(Console(file=io.StringIO()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_JOB_ID", "17")
        with pytest.raises(Interrupted):
            runs.run(tiny_config, run_dir=run_dir, reporter=reporter, stop_asked=noise.is_dir)
    return run_dir


@pytest.fixture
def interrupted(interrupted_run, tmp_path):
    return Path(shutil.copytree(interrupted_run, tmp_path / "run"))


def test_seeds_side_by_side_resume_where_one_has_lost_its_steps(tiny_run, tiny_config, interrupted, quiet):
    shutil.rmtree(interrupted / "checkpoints" / "noise" / "1")
    runs.run(tiny_config, run_dir=interrupted, reporter=quiet)
    pd.testing.assert_frame_equal(measured(interrupted), measured(tiny_run))


def test_a_batch_job_that_is_started_again_keeps_what_it_did_in_spite_of_overwrite(
    tiny_config, interrupted, quiet, monkeypatch
):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    records = interrupted / "records.jsonl"
    before = records.read_bytes()

    def start_again(restarts: str) -> None:
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
        with pytest.raises(Interrupted):
            runs.run(tiny_config, run_dir=interrupted, reporter=quiet, overwrite=True, stop_asked=lambda: True)

    start_again("1")
    assert records.read_bytes() == before
    start_again("0")
    assert not records.exists()


def test_the_time_left_is_estimated_from_what_an_earlier_command_did(tiny_config, interrupted, quiet, monkeypatch):
    began: list[float] = []
    monkeypatch.setattr(quiet, "start_from", began.append)
    monkeypatch.setattr(workload, "of_evaluation", lambda *_, **__: 0.0)
    monkeypatch.setattr(workload, "REPORT_FLOPS", 0.0)
    with pytest.raises(Interrupted):
        runs.run(tiny_config, run_dir=interrupted, reporter=quiet, stop_asked=lambda: True)
    step = mj.checkpoints.steps(interrupted, training="noise", seed=0)[-1]
    assert 0 < step < 8
    assert began == [pytest.approx((1 + step / 8) / 2)]


@pytest.fixture
def finished(tiny_run, tmp_path):
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def test_a_study_that_was_stopped_resumes_at_the_first_network_that_is_not_done(finished, quiet):
    stage = "noise_grid: noise seed 0"
    before = len(rows_of(finished))
    with pytest.raises(Interrupted):
        runs.study(
            "noise_grid",
            run_dir=finished,
            samples=20,
            reporter=quiet,
            stop_asked=lambda: stage in quiet.console.file.getvalue(),
        )
    stopped = rows_of(finished)
    studied = [(row["training"], row["seed"]) for row in stopped[before:]]
    assert set(studied) == {("nt", 0), ("nt", 1), ("noise", 0)}
    runs.study("noise_grid", run_dir=finished, samples=20, reporter=quiet)
    rows = rows_of(finished)
    assert rows[: len(stopped)] == stopped
    assert {(row["training"], row["seed"]) for row in rows[len(stopped) :]} == {("noise", 1)}
    runs.study("noise_grid", run_dir=finished, samples=20, reporter=quiet)
    assert len(rows_of(finished)) == 2 * len(rows) - before, "a completed study is run again"


def test_a_study_of_other_images_under_the_same_name_is_refused(finished, quiet, monkeypatch):
    digits = data.load("digits", limit=100)
    images = digits.test.images.copy()
    images[0, 0, 0, 0] += 1
    changed = dataclasses.replace(digits, test=dataclasses.replace(digits.test, images=images))
    monkeypatch.setattr(data, "load", lambda name, **_: changed)
    with pytest.raises(InputError, match="other images under the same name"):
        runs.study("geometry", run_dir=finished, samples=20, reporter=quiet)


def test_damaged_checkpoints_of_a_finished_run_are_trained_again_from_the_step_before(
    finished, tiny_run, tiny_config, quiet
):
    damage_step(finished, "noise", 1, 8)
    damage_step(finished, "nt", 0, 0)
    runs.run(tiny_config, run_dir=finished, reporter=quiet)
    said = quiet.console.file.getvalue()
    assert "nt seed 0,1 is trained again" in said
    assert "noise seed 0,1 is trained again" in said
    pd.testing.assert_frame_equal(measured(finished), measured(tiny_run))
    for training in ("nt", "noise"):
        jax.tree.map(
            np.testing.assert_array_equal,
            final_variables(finished, training, 1),
            final_variables(tiny_run, training, 1),
        )


def test_a_finished_run_with_damaged_progress_is_measured_again_on_the_networks_it_has(
    finished, tiny_run, tiny_config, quiet
):
    (finished / "progress.json").write_text("{")
    steps = {path: path.stat().st_mtime_ns for path in finished.glob("checkpoints/*/*/*")}
    runs.run(tiny_config, run_dir=finished, reporter=quiet)
    assert "progress.json is missing or damaged" in quiet.console.file.getvalue()
    assert {path: path.stat().st_mtime_ns for path in finished.glob("checkpoints/*/*/*")} == steps
    pd.testing.assert_frame_equal(measured(finished), measured(tiny_run))


@pytest.fixture(scope="module")
def run_with_a_best_epoch(tiny_config, tmp_path_factory):
    config = dataclasses.replace(tiny_config, trainings=("nt",), seeds=1, held_out=0.2, batch_size=20)
    run_dir = tmp_path_factory.mktemp("best") / "run"
    runs.run(config, run_dir=run_dir, reporter=Reporter(Console(file=io.StringIO())))
    return run_dir


@pytest.mark.parametrize("content", [None, "", '{"step": 6}'])
def test_a_damaged_best_epoch_is_rebuilt_from_the_checkpoints(run_with_a_best_epoch, tmp_path, quiet, content):
    run_dir = shutil.copytree(run_with_a_best_epoch, tmp_path / "run")
    best = run_dir / "checkpoints" / "nt" / "0" / "best.json"
    before = json.loads(best.read_text())
    best.write_text(content) if content is not None else best.unlink()
    runs.study("noise_grid", run_dir=run_dir, samples=20, reporter=quiet)
    assert json.loads(best.read_text()) == before
    assert "it is rebuilt from a checkpoint" in quiet.console.file.getvalue()


def test_a_damaged_state_of_autoattack_is_started_again(tiny_config, tmp_path, quiet):
    def attack_began() -> bool:
        return "AutoAttack" in quiet.console.file.getvalue()

    autoattack = Evaluation(
        samples=20, steps=1, autoattack=("apgd-ce",), autoattack_samples=20, budget=Budget(apgd_steps=2)
    )
    config = dataclasses.replace(tiny_config, trainings=("nt",), seeds=1, evaluation=autoattack)
    whole, run_dir = tmp_path / "whole", tmp_path / "run"
    runs.run(config, run_dir=whole, reporter=Reporter(Console(file=io.StringIO())))
    with pytest.raises(Interrupted):
        runs.run(config, run_dir=run_dir, reporter=quiet, stop_asked=attack_began)
    (state,) = run_dir.glob("autoattack-*.npz")
    state.write_bytes(b"PK")
    runs.run(config, run_dir=run_dir, reporter=quiet)
    assert "AutoAttack starts from the beginning" in quiet.console.file.getvalue()
    pd.testing.assert_frame_equal(measured(run_dir), measured(whole))


@pytest.mark.parametrize("name", ["lr=[0.1]", "a\\b", os.fsdecode(b"caf\xe9")])
def test_a_name_under_which_checkpoints_could_not_be_read_is_refused_before_training(
    tiny_config, tmp_path, quiet, name
):
    with pytest.raises(InputError, match="Checkpoints cannot be kept in"):
        runs.run(tiny_config, run_dir=tmp_path / name / "run", reporter=quiet)
    assert not (tmp_path / name).exists()


def test_a_damaged_network_of_a_finished_training_is_trained_again_and_costs_nothing_else(
    tiny_run, tiny_config, interrupted, quiet
):
    final = interrupted / "checkpoints" / "nt" / "1" / "8"
    shutil.rmtree(final / "state")
    runs.run(tiny_config, run_dir=interrupted, reporter=quiet)
    said = quiet.console.file.getvalue()
    assert f"{final} cannot be read" in said
    assert "nt seed 0,1 is trained again from the step before" in said
    pd.testing.assert_frame_equal(measured(interrupted), measured(tiny_run))


def test_a_stop_that_was_asked_for_stays_one_on_a_full_disk_and_every_store_is_closed(
    tiny_config, tmp_path, quiet, monkeypatch
):
    closed, close = [], Checkpoints.close

    def fail(store):
        close(store)
        closed.append(store)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path))

    def stop_asked() -> bool:
        monkeypatch.setattr(Checkpoints, "close", fail)
        return (tmp_path / "run" / "checkpoints" / "nt" / "1").is_dir()

    with pytest.raises(Interrupted):
        runs.run(tiny_config, run_dir=tmp_path / "run", reporter=quiet, stop_asked=stop_asked)
    assert len(closed) == 2
    assert "The newest state could not be saved ([Errno 28]" in quiet.console.file.getvalue()


def test_a_finished_run_is_left_alone(finished_run, small_config, quiet):
    before = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*") if path.name != ".lock"}
    runs.run(small_config, run_dir=finished_run, reporter=quiet)
    assert "complete; overwrite it to run it again" in quiet.console.file.getvalue()
    assert {path: path.stat().st_mtime_ns for path in finished_run.rglob("*") if path.name != ".lock"} == before


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
        ({"attack": PGD(norm="l2", step_size=15.0)}, r"Invalid step_size 15: images .* are at most 8 apart"),
        ({"evaluation": Evaluation(autoattack=("standard",)), "dataset": "two"}, r"\(standard\) .* at least 4 classes"),
        ({"evaluation": Evaluation(), "studies": ("autoattack",), "dataset": "two"}, r"\(standard\) .* at least 4"),
        (
            {"evaluation": Evaluation(autoattack=("square",)), "attack": PGD(norm="l2"), "dataset": "two"},
            "5 x 5 pixels",
        ),
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


def test_a_network_that_a_run_does_not_hold_is_named(finished_run, tmp_path):
    with pytest.raises(InputError, match="has no training 'trades'; it has nt, at"):
        mj.checkpoints.restore(finished_run, training="trades")
    with pytest.raises(InputError, match="has no seed 2; it has 0 to 1"):
        mj.checkpoints.restore(finished_run, training="nt", seed=2)
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
