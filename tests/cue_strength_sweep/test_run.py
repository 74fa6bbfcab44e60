"""A tiny sweep from command to figure: it resumes cell by cell with the same numbers, and its statistics are right."""

import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats
from scipy.spatial.distance import cdist

from mi_jax import records
from mi_jax.cue_strength_sweep import cell
from mi_jax.cue_strength_sweep import run as sweep
from mi_jax.cue_strength_sweep.cell import cell_sets, measure_cell, network_of, trainer_of
from mi_jax.cue_strength_sweep.figure import _p_value, cells_of, contrast
from mi_jax.cue_strength_sweep.run import Cell, Sweep
from mi_jax.data.shapetex import SHAPES, ShapeTex, scene
from mi_jax.data.shapetex.shapes import mask
from mi_jax.errors import InputError
from mi_jax.records import run_records
from mi_jax.records.table import Record
from mi_jax.report import figures
from mi_jax.runs.opening import open_run
from mi_jax.runs.progress import Reporter
from mi_jax.runs.publish import publish
from mi_jax.training import Interrupted


class WeaklyAttacked(Sweep):
    """A sweep whose networks are evaluated under two steps of its attack."""

    def strong_attack(self, norm):
        return replace(super().strong_attack(norm), steps=2)


TINY = WeaklyAttacked(
    rho_shape=(2.0,),
    rho_texture=(1.0, 2.0),
    norms=("linf",),
    noise_training=False,
    seeds=2,
    coarse="none",
    arch="lenet",
    width=0.25,
    n_train=200,
    epochs=2,
    clean_epochs=1,
    batch_size=50,
    learning_rate=1e-2,
    steps=1,
    samples=100,
    restarts=1,
)


def rows_of(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "records.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep that was stopped after its first cell and went on, and what it wrote before it went on."""
    run_dir = tmp_path_factory.mktemp("sweep") / "stopped"
    said = io.StringIO()
    console = Console(file=said, width=200)
    with pytest.raises(Interrupted):
        sweep.run(TINY, run_dir=run_dir, reporter=Reporter(console), stop_asked=(run_dir / "records.jsonl").exists)
    first = rows_of(run_dir)
    # What a kill while rows were being written leaves behind.
    with (run_dir / "records.jsonl").open("a") as file:
        file.write('{"run": "rho_shape=2,rho_texture=2,fine", "training": "nt", "quanti')
    sweep.run(TINY, run_dir=run_dir, reporter=Reporter(console))
    return run_dir, first, said.getvalue()


def test_a_stopped_sweep_keeps_its_finished_cell_and_does_only_the_others(swept):
    run_dir, first, said = swept
    rows = rows_of(run_dir)
    assert {row["cell"] for row in first} == {"rho_shape=2,rho_texture=1,fine"}
    assert rows[: len(first)] == first
    assert {row["cell"] for row in rows[len(first) :]} == {"rho_shape=2,rho_texture=2,fine"}
    assert said.count("rho_texture=1,fine: shape bias") == said.count("rho_texture=2,fine: shape bias") == 1
    assert "cell 1/2" in said
    assert "cell 2/2" in said


@pytest.mark.slow
def test_a_cell_gives_the_same_records_wherever_and_whenever_it_is_done(swept):
    run_dir, _, _ = swept
    network = network_of(TINY)
    alone = list(measure_cell(TINY, Cell(2.0, 2.0, "fine"), network))
    last = [row for row in rows_of(run_dir) if row["cell"] == "rho_shape=2,rho_texture=2,fine"]
    keys = ("training", "seed", "epoch", "quantity", "inputs", "image_set", "value", "stderr")
    assert [tuple(getattr(row, key) for key in keys) for row in alone] == [
        tuple(r.get(key) for key in keys) for r in last
    ]


def test_every_network_and_control_has_its_rows(swept):
    found = run_records.read(swept[0])
    assert set(found.trainings) == {"untrained", "nt", "at-linf", "matched-linf"}
    for quantity, image_set, inputs in (
        ("shape_bias", "conflict", "clean"),
        ("shape_bias", "conflict_swapped", "clean"),
        ("accuracy", "test", "clean"),
        ("i_t_shape", "factorial", "clean"),
        ("i_t_texture", "factorial", "clean"),
        ("i_t_shuffled", "factorial", "clean"),
    ):
        assert len(found.select(quantity=quantity, image_set=image_set, factor=None, inputs=inputs)) == 2 * 4 * 2
    attacked = found.select(quantity="accuracy", inputs="adversarial")
    assert set(attacked["training"]) == {"nt", "at-linf"}
    shuffled = found.select(quantity="i_t_shuffled")
    assert (shuffled["value"] <= 4 * shuffled["stderr"] + 1e-6).all()
    untrained = found.select(quantity="accuracy", inputs="clean", training="untrained")["value"]
    trained = found.select(quantity="accuracy", inputs="clean", training="nt")["value"]
    assert trained.mean() > untrained.mean()


def test_a_matched_network_is_as_accurate_as_its_snapshots_allow(swept):
    accuracy = run_records.read(swept[0]).select(quantity="accuracy", inputs="clean", image_set="test")
    values = accuracy.set_index(["training", "cell", "seed"])["value"]
    for run, seed in values.loc["nt"].index:
        adversarial = values["at-linf", run, seed]
        ends = [values["untrained", run, seed], values["nt", run, seed]]
        assert abs(values["matched-linf", run, seed] - adversarial) <= min(abs(end - adversarial) for end in ends)


def test_the_figure_shows_the_sweep(swept):
    assert (swept[0] / "figures" / "cue_strength_sweep.png").exists()
    found = run_records.read(swept[0])
    (spec,) = [spec for spec in figures.available(found) if spec.name == "cue_strength_sweep"]
    assert "2 seeds" in spec.caption(found)
    cells = pd.concat([contrast(cells_of(found), "at-linf", baseline) for baseline in ("nt", "matched-linf")])
    shown = [text.get_text() for axes in spec.draw(found).axes for text in axes.texts]
    assert shown.count("not learnt") == cells["failed"].sum()
    for each in cells[~cells["failed"]].itertuples():
        assert any(text.startswith(f"{each.before:.2f} → {each.after:.2f}") for text in shown)


def test_the_report_of_a_sweep_shows_it_in_a_process_that_has_not_run_one(swept, tmp_path):
    copy = shutil.copytree(swept[0], tmp_path / "copy", ignore=shutil.ignore_patterns("figures"))
    main = "from mi_jax.cli.report import main; main([__import__('sys').argv[1]], program='report')"
    subprocess.run([sys.executable, "-c", main, str(copy)], check=True, capture_output=True)
    assert (copy / "figures" / "cue_strength_sweep.png").exists()


def test_half_of_any_number_of_samples_is_held_out(monkeypatch):
    seen = []
    monkeypatch.setattr(
        cell.information, "probe_layer", lambda t, first, held, last, **_: seen.append((len(t), len(held)))
    )
    odd = replace(TINY, samples=149)
    _, sets = cell_sets(odd, odd.cells[0])
    network = network_of(odd)
    with pytest.raises(AttributeError, match="records"):
        cell.measure(odd, network, network.init(jax.random.key(0)), sets, 0, ())
    assert seen[0][0] == seen[0][1]


def test_a_finished_sweep_does_nothing_again_and_another_is_refused(swept, quiet):
    run_dir = swept[0]
    before = {name: (run_dir / name).read_bytes() for name in ("records.jsonl", "provenance.json", "progress.json")}
    sweep.run(TINY, run_dir=run_dir, reporter=quiet)
    assert {name: (run_dir / name).read_bytes() for name in before} == before
    with pytest.raises(InputError, match=r"another configuration .*seeds was 2, now 4"):
        sweep.run(replace(TINY, seeds=4), run_dir=run_dir, reporter=quiet)


def test_cells_of_other_sweeps_are_taken_and_only_the_rest_is_done(swept, tmp_path, quiet, monkeypatch):
    row = Record(quantity="shape_bias", value=0.5, training="nt", seed=0, image_set="conflict", inputs="clean")
    done = []

    def measure(sweep, cell, network, **_):
        done.append(cell.name)
        return [replace(row, cell=cell.name)]

    monkeypatch.setattr(sweep, "measure_cell", measure)
    monkeypatch.setattr(sweep, "draw", lambda run_dir: run_dir)
    grid = replace(TINY, rho_shape=(4.0, 2.0))
    sweep.run(grid, run_dir=tmp_path / "whole", cells_from=[swept[0], swept[0]], reporter=quiet)
    assert done == ["rho_shape=4,rho_texture=1,fine", "rho_shape=4,rho_texture=2,fine"]
    rows = rows_of(tmp_path / "whole")
    assert [row.pop("run") for row in rows] == ["whole"] * len(rows)
    taken, new = rows[2:], rows[:2]
    assert [row["value"] for row in new] == [0.5, 0.5]
    unlike = ("run", "crc")
    assert [{k: v for k, v in row.items() if k not in unlike} for row in taken] == [
        {k: v for k, v in row.items() if k not in unlike} for row in rows_of(swept[0])
    ]
    sweep.run(grid, run_dir=tmp_path / "whole", reporter=quiet)
    assert len(done) == 2


def test_the_cells_of_a_published_sweep_give_its_figure_again(swept, tmp_path, quiet, monkeypatch):
    copy = publish(swept[0], tmp_path / "copy")
    before = {file.name: file.read_bytes() for file in copy.iterdir()}
    monkeypatch.setattr("mi_jax.cue_strength_sweep.run.measure_cell", None)
    sweep.run(TINY, run_dir=tmp_path / "again", cells_from=[copy], reporter=quiet)
    tables = [cells_of(run_records.read(path)) for path in (swept[0], tmp_path / "again")]
    columns = ["cell", "training", "seed", "bias", "accuracy"]
    pd.testing.assert_frame_equal(*(table[columns] for table in tables), atol=1e-6)
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == before


def test_in_l2_a_shape_is_nearer_to_another_than_a_texture_of_the_same_amplitude():
    """So that an L2 attacker changes a shape more easily. In units of the amplitude times the root of the pixels."""
    nominal = {"shift": jnp.zeros(2), "angle": jnp.float32(0), "scale": jnp.float32(1)}
    masks = np.stack([mask(jnp.int32(k), **nominal) for k in range(len(SHAPES))])
    drawn = scene(ShapeTex(n_test=200), "factorial")
    kinds = np.asarray(drawn.factors["texture"])
    for fields, labels, nearest in (
        (2 * masks - 1, np.arange(len(SHAPES)), 0.50),
        (np.asarray(drawn.texture), kinds, 1.20),
    ):
        flat = fields.reshape(len(fields), -1)
        distances = cdist(flat, flat) / flat.shape[1] ** 0.5
        others = np.where(labels[:, None] == labels, np.inf, distances)
        assert others.min(axis=1).mean() == pytest.approx(nearest, abs=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 3}, "cells with other settings .epochs was 2, now 3.; expected .* only in its grid"),
        (None, "missing"),
    ],
)
def test_cells_of_other_settings_are_refused_before_anything_is_written(swept, tmp_path, quiet, change, message):
    place = swept[0] if change else tmp_path / "nowhere"
    with pytest.raises(InputError, match=message):
        sweep.run(replace(TINY, **(change or {})), run_dir=tmp_path / "new", cells_from=[place], reporter=quiet)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("rows", r"records.jsonl has \d+ bytes, but \d+ had been written; restore the file from a copy"),
        ("cell", "counts the cell rho_shape=2,rho_texture=2,fine as finished, but holds no record of it; restore"),
        ("progress", "progress.json is missing or damaged, so which cells are finished is not known"),
    ],
)
def test_a_finished_cell_that_lost_its_records_is_not_taken(tmp_path, quiet, lost, message):
    place, names = tmp_path / "lossy", [cell.name for cell in TINY.cells]
    with open_run(place, TINY) as directory:
        for name in names:
            rows = [Record(quantity="shape_bias", value=0.5, cell=name, seed=seed) for seed in range(2)]
            written = [] if lost == "cell" and name == names[1] else rows
            directory.stage(name, lambda written=written: records.append(place, written))
    if lost == "rows":
        path = place / "records.jsonl"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    if lost == "progress":
        (place / "progress.json").write_text("{")
    with pytest.raises(InputError, match=message):
        sweep.run(TINY, run_dir=tmp_path / "new", cells_from=[place], reporter=quiet)
    assert not (tmp_path / "new").exists()


def test_a_stop_is_honoured_before_each_measurement_and_in_the_first_epochs(monkeypatch):
    done: list[str] = []

    def measure(*_):
        done.append("measure")
        return []

    def advance(trainer, state, *_):
        done.append("advance")
        return state

    sets = cell_sets(TINY, TINY.cells[0])
    monkeypatch.setattr(cell, "cell_sets", lambda *_: sets)
    monkeypatch.setattr(cell, "measure", measure)
    monkeypatch.setattr(cell, "evaluate", lambda *_: (0.0, 0.5))
    monkeypatch.setattr(cell, "fit", lambda trainer, state, *_, **__: state)
    monkeypatch.setattr(cell.Trainer, "advance", advance)
    network, whole = network_of(TINY), ["measure", *["advance"] * 4, "measure"]
    for number in range(len(whole) + 1):
        done.clear()
        answers = iter([False] * number + [True])
        with pytest.raises(Interrupted):
            list(measure_cell(TINY, TINY.cells[0], network, stop_asked=lambda answers=answers: next(answers)))
        assert done == whole[:number]


def test_all_trainings_of_a_seed_start_from_the_same_weights():
    network = network_of(TINY)
    images = jnp.zeros((4, 32, 32, 3), jnp.uint8)
    starts = [
        trainer_of(TINY, network, objective, norm, (1,)).init(images)["variables"]
        for _, objective, norm in Sweep().trainings
    ]
    for start in starts[1:]:
        jax.tree.map(np.testing.assert_array_equal, starts[0], start)


def test_cells_differ_in_amplitude_alone_and_swapping_exchanges_the_cues():
    low, high = (cell_sets(TINY, Cell(rho, 1.0, "fine"))[1] for rho in (1.0, 2.0))
    for name in low:
        for factor in ("shape", "texture"):
            np.testing.assert_array_equal(low[name].factors[factor], high[name].factors[factor])
    away = np.abs(high["conflict"].images.astype(int) - 127.5).mean()
    # Shape at 16/255 and texture at 8/255 either add up or nearly cancel, whichever of them is larger.
    assert away == pytest.approx(np.abs(high["conflict_swapped"].images.astype(int) - 127.5).mean(), rel=0.05)
    np.testing.assert_array_equal(low["conflict"].images, low["conflict_swapped"].images)
    assert (high["conflict"].images != high["conflict_swapped"].images).mean() > 0.3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rho_shape": ()}, "rho_shape"),
        ({"rho_texture": (1.0, 1.0)}, "each once"),
        ({"rho_shape": (0.0,)}, "positive"),
        ({"rho_shape": (16.0,)}, "0.5"),
        ({"rho_shape": (1.0000001, 1.0000002)}, "Invalid rho_shape .* differ in their first six digits"),
        ({"seeds": 0}, "seeds"),
        ({"seeds": 10**9}, "^Invalid seeds 1000000000: expected a whole number of at most 10000"),
        ({"learning_rate": float("nan")}, r"^Invalid learning_rate nan: expected a positive number, such as 0.003"),
        ({"learning_rate": -1.0}, "^Invalid learning_rate -1.0"),
        ({"batch_size": 2001}, r"^Invalid batch_size 2001: expected a number in \[1, 2000\]"),
        ({"clean_epochs": 10}, "0 to 9"),
        ({"samples": 50}, "100"),
        ({"eps": 0.0}, "eps"),
    ],
)
def test_a_sweep_that_cannot_be_done_is_refused_in_words(wrong, message):
    with pytest.raises(InputError, match=message):
        Sweep(**wrong)


def test_a_sweep_whose_trainings_diverge_ends_with_a_sentence(tmp_path, quiet, monkeypatch):
    wild = replace(TINY, rho_texture=(2.0,), learning_rate=1e30, clean_epochs=0, batch_size=200)  # one update an epoch
    place = tmp_path / os.fsdecode(b"caf\xe9")
    for _ in range(2):
        with pytest.raises(InputError, match=r"nothing to compare: every adversarial training .* diverged"):
            sweep.run(wild, run_dir=place, reporter=quiet)
    found = records.load(place)
    assert set(found["run"]) == {"caf\\udce9"}
    failed = found[~found["ok"]]
    assert set(failed["training"]) == {"nt", "at-linf"}
    assert failed["note"].str.contains("not finite|nan").all()
    assert set(found[found["ok"]]["training"]) == {"untrained"}


@pytest.mark.parametrize("strength", [1e-5, 0.125, 1.0])
def test_cells_of_any_strength_are_shown(tmp_path, strength):
    gap = ([0.1, 0.2], [0.5, 0.7])
    (row,) = contrast(cells_of(_evidence(tmp_path, {(strength, 2.0): gap})), "at-linf", "nt").to_dict("records")
    assert (row["rho_shape"], row["rho_texture"], row["mean"]) == (strength, 2.0, pytest.approx(0.45))


def _evidence(tmp_path: Path, biases: dict[tuple[float, float], tuple[list[float], list[float]]], accuracy=(1.0,) * 4):
    """Records of a sweep: biases of NT and of AT by cell, and clean accuracies of AT by seed."""
    tmp_path.mkdir(exist_ok=True)
    rows = []
    for (shape, texture), pair in biases.items():
        for training, values in zip(("nt", "at-linf"), pair, strict=True):
            for seed, value in enumerate(values):
                where = {"cell": Cell(shape, texture, "fine").name, "training": training, "seed": seed, "epoch": 1.0}
                where |= {"inputs": "clean", "n": 100}
                rows.append(Record(quantity="shape_bias", value=value, image_set="conflict", **where))
                reached = accuracy[seed] if training == "at-linf" else 1.0
                rows.append(Record(quantity="accuracy", value=reached, image_set="test", **where))
    records.append(tmp_path, rows)
    return run_records.read(tmp_path)


def test_a_cells_difference_is_a_paired_t_test(tmp_path):
    before, after = [0.3, 0.4, 0.45], [0.1, 0.3, 0.25]
    table = contrast(cells_of(_evidence(tmp_path, {(2.0, 2.0): (before, after)})), "at-linf", "nt")
    expected = stats.ttest_rel(after, before)
    (row,) = table.to_dict("records")
    assert row["mean"] == pytest.approx(expected.statistic * stats.sem(np.subtract(after, before)))
    assert row["p"] == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval()
    assert (row["low"], row["high"]) == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize(
    ("gap", "p"), [([0.0, 0.0, 0.0], 1.0), ([0.3 - 0.2, 0.1, 0.1], 1.0), ([0.1], np.nan), ([1.0, 2.0], 0.2048327647)]
)
def test_differences_without_spread_have_no_standard_error_and_a_single_one_tells_nothing(gap, p):
    assert _p_value(np.array(gap)) == pytest.approx(p, nan_ok=True)


def test_significance_is_corrected_over_cells_and_untrained_cells_take_no_part(tmp_path):
    # p of these paired differences is 0.034: significant alone, not among three (0.05 / 3).
    gap = ([0.5, 0.5, 0.5], [0.4, 0.42, 0.45])
    none = ([0.5, 0.6, 0.4], [0.52, 0.55, 0.43])
    alone = contrast(cells_of(_evidence(tmp_path / "one", {(2.0, 2.0): gap})), "at-linf", "nt")
    assert alone["significant"].tolist() == [True]
    cells = {(1.0, 1.0): none, (1.0, 2.0): none, (2.0, 2.0): gap}
    several = contrast(cells_of(_evidence(tmp_path / "three", cells)), "at-linf", "nt")
    assert alone["p"].iloc[0] == pytest.approx(several["p"].iloc[2])
    assert 0.05 / 3 < alone["p"].iloc[0] < 0.05
    assert several["significant"].tolist() == [False] * 3
    chance = (0.1, 0.1, 1.0)
    failed = contrast(cells_of(_evidence(tmp_path / "failed", {(2.0, 2.0): gap}, chance)), "at-linf", "nt")
    assert failed["failed"].tolist() == [True]
    assert failed["significant"].tolist() == [False]


def test_seeds_that_have_not_learnt_the_task_are_left_out_and_counted(tmp_path):
    gap = ([0.1, 0.2, 0.3, 0.9], [0.5, 0.7, 0.9, 0.5])
    found = _evidence(tmp_path, {(2.0, 2.0): gap}, (1.0, 0.2, 0.9, 0.19))
    (row,) = contrast(cells_of(found), "at-linf", "nt").to_dict("records")
    assert (row["mean"], row["before"], row["after"]) == pytest.approx((0.5, 0.2, 0.7))
    assert (row["seeds"], row["left_out"], row["failed"]) == (3, 1, False)
    (spec,) = [spec for spec in figures.available(found) if spec.name == "cue_strength_sweep"]
    assert "0.20 → 0.70\n3 seeds" in [text.get_text() for axes in spec.draw(found).axes for text in axes.texts]


def test_one_seed_that_has_learnt_the_task_is_counted_in_words(tmp_path):
    found = _evidence(tmp_path, {(2.0, 2.0): ([0.1, 0.9], [0.5, 0.5])}, (1.0, 0.1))
    (spec,) = [spec for spec in figures.available(found) if spec.name == "cue_strength_sweep"]
    assert "0.10 → 0.50\n1 seed" in [text.get_text() for axes in spec.draw(found).axes for text in axes.texts]


def test_coarse_textures_are_shown_in_a_sweep_without_the_control_of_gaussian_noise(tmp_path):
    found = _evidence(tmp_path, {(2.0, 2.0): ([0.1, 0.2], [0.5, 0.7])})
    coarse = found.records.assign(cell="rho_shape=2,rho_texture=2,coarse")
    found = replace(found, records=pd.concat([found.records, coarse]))
    (spec,) = [spec for spec in figures.available(found) if spec.name == "cue_strength_sweep"]
    assert "Control: coarse textures" in [axes.get_title(loc="left") for axes in spec.draw(found).axes]


def test_a_sweep_that_its_batch_job_starts_again_keeps_its_cells_in_spite_of_overwrite(tmp_path, quiet, monkeypatch):
    begun = []

    def one_row(sweep, cell, *_, **__):
        begun.append(cell.name)
        if len(begun) == 2:
            raise Interrupted
        yield Record(quantity="accuracy", value=0.5, cell=cell.name)

    monkeypatch.setattr(sweep, "measure_cell", one_row)
    monkeypatch.setattr(sweep, "draw", lambda run_dir: run_dir)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    with pytest.raises(Interrupted):
        sweep.run(TINY, run_dir=tmp_path / "run", reporter=quiet, overwrite=True)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    sweep.run(TINY, run_dir=tmp_path / "run", reporter=quiet, overwrite=True)
    first, second = (cell.name for cell in TINY.cells)
    assert begun == [first, second, second]
