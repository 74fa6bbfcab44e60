"""Identities and inequalities that the bounds satisfy on any data, tested on random shapes."""

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform

from mi_jax.information import binning, kde
from mi_jax.information._pairwise import pair_sums

EXACT = 1e-9
"""Float64, so that rounding does not look like a violation."""
ROWS = (7, 14, 28)
"""Each is twice the previous one, so that duplicated rows have shapes that are compiled already."""
FEATURES = (1, 5)
CLASSES = 3
laws = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@st.composite
def layers(draw):
    """Rows and labels of few shapes, so that few functions are compiled, with repeats, clusters and distant means."""
    n, d = draw(st.sampled_from(ROWS)), draw(st.sampled_from(FEATURES))
    r = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    y = np.concatenate([np.arange(CLASSES), r.integers(0, CLASSES, n - CLASSES)])
    x = r.standard_normal((n, d)) * 10.0 ** draw(st.integers(-2, 1))
    x += draw(st.sampled_from((0, 3, 300))) * r.standard_normal((CLASSES, d))[y]
    if draw(st.booleans()):
        x[n // 2 :] = x[: n - n // 2]
    return x, y


variances = st.sampled_from((1e-3, 0.1, 1.0, 50.0))


def bounds(x, y=None, variance=1.0):
    return kde(x, y, noise_variance=variance, num_classes=None if y is None else CLASSES)


@laws
@given(layers(), variances)
def test_bounds_are_ordered_and_below_their_maxima(layer, variance):
    x, y = layer
    got, p = bounds(x, y, variance), np.bincount(y) / len(y)
    assert 0 <= got.i_tx_lower <= got.i_tx_upper + EXACT
    assert got.i_tx_upper <= np.log(len(x)) + EXACT
    assert 0 <= got.i_ty_certified_lower <= got.i_ty_certified_upper + EXACT
    assert got.i_ty_certified_upper <= -np.sum(p * np.log(p)) + EXACT
    assert got.i_ty_certified_lower <= got.i_tx_upper + EXACT
    for side in ("upper", "lower"):  # so are the usual differences
        assert getattr(got, f"i_ty_{side}") <= getattr(got, f"i_tx_{side}") + EXACT
        assert getattr(got, f"i_ty_{side}") <= -np.sum(p * np.log(p)) + EXACT


@laws
@given(layers(), variances)
def test_lower_bound_is_the_upper_at_four_times_the_noise(layer, variance):
    x, _ = layer
    assert bounds(x, None, variance).i_tx_lower == pytest.approx(bounds(x, None, 4 * variance).i_tx_upper, abs=EXACT)


@laws
@given(layers(), variances, st.integers(0, 99))
def test_order_rotation_shift_and_padding_change_nothing(layer, variance, seed):
    x, y = layer
    want, r = bounds(x, y, variance), np.random.default_rng(seed)
    order = r.permutation(len(x))
    rotation = np.linalg.qr(r.standard_normal((x.shape[1], x.shape[1])))[0]
    padded = np.pad(x, ((0, 0), (0, 5)))
    for other in (
        bounds(x[order], y[order], variance),
        bounds(x @ rotation + 2.5, y, variance),
        bounds(padded, y, variance),
    ):
        for name in ("i_tx_upper", "i_tx_lower", "i_ty_upper", "i_ty_certified_lower"):
            assert getattr(other, name) == pytest.approx(getattr(want, name), abs=1e-7)


@laws
@given(layers(), variances, st.sampled_from((0.01, 0.3, 20.0)))
def test_scaling_layer_and_noise_together_changes_nothing(layer, variance, a):
    x, y = layer
    want, got = bounds(x, y, variance), bounds(a * x, y, a * a * variance)
    assert got.i_tx_upper == pytest.approx(want.i_tx_upper, abs=1e-7)
    assert got.i_ty_lower == pytest.approx(want.i_ty_lower, abs=1e-7)


@laws
@given(layers(), variances)
def test_duplicating_the_data_changes_nothing(layer, variance):
    x, y = layer
    want, got = bounds(x, y, variance), bounds(np.repeat(x, 2, axis=0), np.repeat(y, 2), variance)
    assert got.i_tx_upper == pytest.approx(want.i_tx_upper, abs=1e-7)
    assert got.i_ty_upper == pytest.approx(want.i_ty_upper, abs=1e-7)


@laws
@given(layers(), variances)
def test_contractions_cannot_raise_the_bounds(layer, variance):
    x, _ = layer
    for shorter in (np.maximum(x, 0), np.tanh(x), np.abs(x)):
        assert bounds(shorter, None, variance).i_tx_upper <= bounds(x, None, variance).i_tx_upper + 1e-7
        assert bounds(shorter, None, variance).i_tx_lower <= bounds(x, None, variance).i_tx_lower + 1e-7


@laws
@given(layers(), variances, st.sampled_from((2, 3, 6)))
def test_pooling_without_overlap_cannot_raise_the_bounds(layer, variance, window):
    """The maximum is a contraction, and so is the mean times the root of the window: it projects on a unit vector."""
    x, _ = layer
    windows = np.pad(x, ((0, 0), (0, -x.shape[1] % 6))).reshape(len(x), -1, window)
    before = bounds(x, None, variance)
    for pooled in (windows.max(axis=2), np.sqrt(window) * windows.mean(axis=2)):
        after = bounds(pooled, None, variance)
        assert after.i_tx_upper <= before.i_tx_upper + 1e-7
        assert after.i_tx_lower <= before.i_tx_lower + 1e-7


@settings(laws, max_examples=8)
@given(layers(), st.sampled_from((0.01, 0.5, 500.0)), st.sampled_from((8, 24)), st.sampled_from((2, 128)))
def test_tiled_sums_equal_dense_sums_for_any_tile_and_chunk(layer, inverse, tile, chunk):
    x, y = layer
    dense = np.exp(-inverse * squareform(pdist(x, "sqeuclidean"))) - np.eye(len(x))
    with jax.enable_x64(True):
        got = pair_sums(x, y, np.array([inverse]), num_classes=CLASSES, precision="float64", tile=tile, chunk=chunk)
        np.testing.assert_allclose(got.total[0], dense.sum(axis=1), rtol=1e-7, atol=1e-7)
        own = (dense * (y[:, None] == y)).sum(axis=1)
        np.testing.assert_allclose(got.own[0], own, rtol=1e-7, atol=1e-7)


@laws
@given(layers())
def test_bounds_fall_as_the_noise_grows(layer):
    x, _ = layer
    many = kde(x, noise_variance=2.0 ** np.arange(-6, 6))
    assert (np.diff(many.i_tx_upper) <= EXACT).all()
    assert (np.diff(many.i_tx_lower) <= EXACT).all()


@pytest.mark.parametrize("atoms", [1, 2, 5])
def test_separated_atoms_give_the_entropy_of_their_frequencies(atoms):
    x = 1e3 * np.eye(5)[np.arange(40) % atoms]
    got = bounds(x, None, 0.1)
    assert got.i_tx_upper == pytest.approx(np.log(atoms), abs=1e-12)
    assert got.i_tx_lower == pytest.approx(np.log(atoms), abs=1e-12)
    assert binning(x).i_tx == pytest.approx(np.log(atoms), abs=1e-12)
