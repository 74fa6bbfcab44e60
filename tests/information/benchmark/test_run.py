"""The benchmark as a job: coverage counts, resuming after an interruption, and figures."""

import math
import sys

import numpy as np
import pandas as pd
import pytest

from mi_jax.errors import InputError
from mi_jax.information import tasks
from mi_jax.information.benchmark import BenchmarkConfig, CoveragePlan, ScoresPlan, coverage, figure
from mi_jax.information.benchmark.figure import draw_coverage
from mi_jax.information.benchmark.run import _done, run

TINY = BenchmarkConfig(
    scores=ScoresPlan(sizes=(40,), dimensions=(2,), repeats=1, slow_repeats=0, task_rows=0),
    coverage=CoveragePlan(
        sizes=(40,), dimensions=(2,), classes=(2,), noise=(0.5, 4.0), repeats=12, draws=4, reference_draws=64
    ),
)


NEVER = np.zeros((4, 1), bool)


def test_intervals_that_contain_the_reference_are_counted():
    values, errors = np.array([[0.0], [1.9], [2.1], [-5.0]]), np.ones((4, 1))
    got = coverage._covered(values, errors, np.zeros(1), np.zeros(1), NEVER)
    assert got["covered"] == 2
    assert got["half_width"] == pytest.approx(1.9599639845 / math.log(2))
    wide = coverage._covered(
        values, errors, np.zeros(1), np.ones(1), NEVER
    )  # an uncertain reference widens the interval
    assert wide["covered"] == 3
    student = coverage._covered(values, errors, np.zeros(1), np.zeros(1), NEVER, degrees=19)
    assert student["covered"] == 2
    assert student["half_width"] == pytest.approx(2.0930240544 / math.log(2))


def test_intervals_for_new_rows_of_unequal_classes_cover_the_reference():
    """With blocks stratified by class, only 31 of the intervals would contain I(T;Y)."""
    plan = CoveragePlan(repeats=40, draws=2)
    found = coverage._new_rows((240, 2, 2, "unequal"), np.array([0.02]), plan)["rows"]
    assert found["i_tx"]["covered"] >= 36
    assert found["i_ty"]["covered"] >= 36


def test_population_information_of_a_cell_is_that_of_its_closed_forms():
    """Without a class structure the channel's; with two classes on a line the binary channel's beside it."""
    variances = np.array([0.5, 2.0])
    same = coverage.population_information((10, 3, 2, "equal"), variances, draws=4096)
    p, means, deviation = coverage._classes((10, 3, 2, "equal"))
    half = np.linalg.norm(means[1] - means[0]) / 2
    assert (p == 0.5).all()
    for i, v in enumerate(variances):
        binary = tasks.amplitude_channel(np.array([-half, half]), 1 + v)
        value, error = (part[i] for part in same["i_ty"])
        assert abs(value - binary) < 4 * error < 0.05
        assert same["i_tx"][0][i] == pytest.approx(value + tasks.gaussian_channel(3, v), abs=1e-9)
    assert (deviation == 1).all()


def test_bracket_intervals_cover_the_population_where_plug_in_intervals_miss_it_and_are_flagged():
    plan = CoveragePlan(repeats=20, draws=2)
    found = coverage._new_rows((60, 32, 2, "equal"), np.array([4.0]), plan)
    for quantity, most in (("i_tx", 0), ("i_ty", 17)):
        plug_in, bracket = (found[claim][quantity] for claim in ("population", "bracket"))
        assert plug_in["covered"] <= most
        assert plug_in["flagged"] >= 19
        assert bracket["covered"] == 20


def test_noise_levels_of_a_repeat_do_not_count_as_separate_trials():
    part = pd.DataFrame(
        {"covered": [95, 95, 95, 95], "repeats": [100] * 4, "noise": [1.0, 2.0] * 2, "claim": "rows", "flagged": 0}
    )
    assert figure._pooled(part) == "95.0% covered in 200 repeats (91.0% to 97.3%)"


def test_an_interrupted_benchmark_resumes_with_the_same_results(tmp_path, monkeypatch):
    folder = tmp_path / "new" / "benchmark"
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[run.__module__], "draw", lambda _: [])
        first = run(TINY, folder=folder)
    whole = (folder / "scores.csv").read_text()
    lines = whole.splitlines(keepends=True)
    (folder / "scores.csv").write_text("".join(lines[:-3]))
    (folder / "coverage.csv").unlink()
    second = run(TINY, folder=folder)
    drop = ["seconds"]
    pd.testing.assert_frame_equal(first.drop(columns=drop), second.drop(columns=drop))
    assert len(pd.read_csv(folder / "scores.csv")) == len(lines) - 1
    counted = pd.read_csv(folder / "coverage.csv")
    assert len(counted) == 2 * 4 * 2 * 2  # mixes of classes, claims, quantities, noise levels
    assert set(counted["draws"]) == {4}
    assert (counted["covered"] <= counted["repeats"]).all()
    kept = counted[counted["claim"] != "population"]  # whose intervals may be biased, if they are flagged
    assert (kept["covered"] >= 7).all()
    assert "| KSG |" in (folder / "trust.md").read_text()
    for name in ("estimator_benchmark_input", "estimator_benchmark_label", "monte_carlo_coverage"):
        assert (folder / f"{name}.png").exists()
    texts = {text.get_text() for axes in draw_coverage(counted).axes for text in axes.texts}
    assert {f"{100 * share:.0f}" for share in counted["covered"] / counted["repeats"]} <= texts


def test_a_table_of_another_version_is_refused(tmp_path):
    (tmp_path / "coverage.csv").write_text("n,dimension,classes\n40,2,2\n")
    with pytest.raises(InputError, match="no column 'mix'"):
        _done(tmp_path / "coverage.csv", coverage.KEYS, newest="flagged")
    (tmp_path / "coverage.csv").write_text("n,dimension,classes,mix\n40,2,2,equal\n")
    with pytest.raises(InputError, match="no column 'flagged'"):
        _done(tmp_path / "coverage.csv", coverage.KEYS, newest="flagged")


@pytest.mark.parametrize("content", [b"\n", b"\xff\xfe\n", b"n,dimension\n1,2\n1,2,3\n"])
def test_a_damaged_table_is_named(content, tmp_path):
    (tmp_path / "scores.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"scores.csv is damaged \(.*\); restore it, or choose a new directory"):
        _done(tmp_path / "scores.csv", coverage.KEYS, newest="flagged")


def test_a_file_in_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; expected a directory"):
        run(TINY, folder=tmp_path / "file")
