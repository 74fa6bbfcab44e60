"""Intervals: the numbers of textbooks, and seeds as the only independent thing."""

import math

import numpy as np
import pandas as pd
import pytest

from mi_jax.statistics.intervals import over_seeds, t_interval, wilson


def test_t_interval_of_three_values_by_hand():
    mean, low, high, count = t_interval([1.0, 2.0, 3.0])
    half = 4.30265272974946 / math.sqrt(3)
    assert (mean, count) == (2.0, 3)
    assert (low, high) == pytest.approx((2 - half, 2 + half), abs=1e-12)


def test_one_value_has_no_interval_and_none_has_no_mean():
    assert t_interval([5.0])[0] == 5.0
    assert np.isnan(t_interval([5.0, math.nan])[1:3]).all()
    assert t_interval([5.0, math.nan]).count == 1
    assert np.isnan(t_interval([])[:3]).all()


@pytest.mark.parametrize(("hits", "n", "expected"), [(0, 10, (0.0, 0.27753)), (81, 263, (0.25530, 0.36620))])
def test_wilson_against_newcombe_1998(hits, n, expected):
    assert wilson(hits / n, n) == pytest.approx(expected, abs=1e-4)


def test_repeated_rows_of_one_seed_do_not_narrow_the_interval():
    rows = pd.DataFrame(
        {
            "layer": "a",
            "seed": [0, 0, 0, 1],
            "value": [1.0, 1.0, 1.0, 3.0],
            "saturated": [None, True, None, None],
            "n": 7,
        }
    )
    rows["saturated"] = rows["saturated"].astype("boolean")
    table = over_seeds(rows, ["layer"])
    expected = t_interval([1.0, 3.0])
    assert table.loc[0, ["mean", "low", "high"]].tolist() == pytest.approx(list(expected[:3]))
    assert table.loc[0, ["seeds", "saturated", "n"]].tolist() == [2, True, 7]


def test_the_values_of_the_seeds_stay_with_their_group_and_the_interval_with_what_is_possible():
    rows = pd.DataFrame(
        {
            "layer": ["b", "a", "b", "a", None],
            "seed": [1, 0, 0, 1, 0],
            "value": [0.9, 0.1, 0.5, 0.2, 0.7],
            "saturated": pd.array([None] * 5, dtype="boolean"),
            "n": 7,
        }
    )
    table = over_seeds(rows, ["layer"], within=(0.0, 1.0))
    assert [tuple(map(float, values)) for values in table["values"]] == [(0.1, 0.2), (0.5, 0.9), (0.7,)]
    assert table.loc[:1, "low"].tolist() == [0.0, 0.0]
    assert table.loc[:1, "high"].tolist() == pytest.approx([t_interval([0.1, 0.2]).high, 1.0])
    assert over_seeds(rows.iloc[:0], ["layer"]).empty
