"""A run that was interrupted, damaged or killed resumes to the same bits, and a finished one is mended."""

import dataclasses
import errno
import functools
import io
import json
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
from mi_jax import cli, data, report, runs
from mi_jax.attacks import Budget, EvaluationState
from mi_jax.errors import InputError
from mi_jax.measure.information import InformationConfig
from mi_jax.runs import robustness, workload
from mi_jax.runs.checkpoints import Checkpoints
from mi_jax.runs.config import Evaluation
from mi_jax.runs.directory import RunDir
from mi_jax.runs.progress import Reporter
from mi_jax.runs.publish import publish
from mi_jax.runs.restore import restore_finished
from mi_jax.training import HeldOutAccuracy, Interrupted

pytestmark = pytest.mark.usefixtures("few_figures")

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


@pytest.mark.parametrize(
    ("number", "flags", "status", "said"),
    [
        (signal.SIGTERM, ["--overwrite"], 75, "The same command without --overwrite resumes from here"),
        (signal.SIGINT, [], 130, "The same command resumes from here"),
    ],
    ids=["scheduler", "keyboard"],
)
def test_an_interruption_gives_its_status_and_a_saved_state(tmp_path, capsys, number, flags, status, said):
    run_dir = tmp_path / "run"

    def interrupt() -> None:
        while not (run_dir / "checkpoints" / "nt" / "0").is_dir():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(SystemExit) as left:
        cli.main(["run", *FLAGS, *LONG, f"--run-dir={run_dir}", *flags])
    assert left.value.code == status
    shown = capsys.readouterr()
    assert said in shown.out
    assert "Traceback" not in shown.err
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


def test_a_finished_run_is_continued_with_more_seeds_of_which_only_the_new_ones_are_trained(
    finished, tiny_config, quiet
):
    before, kept = rows_of(finished), final_variables(finished, "noise", 1)
    (finished / "report.html").unlink(missing_ok=True)
    more = dataclasses.replace(tiny_config, seeds=4)
    runs.run(more, run_dir=finished, reporter=quiet)
    rows = rows_of(finished)
    assert rows[: len(before)] == before
    new = rows[len(before) :]
    assert {row["seed"] for row in new} == {2, 3}
    alike = ("training", "epoch", "checkpoint", "quantity", "layer", "inputs", "noise_rule", "estimator")

    def kinds(rows, seed):
        return sorted(str([row.get(name) for name in alike]) for row in rows if row["seed"] == seed)

    assert kinds(new, 2) == kinds(new, 3) == kinds(before, 1)
    assert runs.restore.read_config(finished).seeds == 4
    jax.tree.map(np.testing.assert_array_equal, final_variables(finished, "noise", 1), kept)
    starts = [mj.checkpoints.restore(finished, training="nt", seed=seed, step=0).variables for seed in range(4)]
    assert len({str(jax.tree.leaves(start)[-1]) for start in starts}) == 4
    runs.run(more, run_dir=finished, reporter=quiet)
    assert rows_of(finished) == rows
    with pytest.raises(InputError, match="seeds was 4, now 3"):
        runs.run(dataclasses.replace(tiny_config, seeds=3), run_dir=finished, reporter=quiet)


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


def test_a_study_killed_in_its_report_is_reported_and_not_done_again(finished, quiet, monkeypatch):
    def study():
        runs.study("noise_grid", run_dir=finished, samples=20, reporter=quiet)

    def kill(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(report, "build", kill)
        with pytest.raises(KeyboardInterrupt):
            study()
    size = (finished / "records.jsonl").stat().st_size
    study()
    assert (finished / "records.jsonl").stat().st_size == size
    study()  # complete, and so done again
    assert (finished / "records.jsonl").stat().st_size > size


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


@pytest.mark.parametrize("command", ["run", "study"])
def test_training_a_damaged_network_again_may_be_interrupted(finished, tiny_run, tiny_config, quiet, command):
    """By what asks for a stop once the first new step is saved; then a study, and more seeds, need the network."""
    for step in (4, 8):
        damage_step(finished, "nt", 0, step)
        damage_step(finished, "nt", 1, step)
    asked = []

    def stop_asked() -> bool:
        asked.append(None)
        return len(asked) == 3

    done_again = functools.partial(
        *((runs.run, tiny_config) if command == "run" else (runs.study, "noise_grid")), run_dir=finished, reporter=quiet
    )
    with pytest.raises(Interrupted):
        done_again(stop_asked=stop_asked)
    assert "nt seed 0,1 is trained again" in quiet.console.file.getvalue()
    assert mj.checkpoints.steps(finished, training="nt", seed=0)[-1] < 8
    runs.run(tiny_config, run_dir=finished, reporter=quiet)
    pd.testing.assert_frame_equal(measured(finished), measured(tiny_run))
    jax.tree.map(np.testing.assert_array_equal, final_variables(finished, "nt", 1), final_variables(tiny_run, "nt", 1))
    (finished / "report.html").touch()
    runs.run(tiny_config, run_dir=finished, reporter=quiet)
    assert "holds this run, complete" in quiet.console.file.getvalue()


def test_a_report_that_was_deleted_is_made_again_without_anything_else(finished, tiny_config, quiet, monkeypatch):
    made = []
    monkeypatch.setattr(report, "build", lambda run_dir, **_: made.append(run_dir))
    (finished / "report.html").touch()
    runs.run(tiny_config, run_dir=finished, reporter=quiet)
    assert made == []
    before = (finished / "records.jsonl").read_bytes()
    (finished / "report.html").unlink()
    runs.run(tiny_config, run_dir=finished, reporter=quiet)
    assert made == [finished]
    assert (finished / "records.jsonl").read_bytes() == before


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
    run_dir = Path(shutil.copytree(run_with_a_best_epoch, tmp_path / "run"))
    best = run_dir / "checkpoints" / "nt" / "0" / "best.json"
    before = json.loads(best.read_text())
    best.write_text(content) if content is not None else best.unlink()
    assert restore_finished(run_dir, training="nt").step == before["step"]
    runs.study("noise_grid", run_dir=run_dir, samples=20, reporter=quiet)
    assert json.loads(best.read_text()) == before
    assert "it is rebuilt from a checkpoint" in quiet.console.file.getvalue()


def test_the_best_network_is_found_and_published_without_the_file_that_names_it(run_with_a_best_epoch, tmp_path):
    """The first epoch, where the newest checkpoint is of the second."""
    run_dir = Path(shutil.copytree(run_with_a_best_epoch, tmp_path / "run"))
    place = run_dir / "checkpoints" / "nt" / "0"
    (place / "best.json").unlink()
    store = Checkpoints(place, keep=[0, 4])
    newest = store.restore()
    first, second = (HeldOutAccuracy(step, epoch, clean, 0.0, 0.0) for step, epoch, clean in ((4, 1, 0.9), (8, 2, 0.8)))
    newest.metadata["held_out"] = [dataclasses.asdict(end) for end in (first, second)]
    store.discard_after(0)
    untrained = store.restore(0)
    store.save(4, untrained.state, {**untrained.metadata, "held_out": [dataclasses.asdict(first)]})
    store.save(8, newest.state, newest.metadata)
    store.close()
    copy = publish(run_dir, tmp_path / "copy", networks=True)
    for found in (restore_finished(run_dir, training="nt"), restore_finished(copy, training="nt")):
        assert found.step == 4
        jax.tree.map(np.testing.assert_array_equal, found.variables["params"], untrained.state["variables"]["params"])


def test_a_training_that_is_not_finished_is_neither_evaluated_nor_published(interrupted, tmp_path):
    restore_finished(interrupted, training="nt", seed=1)
    newest = mj.checkpoints.restore(interrupted, training="noise", seed=1)
    assert newest.step < 8
    words = r"has not finished training 'noise' of seed 1; repeat the command that started the run"
    with pytest.raises(InputError, match=words):
        list(robustness.finished_networks(interrupted, seeds=(1,)))
    with pytest.raises(InputError, match="has not finished training 'noise' of seed 0"):
        publish(interrupted, tmp_path / "copy", networks=True)
    (interrupted / "progress.json").write_text("{")
    restore_finished(interrupted, training="nt", seed=1)
    with pytest.raises(InputError, match=words):
        restore_finished(interrupted, training="noise", seed=1)


def test_a_damaged_network_at_the_end_is_not_replaced_by_the_one_before(finished):
    damage_step(finished, "nt", 0, 8)
    with pytest.raises(InputError, match="No intact checkpoint"):
        restore_finished(finished, training="nt")


@pytest.mark.parametrize("kind", ["damaged", "of another network or attack"])
def test_a_state_of_autoattack_that_cannot_be_resumed_is_started_again(tiny_config, tmp_path, quiet, monkeypatch, kind):
    def attack_began() -> bool:
        return "AutoAttack" in quiet.console.file.getvalue()

    autoattack = Evaluation(
        samples=20, steps=1, autoattack=("apgd-ce",), autoattack_samples=20, budget=Budget(apgd_steps=2)
    )
    config = dataclasses.replace(tiny_config, trainings=("nt",), seeds=1, evaluation=autoattack)
    whole, run_dir = tmp_path / "whole", tmp_path / "run"

    def killed(self, stage: str) -> None:
        complete(self, stage)
        if stage == "evaluate/0":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        complete = RunDir.complete
        patch.setattr(RunDir, "complete", killed)
        with pytest.raises(KeyboardInterrupt):
            runs.run(config, run_dir=whole, reporter=Reporter(Console(file=io.StringIO())))
    assert len(list(whole.glob("autoattack-*.npz"))) == 1, "it is kept until the evaluation counts as complete"
    runs.run(config, run_dir=whole, reporter=Reporter(Console(file=io.StringIO())))
    assert not list(whole.glob("autoattack-*.npz"))
    with pytest.raises(Interrupted):
        runs.run(config, run_dir=run_dir, reporter=quiet, stop_asked=attack_began)
    (state,) = run_dir.glob("autoattack-*.npz")
    if kind == "damaged":
        state.write_bytes(b"PK")
    else:
        dataclasses.replace(EvaluationState.load(state), fingerprint="another").save(state)
    runs.run(config, run_dir=run_dir, reporter=quiet)
    assert f"{kind}; AutoAttack starts from the beginning" in quiet.console.file.getvalue()
    pd.testing.assert_frame_equal(measured(run_dir), measured(whole))


def test_seeds_side_by_side_are_saved_once_the_step_before_is_whole_for_all(tiny_config, tmp_path, quiet, monkeypatch):
    calls = []
    for name, method in (("wait", Checkpoints.wait), ("save", Checkpoints.save)):

        def noted(store, *args, name=name, method=method):
            calls.append((name, store._directory.name))
            return method(store, *args)

        monkeypatch.setattr(Checkpoints, name, noted)
    nt = tmp_path / "run" / "checkpoints" / "nt" / "1"
    with pytest.raises(Interrupted):
        runs.run(tiny_config, run_dir=tmp_path / "run", reporter=quiet, stop_asked=nt.is_dir)
    saves = [number for number, call in enumerate(calls) if call == ("save", "0")]
    assert len(saves) >= 2
    for number in saves:
        assert calls[number - 2 : number] == [("wait", "0"), ("wait", "1")]


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
