"""Intervals: the numbers of textbooks, and seeds as the only independent thing."""

import math

import numpy as np
import pandas as pd
import pytest

from mi_jax.statistics.intervals import accuracy_over_seeds, over_seeds, t_interval, wilson


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


def accuracies(values, n, **columns):
    """Rows of accuracies, one a seed."""
    unknown, n = pd.array([None] * len(values), dtype="boolean"), pd.array([n] * len(values), dtype="Int64")
    return pd.DataFrame({"seed": range(len(values)), "value": values, "n": n, "saturated": unknown, **columns})


def test_the_errors_of_accuracies_over_seeds_and_images_add_as_squares():
    table = accuracy_over_seeds(accuracies([0.7, 0.8, 0.9], 100, training="nt"), ["training"])
    half = t_interval([0.7, 0.8, 0.9]).high - 0.8
    low, high = wilson(0.8, 100)
    ends = (0.8 - math.hypot(half, 0.8 - low), 1.0)
    assert table.loc[0, ["low", "high"]].tolist() == pytest.approx(ends)
    assert 0.8 + math.hypot(half, high - 0.8) > 1
    for values, n, expected in (
        ([0.8], 100, wilson(0.8, 100)),
        ([0.79, 0.8, 0.81], None, t_interval([0.79, 0.8, 0.81])[1:3]),
    ):
        table = accuracy_over_seeds(accuracies(values, n, training="nt"), ["training"])
        assert table.loc[0, ["low", "high"]].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_interval_of_an_accuracy_covers_it_in_95_per_cent_where_both_errors_are_equal(seeds):
    runs, n, rate = 1000, 400, 0.8
    rng = np.random.default_rng(0)
    of_images = math.sqrt(rate * (1 - rate) / n)
    values = rate + of_images * (rng.normal(size=(runs, 1)) + math.sqrt(seeds) * rng.normal(size=(runs, seeds)))
    rows = accuracies(values.ravel(), n, run=np.repeat(np.arange(runs), seeds))
    table = accuracy_over_seeds(rows, ["run"])
    covered = ((table["low"] <= rate) & (rate <= table["high"])).mean()
    assert 0.95 <= covered <= 0.98
