"""KDE bounds against float64 references, and cases in which naive float32 arithmetic fails."""

import importlib.util
import json
import re
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax.errors import InputError
from mi_jax.information import KDE, _pairwise, _tiles, kde
from mi_jax.information._input import target_of
from mi_jax.information._pairwise import pair_sums
from mi_jax.statistics.jackknife import image_blocks

_spec = importlib.util.spec_from_file_location("make_golden", Path(__file__).with_name("make_golden.py"))
assert _spec is not None
assert _spec.loader is not None
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)
GOLDEN = json.loads(reference.GOLDEN.read_text())["cases"]
BIT = np.log(2)


def largest_error(result: KDE, golden: dict) -> float:
    errors = []
    for s, variance in enumerate(reference.VARIANCES):
        for side, want in golden["kde"][str(variance)].items():
            for name, value in want.items():
                errors.append(np.abs(getattr(result, f"{name}_{side}")[s] - np.array(value)).max())
    return max(errors)


@pytest.mark.parametrize("name", list(reference.CASES))
@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-9), ("float32", 1e-5 * BIT)])
def test_bounds_equal_the_dense_float64_reference(name, precision, tolerance):
    x, y, classes = reference.CASES[name]()
    result = kde(x, y, noise_variance=reference.VARIANCES, num_classes=classes, precision=precision)
    assert largest_error(result, GOLDEN[name]) < tolerance


def test_two_points_have_the_closed_form():
    result = kde(np.array([[1.0], [-1.0]]), noise_variance=1.0)
    assert result.i_tx_upper == pytest.approx(0.5662191695169728, abs=1e-12)
    assert result.i_tx_lower == pytest.approx(0.2190701963798386, abs=1e-12)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_distant_class_means_do_not_reduce_accuracy(precision):
    r = np.random.default_rng(4)
    y = np.arange(300) % 4
    means = r.standard_normal((4, 1024))
    means *= 1000 / np.linalg.norm(means, axis=1, keepdims=True)
    x = (means[y] + 0.02 * r.standard_normal((300, 1024))).astype(np.float32)
    want = kde(x.astype(np.float64), y, noise_variance=0.1)
    got = kde(x, y, noise_variance=0.1, precision=precision, tolerance=np.inf)
    assert got.precision == precision
    assert abs(got.i_tx_upper - want.i_tx_upper) < (1e-5 if precision != "bfloat16" else 1e-4) * BIT
    assert abs(got.i_ty_upper - want.i_ty_upper) < 1e-5 * BIT
    assert abs(got.i_tx_upper - want.i_tx_upper) <= got.error  # the reported error is a bound


def test_distant_clusters_within_one_class_fall_back_to_float64():
    r = np.random.default_rng(5)
    hidden = np.arange(200) % 4
    x = (1000 * np.eye(4)[hidden] + 0.3 * r.standard_normal((200, 4))).astype(np.float32)
    got = kde(x, noise_variance=0.1)
    assert got.precision == "float64"
    assert got.i_tx_upper == pytest.approx(kde(x.astype(np.float64), noise_variance=0.1).i_tx_upper, abs=1e-9)


def test_constant_layer_gives_exactly_zero():
    result = kde(np.full((101, 3, 3), 1.7, np.float32), np.arange(101) % 7, noise_variance=[1e-6, 0.1])
    for name in ("i_tx_upper", "i_tx_lower", "i_ty_upper", "i_ty_lower", "i_ty_certified_upper", "saturation"):
        assert (getattr(result, name) == 0).all(), name


def test_separated_rows_are_reported_as_saturated():
    result = kde(1e3 * np.eye(50, dtype=np.float32), np.arange(50) % 2, noise_variance=0.1)
    assert result.i_tx_upper == pytest.approx(np.log(50), abs=1e-12)
    assert result.saturated is True
    assert result.saturation == pytest.approx(1)


def test_certified_bracket_holds_where_the_usual_difference_is_no_bound():
    x = np.array([4.5, 4.5, 1.5, 0, 1.5, 0, 4.5])[:, None]
    y = np.array([0, 1, 1, 1, 0, 0, 1])
    result = kde(x, y, noise_variance=1.0)
    assert result.i_ty_lower == pytest.approx(0.0173814 * BIT, abs=1e-7)
    assert result.i_ty_lower > 0.0173472 * BIT  # the true value: the "lower bound" is above it
    assert result.i_ty_certified_lower <= 0.0173472 * BIT <= result.i_ty_certified_upper


def test_sixteen_levels_in_one_pass_equal_sixteen_passes():
    r = np.random.default_rng(6)
    x, y = r.standard_normal((90, 20)).astype(np.float32), np.arange(90) % 5
    for grid in (2.0 ** np.arange(-8, 8), np.geomspace(0.01, 30, 16)):
        many = kde(x, y, noise_variance=grid)
        for s in (0, 7, 15):
            one = kde(x, y, noise_variance=float(grid[s]))
            for name in ("i_tx_upper", "i_tx_lower", "i_ty_upper", "i_ty_lower"):
                assert getattr(many, name)[s] == pytest.approx(getattr(one, name), abs=2e-6), (name, s)


def test_tile_and_chunk_sizes_do_not_change_the_sums():
    r = np.random.default_rng(7)
    x, y = r.standard_normal((150, 70)).astype(np.float32), r.integers(0, 6, 150)
    inverse = np.array([0.02])
    whole = pair_sums(x, y, inverse, num_classes=6, tile=152, chunk=128)
    for tile, chunk in ((16, 32), (40, 70), (64, 7)):
        parts = pair_sums(jnp.asarray(x), y, inverse, num_classes=6, tile=tile, chunk=chunk)
        np.testing.assert_allclose(parts.total, whole.total, rtol=3e-6)
        np.testing.assert_allclose(parts.own, whole.own, rtol=3e-6)


@pytest.mark.parametrize(("as_array", "kept"), [(np.asarray, 0), (jnp.asarray, 0), (np.asarray, 2**20)])
def test_groups_of_tiles_that_do_not_fit_in_memory_together_give_the_same_sums(monkeypatch, as_array, kept):
    r = np.random.default_rng(9)
    x, y = (r.standard_normal((150, 70)) + 50).astype(np.float32), r.integers(0, 6, 150)
    options = {"num_classes": 6, "tile": 16, "chunk": 32, "block": y % 3}
    want = pair_sums(as_array(x), y, np.array([0.02]), **options)
    monkeypatch.setattr(_tiles, "BLOCK_BYTES", 9 * 16 * 16 * 4)
    monkeypatch.setattr(_tiles, "KEPT_BYTES", kept)
    assert len(_tiles.tile_groups(10, 16, 4, 1, None)) == 7  # of nine of the 55 pairs each
    got = pair_sums(as_array(x), y, np.array([0.02]), **options)
    for name in want._fields:
        np.testing.assert_allclose(getattr(got, name), getattr(want, name), rtol=3e-6)


@pytest.mark.parametrize(("tiles", "memory", "devices"), [(1, 1, 1), (7, 1, 1), (7, 9, 1), (12, 16, 8), (10, 10**6, 3)])
def test_groups_hold_every_pair_of_tiles_once_and_fit_in_memory(monkeypatch, tiles, memory, devices):
    monkeypatch.setattr(_tiles, "BLOCK_BYTES", memory * 8 * 8 * 4)
    mesh = types.SimpleNamespace(size=devices)
    groups = _tiles.tile_groups(tiles, 8, 4, 1, mesh)  # pyright: ignore[reportArgumentType]
    pairs = [tuple(group.tiles[pair]) for group in groups for pair in group.pairs if pair[0] >= 0]
    assert sorted(pairs) == [(i, j) for i in range(tiles) for j in range(i, tiles)]
    assert all(len(group.pairs) % devices == 0 for group in groups)
    assert all(len(group.pairs) <= memory * devices for group in groups)
    assert {len(group.tiles) for group in groups} == {len(groups[0].tiles)}


def test_a_group_needs_few_of_many_tiles():
    groups = _tiles.tile_groups(98, 512, 4, 1, None)  # 50,000 rows
    assert len(groups) == 19
    assert len(groups[0].tiles) <= 35


def test_layers_of_many_widths_share_few_compiled_functions_with_little_padding():
    y = np.arange(64) % 3

    def run(width: int) -> None:
        kde(np.random.default_rng(1).standard_normal((64, width)).astype(np.float32), y, noise_variance=9.0)

    run(130)
    run(1000)
    steps = _tiles.centre, _tiles.gram_step(64, "float32", None), _pairwise._sum_step(64, (1, 4), None)
    before = [step._cache_size() for step in steps]
    for width in (200, 600, 1025 + 200, 2048, 2900):
        run(width)
    assert min(before) > 0
    assert [step._cache_size() for step in steps] == before
    for width in (1, 128, 129, 700, 1024, 1025, 5000):
        held = sum(piece.shape[1] for piece in _tiles.chunks(np.ones((2, width), np.float32), 1024, np.float32))
        assert width <= held < max(129, 2 * width)


def test_sums_can_be_vmapped_over_seeds_and_epochs():
    r = np.random.default_rng(8)
    x, y = r.standard_normal((3, 60, 10)).astype(np.float32), r.integers(0, 4, 60)
    batched = jax.jit(jax.vmap(lambda t: pair_sums(t, y, np.array([0.05]), num_classes=4)))(jnp.asarray(x))
    for b in range(3):
        one = pair_sums(x[b], y, np.array([0.05]), num_classes=4)
        np.testing.assert_allclose(batched.total[b], one.total, rtol=2e-6)
        np.testing.assert_allclose(batched.own[b], one.own, rtol=2e-6)


@pytest.mark.parametrize(
    ("t", "y", "options", "says"),
    [
        (np.array([[np.nan, 1], [0, 1]], np.float32), None, {}, "conv1 holds NaN or infinity"),
        (np.array([[np.inf, 1], [0, 1]], np.float32), None, {}, "conv1 holds NaN or infinity"),
        (np.array([[np.nan, 1], [0, 1]], np.float32), None, {"precision": "direct"}, "conv1 holds NaN or infinity"),
        (np.array([[np.inf, 1], [0, 1]], np.float32), None, {"tolerance": np.inf}, "conv1 holds NaN or infinity"),
        (np.ones((1, 4), np.float32), None, {}, "two samples"),
        (np.ones((4, 0), np.float32), None, {}, "empty layer"),
        (np.ones((4, 2), np.int32), None, {}, "floating point"),
        (np.ones((4, 2), np.float32), [0, 1, 0], {}, "4 rows"),
        (np.ones((4, 2), np.float32), [0, 0, 0, 0], {}, "one class"),
        (np.ones((4, 2), np.float32), [0, 1, 2, 5], {"num_classes": 3}, "0..2"),
        (np.ones((4, 2), np.float32), [0.0, 1.0, 1.0, 0.0], {}, "integers"),
        (np.ones((4, 2), np.float32), None, {"noise_variance": 0.0}, "positive"),
        (np.ones((4, 2), np.float32), None, {"noise_variance": [0.1, -1.0]}, "positive"),
        (np.eye(2) * 1e200, None, {}, "too large"),
        (np.eye(2), None, {"mesh": "data=2"}, "mesh must be a jax.sharding.Mesh or None, not 'data=2'"),
    ],
)
def test_invalid_input_is_explained(t, y, options, says):
    y = None if y is None else np.array(y)
    with pytest.raises(InputError, match=says):
        kde(t, y, layer="conv1", **({"noise_variance": 0.1} | options))


def test_arrays_of_any_framework_and_float_type_are_accepted():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(9).standard_normal((20, 3)).astype(np.float32)
    want = kde(x, noise_variance=0.5).i_tx_upper
    assert kde(torch.from_numpy(x).requires_grad_(), noise_variance=0.5).i_tx_upper == want
    assert kde(jnp.asarray(x), noise_variance=0.5).i_tx_upper == want
    assert kde(jnp.asarray(x, jnp.bfloat16), noise_variance=0.5).i_tx_upper == pytest.approx(want, abs=0.02)
    assert kde(torch.from_numpy(x).bfloat16(), noise_variance=0.5).i_tx_upper == pytest.approx(want, abs=0.02)
    assert target_of(torch.from_numpy(x).bfloat16()) == "continuous"


def test_values_too_large_for_float32_squares_are_measured_in_float64():
    result = kde(np.array([[1e25], [-1e25], [3e25]], np.float32), noise_variance=1e50)
    assert result.precision == "float64"
    assert 0 < result.i_tx_lower < result.i_tx_upper < np.log(3)


def test_mixed_pairs_tighten_the_certified_bracket_of_separated_and_of_touching_classes():
    """Between classes far apart with spread rows, the differences of entropy bounds leave half the information open."""
    r = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = 6 * np.eye(3, 10)[y] + r.standard_normal((90, 10))
    entropy = np.log(3)
    apart = kde(x, y, noise_variance=0.5)
    assert apart.i_ty_upper - apart.i_ty_certified_lower < 1e-3
    spread = apart.i_tx_lower - np.mean(apart.i_tx_given_y_upper)
    assert spread < 0.9 * entropy, "the bound without mixed pairs"
    assert 0.99 * entropy < apart.i_ty_certified_lower <= apart.i_ty_certified_upper <= entropy + 1e-12
    near = kde(x, y, noise_variance=15.0)
    assert near.i_ty_certified_upper < entropy - 0.01


def test_the_mixed_pair_bounds_bracket_a_brute_force_integral(key):
    """I(T;Y) of five points on a line by quadrature, at every noise level, for equal and unequal classes."""
    x = np.array([[-2.0], [-1.5], [0.3], [1.0], [2.5]])
    grid = np.linspace(-30, 30, 60_001)[:, None]
    for y in ([0, 0, 1, 1, 1], [0, 1, 0, 1, 2]):
        for variance in (0.05, 0.5, 2.0, 8.0):
            kernel = np.exp(-((grid - x.T) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
            whole = kernel.mean(axis=1)
            classes = [kernel[:, np.array(y) == k].mean(axis=1) for k in range(max(y) + 1)]
            true = sum(
                np.mean(np.array(y) == k) * np.sum(p * np.log(np.maximum(p, 1e-300) / np.maximum(whole, 1e-300)))
                for k, p in enumerate(classes)
            ) * (grid[1, 0] - grid[0, 0])
            got = kde(x, y, noise_variance=variance)
            assert got.i_ty_certified_lower <= true + 1e-9 <= got.i_ty_certified_upper + 2e-9


def test_leave_one_out_bounds_bracket_the_population_of_a_gaussian_and_shrink_with_more_rows():
    d, variance = 2, 1.0
    true = 0.5 * d * np.log1p(1 / variance)
    means, gaps = {}, {}
    for n in (20, 320):
        found = [
            kde(np.random.default_rng(seed).standard_normal((n, d)), noise_variance=variance) for seed in range(20)
        ]
        means[n] = np.mean([[f.i_tx_lower, f.i_tx_leave_one_out] for f in found], axis=0)
        gaps[n] = np.mean([f.i_tx_leave_one_out - f.i_tx_upper for f in found])
        assert means[n][0] < true < means[n][1]
        assert all(f.undersampled == (n == 20) for f in found)
    assert gaps[320] < 0.2 * gaps[20]


def test_leave_one_out_label_bound_is_below_the_population_and_infinite_for_a_row_alone_in_its_class():
    y = np.arange(400) % 2
    x = 8.0 * y[:, None] + 0.3 * np.random.default_rng(0).standard_normal((400, 1))
    got = kde(x, y, noise_variance=0.5)
    assert 0.3 < got.i_ty_leave_one_out < np.log(2)
    alone = kde(np.array([[0.0], [0.0], [1.0]]), [0, 0, 1], noise_variance=1.0)
    assert alone.i_ty_leave_one_out == -np.inf
    assert kde(1e6 * np.eye(3), noise_variance=1.0).i_tx_leave_one_out == np.inf


def test_values_without_a_block_are_those_of_the_other_rows():
    r = np.random.default_rng(0)
    x, y = r.standard_normal((53, 4)), np.r_[np.zeros(2, int), 1 + np.arange(51) % 3]
    options = {"noise_variance": [0.3, 2.0], "num_classes": 4}
    found = kde(x, y, blocks=7, **options).without_block
    for b in range(7):
        rows = image_blocks(53, 7) != b
        again = kde(x[rows], y[rows], **options)
        for name, values in found.items():
            np.testing.assert_allclose(values[:, b], getattr(again, name), atol=1e-9)


@pytest.mark.parametrize("blocks", [1, -3, 2.5, "x", None, True])
def test_blocks_that_are_not_a_whole_number_of_at_least_two_are_refused(blocks):
    says = f"Invalid blocks {blocks!r}: expected a whole number of at least 2, or 0 for no jackknife."
    with pytest.raises(InputError, match=re.escape(says)):
        kde(np.eye(4), noise_variance=1.0, blocks=blocks)


def test_certified_bounds_of_separate_classes_do_not_cross():
    for seed in range(20):
        y, r = np.arange(40) % 4, np.random.default_rng(seed)
        t = 1e3 * r.standard_normal((4, 3))[y] + r.standard_normal((40, 3))
        found = kde(t, y, noise_variance=1e-3)
        assert found.i_ty_certified_lower <= found.i_ty_certified_upper == pytest.approx(np.log(4))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_variance_without_an_inverse_tells_different_rows_apart_only(dtype):
    found = kde(np.eye(4, dtype=dtype)[[0, 0, 1, 2]], noise_variance=[1e-320, 1e-300])
    np.testing.assert_allclose(found.i_tx_upper, 1.5 * np.log(2))
