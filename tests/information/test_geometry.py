"""Geometry against direct sums, and the exact split of a change into scale and shape."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from mi_jax.errors import InputError
from mi_jax.information import geometry, kde, noise_grid, noise_variance, scale_split


@pytest.fixture(scope="module")
def layer():
    r = np.random.default_rng(0)
    y = r.integers(0, 3, 50)
    return (r.standard_normal((50, 6)) + 2 * y[:, None]).astype(np.float32), y


def test_distances_equal_direct_sums(layer):
    x, y = layer
    got = geometry(x, y, noise_variance=0.5)
    d = squareform(pdist(x.astype(np.float64), "sqeuclidean"))
    same, other = (y[:, None] == y) & ~np.eye(50, dtype=bool), y[:, None] != y
    assert got.within == pytest.approx(d[same].mean(), rel=1e-5)
    assert got.between == pytest.approx(d[other].mean(), rel=1e-5)
    nearest = np.median((d + np.diag(np.full(50, np.inf))).min(axis=1))
    assert got.nearest == pytest.approx(nearest, rel=1e-4)
    assert got.nearest_over_noise == pytest.approx(nearest / 0.5, rel=1e-4)
    assert got.distinguishable_upper == pytest.approx(np.exp(kde(x, noise_variance=0.5).i_tx_upper), rel=1e-6)


def test_nearest_neighbours_are_found_among_all_rows_and_in_distant_clusters():
    """Pairs of which a sample of 1,024 rows contains one row only, in clusters too distant for float32 products."""
    r = np.random.default_rng(2)
    half = 1100
    centres = 1e4 * r.standard_normal((4, 20))
    x = centres[np.arange(half) % 4] + r.standard_normal((half, 20))
    step = r.standard_normal((half, 20))
    pairs = np.concatenate([x, x + 0.1 * step / np.linalg.norm(step, axis=1, keepdims=True)])
    assert geometry(pairs, noise_variance=1.0).nearest == pytest.approx(0.01, rel=1e-6)


def test_effective_rank_counts_equal_directions():
    x = np.concatenate([np.eye(4, 9), -np.eye(4, 9)]).astype(np.float32) + 100
    assert geometry(x, noise_variance=1.0).effective_rank == pytest.approx(4, rel=1e-3)
    assert geometry(np.ones((8, 9), np.float32), noise_variance=1.0).effective_rank == 0


def test_pure_scaling_is_all_scale(layer):
    x, _ = layer
    split = scale_split(x, 3 * x + 1, noise_variance=2.0)
    assert split.shape == pytest.approx(0, abs=1e-5)
    assert split.scale == pytest.approx(split.total, abs=1e-5)
    assert split.factor == pytest.approx(3, rel=1e-5)
    assert split.total > 0.1


def test_scale_and_shape_add_up_to_the_total_and_do_not_change_under_rotation(layer):
    x, _ = layer
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((6, 6)))[0].astype(np.float32)
    split = scale_split(x, x @ rotation, noise_variance=1.0)
    assert abs(split.total) < 1e-5
    assert abs(split.shape) < 1e-5
    squeezed = scale_split(x, np.tanh(x), noise_variance=1.0)
    assert squeezed.total == pytest.approx(squeezed.scale + squeezed.shape, abs=1e-12)
    with pytest.raises(InputError, match="constant"):
        scale_split(x, np.ones_like(x), noise_variance=1.0)


def test_noise_rules_have_their_definitions(layer):
    x, _ = layer
    v = x.astype(np.float64).var(axis=0).mean()
    assert noise_variance(x) == 0.1
    assert noise_variance(x, rule="layer") == pytest.approx(v, rel=1e-5)
    assert noise_variance(x, rule="trace") == pytest.approx(6 * v / np.log(50), rel=1e-5)
    median = np.median(pdist(x.astype(np.float64), "sqeuclidean"))
    assert noise_variance(x, rule="median") == pytest.approx(median / (2 * np.log(50)), rel=1e-6)
    periodic = np.tile([[0.0], [0.0], [9.0], [9.0]], (1024, 1)) + np.arange(4096)[:, None] * 1e-6
    of_both = noise_variance(periodic, rule="median")
    assert of_both == pytest.approx(81 / (2 * np.log(4096)), rel=0.01), "every other row is of one kind"
    np.testing.assert_allclose(noise_grid(1.0, levels=4), [0.25, 0.5, 1, 2])
    with pytest.raises(InputError, match="constant"):
        noise_variance(np.ones((5, 2), np.float32), rule="trace")
    with pytest.raises(InputError, match="choose from fixed"):
        noise_variance(x, rule="other")
