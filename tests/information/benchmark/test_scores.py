"""Scores of known estimates, failures as rows, and tasks of the benchmark."""

import math

import jax
import numpy as np
import pandas as pd
import pytest

from mi_jax import information
from mi_jax.information import Estimate, monte_carlo
from mi_jax.information.benchmark import ScoresPlan, figure, known_tasks, score, scores
from mi_jax.information.benchmark.scores import KEYS, attempts, grid_task, held, summary
from mi_jax.information.benchmark.trust import trust, trust_page

TINY = ScoresPlan(sizes=(40,), dimensions=(2,), repeats=2, slow_repeats=1, task_rows=0)


@pytest.fixture(scope="module")
def rows():
    return pd.DataFrame(score(TINY))


def test_every_estimator_has_a_row_for_every_target_it_supports(rows):
    for target in ("input", "label", "continuous"):
        assert set(rows[rows["target"] == target]["estimator"]) == set(information.estimators_for(target))
    assert not rows.duplicated(list(KEYS)).any()


def test_failures_are_rows_with_their_reason(rows):
    failed = rows[~rows["ok"]]
    assert set(failed["estimator"]) == {"infonce", "nwj", "smile"}  # 40 rows are less than four batches
    assert failed["note"].str.contains("give a smaller batch").all()
    assert failed["value"].isna().all()


def test_values_are_in_bits_of_the_same_estimate(rows):
    task = grid_task("label", 2)
    t, y = task.sample(40, 0)
    want = monte_carlo(t, y, noise_variance=0.5, key=jax.random.key(0))
    row = rows.query("estimator == 'monte_carlo' and target == 'label' and seed == 0").iloc[0]
    assert row["value"] == pytest.approx(want.i_ty / math.log(2))
    assert row["error"] == pytest.approx(want.i_ty_sampling_error / math.log(2))
    assert row["truth"] == pytest.approx(0.5)


def test_completed_attempts_are_left_out(rows):
    done = set(rows[list(KEYS)].itertuples(index=False, name=None))
    assert list(score(TINY, done=done)) == []
    assert [r["estimator"] for r in score(TINY, done=done - {("grid", "two-normals-d2", 40, "ksg", 0)})] == ["ksg"]


@pytest.mark.parametrize("target", ["input", "label", "continuous"])
def test_tasks_of_the_grid_have_the_same_information_at_every_dimension(target):
    for d in (1, 8, 64):
        task = grid_task(target, d)
        assert task.dimension == d
        assert task.information / math.log(2) == pytest.approx(scores.GRID_INFORMATION[target], abs=1e-9)


def test_whether_an_estimate_holds_depends_on_its_kind():
    def verdict(kind, value, stderr, **details):
        return held(Estimate("x", value, stderr, kind, 10, {}, details), 1.0)

    assert verdict("value", 1.15, 0.1) is True
    assert verdict("value", 1.25, 0.1) is False
    assert verdict("value", 1.25, 0.1, sampling_error=0.2) is True
    assert verdict("value", 1.205, 0.1) is False
    assert verdict("value", 1.205, 0.1, degrees_of_freedom=19.0) is True  # Student's t: 2.09 in place of 1.96
    assert verdict("value", 1.215, 0.1, degrees_of_freedom=19.0) is False
    assert verdict("value", 1.0, None) is None
    assert verdict("lower", 1.1, 0.1) is True
    assert verdict("lower", 1.2, 0.1) is False
    assert verdict("upper", 0.9, None) is False
    assert verdict("upper", 1.0, None) is True
    assert verdict("heuristic", 1.0, 0.1) is None


def test_a_value_that_is_not_finite_and_too_many_samples_are_failures(monkeypatch):
    task = grid_task("continuous", 1)
    nan = Estimate("ksg", math.nan, None, "value", 30, {})
    monkeypatch.setattr(information, "estimate", lambda *_, **__: nan)
    assert scores._attempt("grid", task, 30, "ksg", 0)["note"] == "ArithmeticError: the value is nan"
    assert scores._attempt("grid", task, 4096, "renyi", 0)["note"].startswith("not run above 1024 samples")


def test_a_registered_estimator_is_benchmarked_and_drawn_without_further_changes():
    def zero(t, other, *, key, noise_variance):
        return Estimate("zero", 0.0, None, "lower", len(t), {"noise_variance": noise_variance})

    information.register("zero", targets=("label",), adds_noise=("label",), label="Zero", slow=True, max_samples=40)(
        zero
    )
    try:
        tried = [attempt for attempt in attempts(TINY) if attempt[3] == "zero"]
        row = scores._attempt(*tried[0])
        refused = scores._attempt("grid", grid_task("label", 2), 41, "zero", 0)
        labels = figure._labels(["unknown", "ksg", "zero"])
    finally:
        information.ESTIMATORS.unregister("zero")
    assert len(tried) == TINY.slow_repeats
    assert row["ok"]
    assert row["note"] == "noise variance 0.5"  # that of the task
    assert refused["note"].startswith("not run above 40 samples")
    assert labels == {"zero": "Zero", "ksg": "KSG", "unknown": "unknown"}


def test_summary_has_bias_root_mean_square_error_share_held_and_failures():
    columns = ["suite", "target", "estimator", "truth", "value", "held", "seconds", "ok", "unreliable"]
    table = pd.DataFrame(
        [
            ["grid", "label", "probe", 1.0, 0.5, True, 1.0, True, "dimension"],
            ["grid", "label", "probe", 1.0, 1.1, False, 3.0, True, None],
            ["grid", "label", "probe", 1.0, None, None, None, False, None],
            ["tasks", "label", "probe", 1.0, 9.0, False, 1.0, True, None],
        ],
        columns=columns,
    )
    (row,) = summary(table).to_dict("records")
    assert (row["attempts"], row["failed"], row["held"], row["seconds"]) == (3, 1, 0.5, 2.0)
    assert row["bias"] == pytest.approx(-0.2)
    assert row["rmse"] == pytest.approx(math.sqrt((0.25 + 0.01) / 2))
    assert row["rmse_unflagged"] == pytest.approx(0.1)
    assert row["flagged"] == 0.5


def test_the_verdict_on_an_estimator_depends_on_its_error_its_bounds_and_its_flags():
    cell = {"suite": "grid", "target": "label", "dimension": 2, "n": 100, "truth": 1.0, "ok": True, "held": None}
    cases = {
        "accurate": {"value": 0.9, "kind": "value", "unreliable": "dimension"},
        "bound": {"value": 0.3, "kind": "lower", "held": 1.0},
        "flagged": {"value": 0.1, "kind": "value", "held": 0.0, "unreliable": "dimension"},
        "trivial": {"value": 0.0, "kind": "lower", "held": 1.0},
        "wrong": {"value": 0.1, "kind": "lower", "held": 0.0},
        "failed": {"value": None, "ok": False},
    }
    table = pd.DataFrame([cell | {"estimator": name, "unreliable": None} | case for name, case in cases.items()])
    found = trust(table)
    assert dict(zip(found["estimator"], found["verdict"], strict=True)) == {name: name for name in cases}
    assert "1.5 bits of\nI(X;T), 0.5 bits of I(T;Y)" in trust_page(found)
    assert "| accurate | accurate |" in trust_page(found)
    assert "| estimator | D = 2, N = 100 |" in trust_page(found)


def test_flagged_estimates_of_the_known_tasks_are_recorded_with_their_limit():
    row = scores._attempt("tasks", grid_task("continuous", 32), 200, "ksg", 0)
    assert row["unreliable"] == "dimension"
    assert abs(row["value"] - row["truth"]) > 0.5


def test_an_estimator_that_adds_noise_to_a_task_without_any_is_neither_right_nor_wrong():
    (task,) = [task for task in known_tasks() if task.name == "staircase-5"]
    assert scores._attempt("tasks", task, 200, "kde_upper", 0)["held"] is None
    assert scores._attempt("tasks", task, 200, "probe", 0)["held"] is True


def test_shapetex_tasks_have_ln_10_nats_or_none_where_the_cue_is_erased():
    tasks = {task.name: task for task in known_tasks() if task.name.startswith("shapetex")}
    t, shape = tasks["shapetex-shape"].sample(100, 0)
    assert t.shape == (100, 3072)
    assert sorted(np.bincount(shape)) == [10] * 10
    assert tasks["shapetex-shape"].information == pytest.approx(math.log(10))
    erased, _ = tasks["shapetex-shape-erased"].sample(100, 0)
    assert tasks["shapetex-shape-erased"].information == 0
    assert np.abs(t - 0.5).max() > 20 / 255
    assert np.abs(erased - 0.5).max() < (8 + 6 * 2) / 255  # only texture and noise remain
    names = [task.name for task in known_tasks()]
    assert len(set(names)) == len(names)
    assert len(list(attempts(ScoresPlan(sizes=(), dimensions=(), repeats=0, slow_repeats=0)))) > 200
