"""Monte Carlo values against a dense reference, closed forms and the bounds; their errors against the spread."""

import importlib.util
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from mi_jax.errors import InputError
from mi_jax.information import _mixture, _tiles, kde, monte_carlo, tasks
from mi_jax.information.monte_carlo import default_draws

GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text())
_spec = importlib.util.spec_from_file_location("make_golden", Path(__file__).with_name("make_golden.py"))
assert _spec is not None
assert _spec.loader is not None
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)


@pytest.mark.parametrize("case", reference.GAUSSIANS)
def test_value_agrees_with_the_dense_reference_and_lies_between_the_bounds(case, key):
    seed, n, d, variance = case
    x = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    got = monte_carlo(x, noise_variance=variance, key=key, draws=16)
    want = GOLDEN["mixture"][str(seed)]
    assert abs(got.i_tx - want["value"]) < 4 * np.hypot(got.i_tx_stderr, want["stderr"])
    bounds = kde(x, noise_variance=variance)
    assert bounds.i_tx_lower < got.i_tx < bounds.i_tx_upper


def test_two_atoms_have_the_closed_form_of_the_binary_channel(key):
    x = np.repeat(np.array([[1.0], [-1.0]], np.float32), 100, axis=0)
    y = np.repeat([0, 1], 100)
    exact = [0.3368308203, 0.6327201937, 0.6908988385]
    got = monte_carlo(x, y, noise_variance=[1.0, 0.25, 0.1], key=key, draws=40)
    assert got.i_tx_stderr.max() < 0.01
    assert (np.abs(got.i_tx - exact) < 4 * got.i_tx_stderr).all()
    np.testing.assert_allclose(got.i_ty, got.i_tx, atol=1e-5)  # the label is the atom


def test_several_noise_levels_give_the_values_of_separate_calls(key):
    r = np.random.default_rng(1)
    x, y = r.standard_normal((60, 300)).astype(np.float32), r.integers(0, 3, 60)
    many = monte_carlo(x, y, noise_variance=[1.0, 30.0, 300.0], key=key)
    one = monte_carlo(x, y, noise_variance=30.0, key=key)
    assert one.i_tx == pytest.approx(many.i_tx[1], abs=1e-6)
    assert one.i_ty_sampling_error == pytest.approx(many.i_ty_sampling_error[1], rel=1e-4)


@pytest.mark.parametrize(("kept", "draws"), [(2**20, 2), (0, 2 * 6)])
def test_groups_of_tiles_give_the_sums_of_one_group_and_draw_noise_once_if_it_fits(monkeypatch, key, kept, draws):
    r, calls = np.random.default_rng(4), []
    x, y = (r.standard_normal((90, 1030)) + 50).astype(np.float32), r.integers(0, 6, 90)

    def sums():
        return _mixture.mixture_sums(x, y, y % 2, np.array([9.0]), key, num_classes=6, tile=16)

    want = sums()
    draw = _mixture._draw
    monkeypatch.setattr(_mixture, "_draw", lambda *given, **named: calls.append(1) or draw(*given, **named))
    monkeypatch.setattr(_tiles, "KEPT_BYTES", kept)
    monkeypatch.setattr(_tiles, "BLOCK_BYTES", 4 * 3 * 16 * 16 * 4)  # 21 pairs of six tiles, in six groups
    got = sums()
    assert len(calls) == draws  # for two chunks of features
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-30)


def test_rotation_of_a_wide_layer_keeps_the_value(key):
    r = np.random.default_rng(2)
    x = (5 + r.standard_normal((40, 700))).astype(np.float32)
    rotated = monte_carlo(x, noise_variance=150.0, key=key, draws=40)
    direct = monte_carlo(x, noise_variance=150.0, key=key, draws=2)
    assert abs(rotated.i_tx - direct.i_tx) < 4 * np.hypot(rotated.i_tx_stderr, direct.i_tx_stderr)


@pytest.mark.parametrize("width", [3, 90])
def test_classes_without_rows_change_nothing(width, key):
    r = np.random.default_rng(0)
    y = r.integers(0, 3, 40)
    x = (r.standard_normal((40, width)) + y[:, None]).astype(np.float32)
    whole, gaps = (monte_carlo(x, labels, noise_variance=4.0, key=key) for labels in (y, 2 * y + 1))
    assert (gaps.i_tx, gaps.i_ty, gaps.i_ty_sampling_error) == (whole.i_tx, whole.i_ty, whole.i_ty_sampling_error)


@pytest.mark.slow
def test_jackknife_error_matches_the_spread_over_independent_samples():
    values, claimed, noise = [], [], []
    for seed in range(60):
        r = np.random.default_rng(seed)
        x, y = r.standard_normal((120, 2)).astype(np.float32), r.integers(0, 2, 120)
        x[:, 0] += 1.5 * y
        got = monte_carlo(x, y, noise_variance=0.5, key=jax.random.key(seed))
        values.append((got.i_tx, got.i_ty))
        claimed.append((got.i_tx_sampling_error, got.i_ty_sampling_error))
        noise.append((got.i_tx_stderr, got.i_ty_stderr))
    ratio = np.sqrt(np.mean(np.square(claimed), axis=0)) / np.std(values, axis=0)
    assert (ratio > 0.75).all()
    assert (ratio < 1.45).all()
    assert (np.mean(noise, axis=0) < np.mean(claimed, axis=0)).all()


def test_jackknife_includes_the_random_frequencies_of_unequal_classes(key):
    """A rare class of distinct rows, and another of one point: I(T;Y) is the empirical H(Y), I(X;T) p ln n - q ln q."""
    n, p = 120, 0.1
    claimed = []
    for seed in range(8):
        y = (np.random.default_rng(seed).random(n) < p).astype(int)
        x = np.where(y == 1, 1e3 * (1 + np.arange(n)), 0)[:, None].astype(np.float32)
        got = monte_carlo(x, y, noise_variance=1.0, key=key, draws=2)
        share = y.mean()
        entropy = -share * np.log(share) - (1 - share) * np.log(1 - share)
        assert got.i_ty == pytest.approx(entropy, abs=1e-5)
        claimed.append((got.i_tx_sampling_error, got.i_ty_sampling_error))
    slope = np.array([1 + np.log(1 - p) + np.log(n), np.log((1 - p) / p)])
    known = slope * np.sqrt(p * (1 - p) / n)
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(claimed), axis=0)), known, rtol=0.2)


def test_few_rows_get_more_draws(key):
    assert [default_draws(n) for n in (2, 32, 33, 100, 256, 5000)] == [512, 32, 32, 12, 4, 4]
    x = np.random.default_rng(3).standard_normal((120, 2)).astype(np.float32)
    assert monte_carlo(x, noise_variance=0.5, key=key).draws == 10
    assert monte_carlo(x, noise_variance=0.5, key=key, draws=2).draws == 2


def test_information_about_the_input_does_not_depend_on_labels(key):
    r = np.random.default_rng(4)
    y = (r.random(120) < 0.2).astype(int)
    x = (r.standard_normal((120, 2)) * (1 + 3 * y[:, None]) + 5 * y[:, None]).astype(np.float32)
    plain, labelled = monte_carlo(x, noise_variance=0.5, key=key), monte_carlo(x, y, noise_variance=0.5, key=key)
    for name in ("i_tx", "i_tx_stderr", "i_tx_sampling_error"):
        assert getattr(labelled, name) == pytest.approx(getattr(plain, name), rel=1e-4), name


def test_constant_layer_gives_zero(key):
    got = monte_carlo(np.full((30, 4), 2.5, np.float32), np.arange(30) % 3, noise_variance=0.1, key=key)
    assert got.i_tx == 0
    assert got.i_ty == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"draws": 3}, "antithetic"),
        ({"draws": 4.0}, "Invalid draws 4.0: expected a whole number of at least 2"),
        ({"draws": "x"}, "Invalid draws 'x': expected a whole number of at least 2"),
        ({"blocks": 1}, "Invalid blocks 1: expected a whole number of at least 2"),
        ({"blocks": 2.5}, "Invalid blocks 2.5: expected a whole number of at least 2"),
        ({"blocks": "x"}, "Invalid blocks 'x': expected a whole number of at least 2"),
    ],
)
def test_invalid_options_are_explained(options, says, key):
    with pytest.raises(InputError, match=says):
        monte_carlo(np.eye(4, dtype=np.float32), noise_variance=0.1, key=key, **options)


def test_a_layer_of_infinite_distances_is_refused(key):
    with pytest.raises(InputError, match="too large for its squared distances"):
        monte_carlo(np.eye(4) * 1e200, noise_variance=1.0, key=key, draws=2)
    large = monte_carlo(np.eye(4, dtype=np.float32) * 1e30, noise_variance=1.0, key=key, draws=2)
    assert large.i_tx == pytest.approx(np.log(4), abs=1e-12)


def test_plug_in_and_leave_one_out_bracket_the_population_in_expectation():
    d, variance = 4, 0.5
    true = 0.5 * d * np.log1p(1 / variance)
    plug_in, left_out = [], []
    for seed in range(40):
        x = np.random.default_rng(seed).standard_normal((100, d)).astype(np.float32)
        got = monte_carlo(x, noise_variance=variance, key=jax.random.key(seed), draws=4)
        plug_in.append(got.i_tx)
        left_out.append(got.i_tx_leave_one_out)
    error = np.std(left_out) / np.sqrt(40)
    assert np.mean(plug_in) < true < np.mean(left_out)
    assert np.mean(left_out) - np.mean(plug_in) < 1.0
    assert error < 0.1


def test_leave_one_out_values_equal_the_dense_reference(key):
    """At large noise the draws do not matter, so that direct sums give the same values."""
    r = np.random.default_rng(5)
    x, y = r.standard_normal((40, 3)), np.arange(40) % 3
    got = monte_carlo(x, y, noise_variance=1e12, key=key)
    p = np.bincount(y) / 40
    own = np.bincount(y)[y] - 1
    assert got.i_tx_leave_one_out == pytest.approx(0, abs=1e-5)
    assert got.i_ty_leave_one_out == pytest.approx(np.mean(np.log(own / 39)) - np.sum(p * np.log(p)), abs=1e-5)


def test_leave_one_out_label_information_is_below_the_true_value_where_the_plug_in_value_is_twice_it():
    task = tasks.label_task(50)
    results = []
    for seed in range(2):
        t, y = task.sample(2000, seed)
        results.append(monte_carlo(t, y, noise_variance=task.noise_variance, key=jax.random.key(seed), draws=2))
    assert all(got.i_ty_leave_one_out < task.information < 0.6 * got.i_ty for got in results)
    assert monte_carlo(t, noise_variance=1e3, key=jax.random.key(0), draws=2).i_ty_leave_one_out is None


def test_leave_one_out_values_are_infinite_for_rows_far_from_all_others(key):
    got = monte_carlo(1e3 * np.eye(6), np.arange(6) % 2, noise_variance=0.1, key=key)
    assert got.i_tx_leave_one_out == np.inf
    assert got.i_ty_leave_one_out == -np.inf


def test_two_rows_have_an_infinite_sampling_error(key):
    got = monte_carlo(np.array([[0.0], [1.0]]), [0, 1], noise_variance=1.0, key=key)
    assert got.i_tx_sampling_error == np.inf
    assert got.i_ty_sampling_error == np.inf


def test_a_failing_rotation_of_large_equal_rows_is_skipped(key):
    x = 1e9 * np.random.default_rng(0).standard_normal((2, 300))[np.arange(100) % 2]
    assert monte_carlo(x, noise_variance=0.1, key=key).i_tx == pytest.approx(np.log(2), abs=1e-12)
