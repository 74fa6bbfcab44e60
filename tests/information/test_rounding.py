"""Layers whose distances suffer from rounding: estimates are within their reported error, or refused."""

import functools
import importlib

import jax
import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from scipy.special import logsumexp

from mi_jax.errors import InputError
from mi_jax.information import _mixture, _products, _rounding, kde, monte_carlo, noise_grid
from mi_jax.information._pairwise import pair_sums


def exact(x, c):
    """J at scale c from direct differences in float64."""
    d = squareform(pdist(np.asarray(x, np.float64), "sqeuclidean"))
    return float(np.log(len(x)) - logsumexp(-d / c, axis=1).mean())


def dead_layer(scale=1e5):
    x = np.maximum(np.random.default_rng(0).standard_normal((400, 256)), 0)
    x *= scale / np.sqrt((x**2).sum(axis=1).mean())
    x[::2] = 0
    return x


def clusters(distance):
    r = np.random.default_rng(1)
    return distance * r.standard_normal((4, 20))[np.arange(200) % 4] + 0.3 * r.standard_normal((200, 20))


def near_duplicates():
    r = np.random.default_rng(2)
    return np.repeat(1e4 * r.standard_normal((60, 100)), 2, axis=0) + 0.01 * r.standard_normal((120, 100))


def random(seed=3):
    return np.random.default_rng(seed)


LAYERS = {
    "half of the images dead": dead_layer(),
    "two atoms": 1e9 * random().standard_normal((2, 30))[np.arange(100) % 2],
    "three rows of which two are equal": 1e9 * random().standard_normal((3, 30))[[0, 0, 1]],
    "clusters": clusters(1e7),
    "near duplicates": near_duplicates(),
    "heavy tails": random().standard_cauchy((300, 4)) ** 3,
    "one outlier": np.concatenate([random().standard_normal((200, 3)), [[1e9, 0, 0]]]),
}


def trace(x):
    """The variance of the noise rule `trace`."""
    return float(x.var(axis=0).sum() / np.log(len(x)))


SPLIT = ("bfloat16x6", "tf32x3", "bfloat16x3")


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bounds_are_within_their_reported_error(name, dtype):
    x = LAYERS[name].astype(dtype)
    got = kde(x, noise_variance=0.1)
    assert got.error < 1e-4
    assert abs(got.i_tx_upper - exact(x, 0.2)) <= got.error + 1e-12
    assert abs(got.i_tx_lower - exact(x, 0.8)) <= got.error + 1e-12


def exact_left_out(x, c, group):
    """Mean logarithms of the kernel sums over all other rows, and over those of the same class, from differences."""
    d = squareform(pdist(np.asarray(x, np.float64), "sqeuclidean"))
    np.fill_diagonal(d, np.inf)
    return [logsumexp(np.where(same, -d / c, -np.inf), axis=1).mean() for same in (True, group[:, None] == group)]


@pytest.mark.parametrize("precision", ["float32", "float64", "direct", *SPLIT, "tf32"])
@pytest.mark.parametrize("name", ["rows far apart", "near duplicates", "one outlier", "half of the images dead"])
def test_leave_one_out_values_have_a_bound_of_their_own(name, precision):
    far = 6 * random().standard_normal((120, 50))
    x = LAYERS.get(name, far).astype(np.float32)
    y, loosest = np.arange(len(x)) % 4 // 2, 0.0
    for variance in (0.1, 40.0, trace(x)):
        got = kde(x, y, noise_variance=variance, precision=precision, tolerance=np.inf)
        total, own = exact_left_out(x, 2 * variance, y)
        p = np.bincount(y) / len(x)
        wants = (
            np.log(len(x) - 1) - total,
            own - (p * np.log(p)).sum() - np.log(len(x)) + exact(x, 8 * variance),
        )
        for want, value in zip(wants, (got.i_tx_leave_one_out, got.i_ty_leave_one_out), strict=True):
            if np.isfinite(value):
                assert abs(value - want) <= got.leave_one_out_error + 1e-9
                loosest = max(loosest, abs(value - want) - got.error)
    if precision == "float32" and name in ("near duplicates", "half of the images dead"):
        assert got.leave_one_out_error < 1e-5, "the bound is not loose under the rule trace"
    if name == "rows far apart" and precision in SPLIT:
        assert loosest > 0, "the bound of the other values would hold for these, too"


def test_errors_of_a_class_are_larger_than_those_of_all_rows_by_its_share():
    r = random()
    apart, twins = 30 * r.standard_normal((380, 20)), np.repeat(30 * r.standard_normal((10, 20)), 2, axis=0)
    x = np.concatenate([apart, twins + 0.4 * r.standard_normal((20, 20))]).astype(np.float32)
    got = kde(x, np.arange(400) // 380, noise_variance=3.0, precision="tf32x3", tolerance=np.inf)
    assert got.error < abs(got.i_tx_given_y_upper[1] - exact(x[380:], 6.0)) <= got.error * 400 / 20


@pytest.mark.parametrize(
    "name",
    [
        *("half of the images dead", "three rows of which two are equal", "clusters"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("two atoms", "near duplicates", "heavy tails")),
        pytest.param("one outlier", marks=pytest.mark.slow),
    ],
)
def test_monte_carlo_values_lie_between_the_exact_bounds(name, key):
    x = LAYERS[name].astype(np.float32)
    got = monte_carlo(x, noise_variance=0.1, key=key)
    slack = 4 * got.i_tx_stderr + got.error + 1e-12
    assert got.error < 1e-4
    assert exact(x, 0.8) - slack <= got.i_tx <= exact(x, 0.2) + slack


@pytest.mark.parametrize("precision", ["float32", "float64", *SPLIT, "tf32", "bfloat16"])
def test_without_a_fall_back_the_reported_error_covers_rounding(precision):
    for name in LAYERS if precision not in SPLIT else ("two atoms", "clusters", "near duplicates"):
        x = LAYERS[name].astype(np.float32)
        for variance in (0.1, trace(x)):  # lost in rounding, or hardly touched by it
            got = kde(x, noise_variance=variance, precision=precision, tolerance=np.inf)
            assert got.precision == precision
            assert abs(got.i_tx_upper - exact(x, 2 * variance)) <= got.error + 1e-12


@pytest.mark.parametrize("precision", SPLIT)
def test_split_products_stay_within_their_default_tolerance_on_well_conditioned_layers(precision):
    x, y = np.maximum(random().standard_normal((200, 20)), 0).astype(np.float32), np.arange(200) % 2
    want, got = (kde(x, y, noise_variance=trace(x), precision=p) for p in ("float64", precision))
    assert got.precision == precision
    for name in ("i_tx_upper", "i_tx_lower", "i_ty_upper", "i_ty_lower"):
        assert abs(getattr(got, name) - getattr(want, name)) <= got.error <= _products.tolerance(precision)


def test_monte_carlo_values_from_split_products_are_those_of_float32(key):
    x, y = LAYERS["near duplicates"].astype(np.float32), np.arange(120) % 2
    want, got = (monte_carlo(x, y, noise_variance=trace(x), precision=p, key=key) for p in ("float32", "tf32x3"))
    assert got.precision == "tf32x3"
    assert abs(got.i_tx - want.i_tx) <= got.error + want.error < 3e-5
    assert abs(got.i_ty - want.i_ty) <= got.error + want.error
    for name in ("i_tx_leave_one_out", "i_ty_leave_one_out"):
        allowed = got.leave_one_out_error + want.leave_one_out_error
        assert abs(getattr(got, name) - getattr(want, name)) <= allowed < 1e-3


@pytest.mark.parametrize("precision", SPLIT)
def test_a_split_product_falls_back_as_float32_does(precision):
    assert kde(LAYERS["clusters"].astype(np.float32), noise_variance=0.1, precision=precision).precision == "direct"


@pytest.mark.parametrize(
    ("precision", "mask", "parts"), [("bfloat16x6", 16, 3), ("tf32x3", 13, 2), ("bfloat16x3", 16, 2)]
)
def test_a_split_product_is_the_sum_of_the_products_of_large_parts(precision, mask, parts):
    rows = random().standard_normal((2, 7, 5)).astype(np.float32)

    def split(a):
        found = []
        for _ in range(parts):
            found.append((a.view(np.uint32) >> mask << mask).view(np.float32))
            a = a - found[-1]
        return [part.astype(np.float64) for part in found]

    left, right = map(split, rows)
    want = sum(left[k] @ right[m].T for k in range(parts) for m in range(parts - k))
    got = _products.dot(*rows, precision)
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-6)
    error = np.abs(want - rows[0].astype(np.float64) @ rows[1].T.astype(np.float64)).max()
    unit = _products.product_roundoff(precision)
    assert unit / 40 < error < 6 * unit


def test_gradients_of_split_products_are_those_of_float32():
    a, b = random().standard_normal((2, 7, 5)).astype(np.float32)
    want, got = (jax.grad(lambda a, p=p: (_products.dot(a, b, p) ** 2).sum())(a) for p in ("float32", "tf32x3"))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_an_unknown_precision_is_refused():
    with pytest.raises(InputError, match="Invalid precision 'float16': expected one of direct, "):
        kde(np.eye(3), noise_variance=0.1, precision="float16")  # pyright: ignore[reportArgumentType]


def test_labels_of_a_dead_layer_keep_their_information():
    x, y = dead_layer().astype(np.float32), np.arange(400) % 2
    got = kde(x, y, noise_variance=0.1)
    assert got.i_ty_upper == pytest.approx(np.log(2), abs=1e-9)  # the label is whether a row is dead
    assert got.i_ty_certified_lower <= np.log(2) <= got.i_ty_certified_upper + 1e-12


def test_certified_bracket_is_widened_by_the_error():
    x, y = clusters(1e3).astype(np.float32), np.arange(200) % 4 // 2
    got = kde(x, y, noise_variance=0.1, tolerance=np.inf)
    assert got.precision == "float32"
    assert got.error > 0.01
    want = kde(x, y, noise_variance=0.1, precision="direct")
    assert got.i_ty_certified_lower <= want.i_ty_certified_lower + 1e-9
    assert got.i_ty_certified_upper >= want.i_ty_certified_upper - 1e-9


def near_classes_far_from_the_first():
    """A class at the origin and two that are 0.2 apart, 1,000 away from it."""
    along, across = np.linalg.qr(random().standard_normal((20, 2)))[0].T
    centres = np.stack([0 * along, 1000 * along, 1000 * along + 0.2 * across])
    y = np.arange(90) % 3
    return (centres[y] + 1e-4 * random(4).standard_normal((90, 20))).astype(np.float32), y


def test_the_distance_of_near_classes_far_from_the_first_is_within_the_error():
    x, y = near_classes_far_from_the_first()
    want, got = (kde(x, y, noise_variance=0.01, precision=p) for p in ("direct", "float32"))
    assert got.precision == "float32"
    for name in ("i_tx_upper", "i_tx_lower", "i_ty_upper", "i_ty_lower"):
        assert abs(getattr(got, name) - getattr(want, name)) <= got.error < 5e-6


def in_float32(key, source, *, shape, dtype):
    """The draws of `_mixture` in float32, whatever the precision."""
    return jax.random.normal(key, shape, np.float32)[source].astype(dtype)


def test_monte_carlo_errors_cover_products_of_the_noise_with_distant_classes(key, monkeypatch):
    x, y = near_classes_far_from_the_first()
    monkeypatch.setattr(_mixture, "_draw", in_float32)
    want = monte_carlo(x, y, noise_variance=0.01, key=key, precision="float64")
    monkeypatch.setattr(_products, "fall_backs", lambda precision: (precision,))
    got = monte_carlo(x, y, noise_variance=0.01, key=key)
    assert 1e-6 < abs(got.i_tx - want.i_tx) <= got.error < 1e-3
    assert abs(got.i_tx_leave_one_out - want.i_tx_leave_one_out) <= got.leave_one_out_error


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_monte_carlo_errors_cover_rows_of_low_precision(precision, key):
    x, y = random().standard_normal((150, 20)).astype(np.float32), np.arange(150) % 3
    want, got = (monte_carlo(x, y, noise_variance=6.0, key=key, precision=p) for p in ("float32", precision))
    assert got.precision == precision
    moved = []
    for name, error in (("i_tx", "error"), ("i_ty", "error"), ("i_tx_leave_one_out", "leave_one_out_error")):
        moved.append(abs(getattr(got, name) - getattr(want, name)))
        assert moved[-1] <= getattr(got, error) < 0.05
    assert max(moved) > want.leave_one_out_error


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_noise_of_low_precision_is_rounded_once_for_all_products(precision, key, monkeypatch):
    half = random().integers(-3, 4, (40, 6)).astype(np.float32)
    x, y = np.concatenate([half, -half]), np.arange(80) % 2  # exact, as are the class means

    def rounded(*given, dtype, **named):
        return _products.rounded(in_float32(*given, dtype=dtype, **named), precision).astype(dtype)

    got = monte_carlo(x, y, noise_variance=2.0, key=key, precision=precision)
    monkeypatch.setattr(_mixture, "_draw", rounded)
    want = monte_carlo(x, y, noise_variance=2.0, key=key)
    assert got.i_tx == pytest.approx(want.i_tx, abs=2e-6)
    assert got.i_tx_leave_one_out == pytest.approx(want.i_tx_leave_one_out, abs=5e-6)


@pytest.mark.parametrize(("separation", "narrowed"), [(0.5, True), (1000.0, False)])
def test_a_rotation_moves_values_by_less_than_the_error(separation, narrowed, key, monkeypatch):
    y, module, rows = np.arange(60) % 4, importlib.import_module("mi_jax.information.monte_carlo"), []
    centres = separation * random().standard_normal((4, 1200))
    x = (centres[y] + random(5).standard_normal((60, 1200))).astype(np.float32)
    sums = _mixture.mixture_sums
    monkeypatch.setattr(module, "mixture_sums", lambda t, *given, **named: rows.append(t) or sums(t, *given, **named))
    got = monte_carlo(x, y, noise_variance=600.0, key=key)
    assert (np.shape(rows[0])[1] < 1200) is narrowed
    assert abs(exact(rows[0], 1200.0) - exact(x, 1200.0)) <= got.error < 3e-6
    for left, right in zip(exact_left_out(rows[0], 1200.0, y), exact_left_out(x, 1200.0, y), strict=True):
        assert abs(left - right) <= got.leave_one_out_error


def test_values_about_labels_have_the_error_of_a_difference():
    x = random().standard_normal((100, 20)).astype(np.float32)
    for measure in (kde, functools.partial(monte_carlo, key=0)):
        plain, labelled = (measure(x, y, noise_variance=8.0) for y in (None, np.arange(100) % 2))
        assert 1.7 * plain.error < labelled.error < 3 * plain.error


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_level_of_33_octaves_is_within_its_reported_error(dtype):
    x = random().standard_normal((150, 10)).astype(dtype)
    grid = noise_grid(1.0, levels=33)
    got = kde(x, noise_variance=grid)
    for s, variance in enumerate(grid):
        assert abs(got.i_tx_upper[s] - exact(x, 2 * variance)) <= got.error[s] + 1e-12
        assert abs(got.i_tx_lower[s] - exact(x, 8 * variance)) <= got.error[s] + 1e-12


def test_squares_that_underflow_in_float32_are_not_silently_zero():
    x = (1e-19 * random().standard_normal((100, 8))).astype(np.float32)
    got = kde(x, noise_variance=1e-38)
    assert got.i_tx_upper == pytest.approx(exact(x, 2e-38), abs=1e-9)


def test_a_separated_layer_needs_no_fall_back():
    got = kde(1e3 * np.eye(50, dtype=np.float32), noise_variance=0.1)
    assert got.precision == "float32"
    assert got.error < 1e-9
    assert got.i_tx_upper == pytest.approx(np.log(50), abs=1e-12)


def test_direct_differences_equal_products_where_both_are_exact(key):
    r = random()
    x, y = r.standard_normal((70, 33)), r.integers(0, 3, 70)
    with jax.enable_x64(True):
        direct, products = (
            pair_sums(x, y, np.array([0.05]), num_classes=3, precision=p, tile=16, chunk=10)
            for p in ("direct", "float64")
        )
    np.testing.assert_allclose(direct.total, products.total, rtol=1e-10)
    np.testing.assert_allclose(direct.own, products.own, rtol=1e-10)
    values = [monte_carlo(x, y, noise_variance=9.0, key=key, precision=p) for p in ("direct", "float64")]
    assert values[0].i_tx == pytest.approx(values[1].i_tx, abs=1e-9)
    assert values[0].i_ty == pytest.approx(values[1].i_ty, abs=1e-9)


def test_distances_that_overflow_float64_are_refused():
    with pytest.raises(InputError, match="too large"):
        kde(1e200 * np.eye(3), noise_variance=0.1)


def test_the_bound_on_the_error_is_infinite_where_distances_overflow():
    sums = _rounding.KernelSums(np.zeros((1, 4)), np.zeros((1, 4)), np.ones(1), (np.inf, 0.0), "float32")
    assert _rounding.rounding_error(sums)[0] == np.inf
    assert _rounding.rounding_error(sums._replace(largest=(1e12, 0.0)))[0] == pytest.approx(np.log(5))
    assert _rounding.rounding_error(sums._replace(largest=(1.0, 0.0)))[0] < 1e-30
    full = sums._replace(total=np.ones((1, 4)), own=np.ones((1, 4)))
    assert _rounding.leave_one_out_error(full)[0] == np.inf
    assert _rounding.leave_one_out_error(full._replace(largest=(1e12, 0.0)))[0] == np.inf
    assert _rounding.leave_one_out_error(full._replace(largest=(1.0, 0.0)))[0] < 1e-6
