"""A published copy of a run: small, readable without the original, with networks that answer as the original's do."""

import io
import json
import lzma
import shutil
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import mi_jax as mj
from mi_jax.claims import evaluate
from mi_jax.data.sample import fixed_sample
from mi_jax.errors import InputError
from mi_jax.records.run_records import read
from mi_jax.runs.experiment import study
from mi_jax.runs.progress import Reporter
from mi_jax.runs.publish import publish
from mi_jax.runs.restore import restore_finished
from mi_jax.training import evaluate as accuracy_of


def test_a_copy_has_the_same_records_report_and_networks(finished_run, tmp_path):
    copy = publish(finished_run, tmp_path / "copy", networks=True)
    found, whole = mj.records.load(copy), mj.records.load(finished_run)
    bound = found["numerical_error"] / whole["numerical_error"]
    assert bound.dropna().between(1, 1.11).all()
    rounded = ["value", "stderr"]
    apart = [*rounded, "numerical_error"]
    pd.testing.assert_frame_equal(found.drop(columns=apart), whole.drop(columns=apart))
    for column in rounded:
        np.testing.assert_allclose(found[column], whole[column], rtol=6e-7)
        digits = [float(f"{value:.7g}") for value in whole[column]]
        np.testing.assert_array_equal(found[column], digits)
    for training in ("nt", "at"):
        first, second = (restore_finished(run_dir, training=training) for run_dir in (finished_run, copy))
        assert (first.network, first.step, first.config) == (second.network, second.step, second.config)
        jax.tree.map(np.testing.assert_array_equal, first.variables, second.variables)
    assert not {"figures", "report.html", "records.jsonl"} & {file.name for file in copy.iterdir()}
    size = sum(file.stat().st_size for file in copy.rglob("*"))
    assert size < sum(file.stat().st_size for file in finished_run.rglob("*")) / 3
    for claim, original in zip(evaluate(read(copy)), evaluate(read(finished_run)), strict=True):
        assert [s.verdict for s in claim.statistics] == [s.verdict for s in original.statistics]
        ours, theirs = ([[s.value, s.low, s.high] for s in c.statistics] for c in (claim, original))
        np.testing.assert_allclose(np.array(ours, float), np.array(theirs, float), rtol=1e-4, atol=1e-6)
    assert not (copy / "records.jsonl").exists(), "who reads a copy writes no records"


def test_the_command_of_the_run_finds_a_copy_complete(finished_run, small_config, tmp_path):
    copy = publish(finished_run, tmp_path / "copy", networks=True)
    before = mj.records.load(copy)
    mj.runs.run(small_config, run_dir=copy, reporter=Reporter(Console(file=io.StringIO())))
    pd.testing.assert_frame_equal(mj.records.load(copy), before)


@pytest.mark.slow
def test_a_study_that_needs_the_untrained_network_gives_the_same_on_a_copy(finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "whole")
    copy = publish(finished_run, tmp_path / "copy", networks=True)
    tables = []
    for run_dir in (tmp_path / "whole", copy):
        reporter = Reporter(Console(file=io.StringIO()))
        study("geometry", run_dir=run_dir, samples=60, which_checkpoints="last", reporter=reporter)
        rows = mj.records.load(run_dir)
        tables.append(rows[rows["quantity"].eq("i_tx_map_change")].drop(columns="run").reset_index(drop=True))
    assert "trace" in set(tables[0]["noise_rule"]), "its variance is of the untrained network"
    pd.testing.assert_frame_equal(*tables)


def test_a_copy_without_networks_says_so_where_one_is_asked_for(finished_run, tmp_path):
    copy = publish(finished_run, tmp_path / "copy")
    assert not (copy / "checkpoints").exists()
    with pytest.raises(InputError, match="holds no checkpoint of training 'nt', seed 0"):
        restore_finished(copy, training="nt")
    with pytest.raises(InputError, match="holds no network; finish the run, or copy it without networks"):
        publish(copy, tmp_path / "again", networks=True)
    assert [file.name for file in tmp_path.iterdir()] == ["copy"], "nothing half-made is left"


def test_a_copy_never_takes_the_place_of_anything(finished_run, tmp_path):
    with pytest.raises(InputError, match="exists; give a new directory for the copy"):
        publish(finished_run, tmp_path)
    with pytest.raises(InputError, match="copy is inside the run; give a directory outside of"):
        publish(finished_run, finished_run / "made" / "copy")
    assert not (finished_run / "made").exists()
    with pytest.raises(InputError, match="is not a run directory"):
        publish(tmp_path, tmp_path / "copy")
    assert not list(tmp_path.iterdir())
    kept = tmp_path / "copy.part"
    kept.mkdir()
    publish(finished_run, tmp_path / "copy")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "copy", kept], "a directory of the user is left alone"


def test_a_copy_never_hides_that_records_are_lost(finished_run, small_config, quiet, tmp_path):
    run_dir = shutil.copytree(finished_run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "figures"))
    copy = publish(run_dir, tmp_path / "copy")
    lines = (run_dir / "records.jsonl").read_bytes().splitlines(keepends=True)
    (run_dir / "records.jsonl").write_bytes(b"".join(lines[:20] + lines[21:]))
    for use in (
        lambda: publish(run_dir, tmp_path / "again"),
        lambda: read(run_dir),
        lambda: mj.runs.run(small_config, run_dir=run_dir, reporter=quiet),
        lambda: mj.runs.study("confusion", run_dir=run_dir, samples=20, reporter=quiet),
    ):
        with pytest.raises(InputError, match=r"bytes, but \d+ had been written; restore the file from a copy"):
            use()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "run"]
    with lzma.open(copy / "records.json.xz", "rt") as file:
        columns = json.load(file)
    with lzma.open(copy / "records.json.xz", "wt") as file:
        json.dump({name: values[1:] for name, values in columns.items()}, file)
    with pytest.raises(InputError, match=r"bytes, but \d+ had been written"):
        read(copy)


def test_a_copy_of_a_run_with_a_damaged_config_has_the_intact_one(finished_run, tmp_path):
    run_dir = shutil.copytree(finished_run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "figures"))
    (run_dir / "config.json").write_text('{"arch": ')
    copy = publish(run_dir, tmp_path / "copy")
    assert (copy / "config.json").read_bytes() == (finished_run / "config.json").read_bytes()


def test_a_study_runs_on_a_copy_and_adds_to_its_records(finished_run, tmp_path):
    copy = publish(finished_run, tmp_path / "copy", networks=True)
    before = mj.records.load(copy)
    reporter = Reporter(Console(file=io.StringIO()))
    mj.runs.study("confusion", run_dir=copy, samples=20, command="test", reporter=reporter)
    after = mj.records.load(copy)
    added = after[after["quantity"].isin(["transfer_accuracy", "agreement"])]
    assert len(added)
    pd.testing.assert_frame_equal(after.iloc[: len(before)], before)


def test_the_committed_networks_have_the_accuracy_of_their_records():
    run_dir = Path(__file__).parents[2] / "experiments" / "results" / "networks" / "shapetex-cnn"
    recorded = read(run_dir).select_final(quantity="accuracy", image_set="test", inputs="clean").query("n == 1000")
    test = mj.data.load("shapetex").test
    images, labels = fixed_sample(test.images, test.labels, 1000)
    for training, expected in zip(recorded["training"], recorded["value"], strict=True):
        found = restore_finished(run_dir, training=training)
        _, accuracy = accuracy_of(found.network, found.variables, images, labels)
        assert accuracy == pytest.approx(expected, abs=0.005)
    assert list(recorded["training"]) == ["nt", "at"]
