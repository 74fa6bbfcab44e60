"""Tables that survive an interruption, coverage that is counted rightly, and figures for what is there."""

import math

import numpy as np
import pandas as pd
import pytest

from mi_jax.errors import InputError
from mi_jax.validation import CoveragePlan, Plan, Validation, coverage, run, validate

TINY = Validation(
    plan=Plan(sizes=(40,), dimensions=(2,), repeats=1, slow_repeats=0, task_rows=0),
    coverage=CoveragePlan(sizes=(40,), dimensions=(2,), classes=(2,), noise=(0.5, 4.0), repeats=12),
)


def test_intervals_that_hold_the_reference_are_counted():
    values, errors = np.array([[0.0], [1.9], [2.1], [-5.0]]), np.ones((4, 1))
    got = coverage._judge(values, errors, np.zeros(1), np.zeros(1))
    assert got["covered"] == 2
    assert got["half_width"] == pytest.approx(1.96 / math.log(2))
    wide = coverage._judge(values, errors, np.zeros(1), np.ones(1))  # an uncertain reference widens the interval
    assert wide["covered"] == 3


def test_a_second_command_goes_on_and_draws_the_same(tmp_path):
    folder = tmp_path / "new" / "validation"
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
    assert len(counted) == 2 * 2 * 2  # claims, quantities, noise levels
    assert (counted["covered"] <= counted["repeats"]).all()
    assert (counted["covered"] >= 8).all()
    for name in ("validation_input", "validation_label", "monte_carlo_coverage"):
        assert (folder / f"{name}.png").stat().st_size > 5000


def test_a_file_in_the_place_of_the_directory_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made a directory"):
        validate.run(TINY, folder=tmp_path / "file")
