"""Layers that are computed in blocks of rows give the estimates of whole ones, and are never held as a whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from mi_jax.errors import InputError
from mi_jax.information import LazyActivations, _tiles, binning, kde, measure_layers, monte_carlo, noise_variance

IMAGES = np.random.default_rng(0).random((150, 20), np.float32)
WEIGHTS = np.random.default_rng(1).standard_normal((20, 70)).astype(np.float32)
LABELS = np.arange(150) % 4
LAYER = jax.jit(lambda images: jax.nn.relu(images @ WEIGHTS) + 30.0)


def lazy(function=lambda rows: LAYER(IMAGES[rows]), **options):
    return LazyActivations(function, n=150, batch_size=16, **options)


@pytest.fixture
def small_memory(monkeypatch):
    """For a third of the rows at a time."""
    monkeypatch.setattr(_tiles, "tile_height", lambda n: 8)
    monkeypatch.setattr(_tiles, "KEPT_BYTES", 48 * 70 * 4)


@pytest.mark.parametrize("precision", ["float32", "float64", "direct", "bfloat16"])
def test_bounds_of_a_lazy_layer_are_those_of_the_whole_one(small_memory, precision):
    asked, whole = [], np.asarray(LAYER(IMAGES))
    layer = lazy(lambda rows: asked.append(rows) or LAYER(IMAGES[rows]))
    options = {"noise_variance": [0.5, 5.0], "precision": precision, "tolerance": np.inf, "blocks": 3}
    want, got = (kde(t, LABELS, **options) for t in (whole, layer))
    assert got.precision == precision
    for name in ("i_tx_upper", "i_tx_lower", "i_ty_upper", "i_ty_certified_lower", "i_tx_given_y_upper", "error"):
        np.testing.assert_allclose(getattr(got, name), getattr(want, name), rtol=2e-5, atol=2e-6)
    assert max(map(len, asked)) == 16


def test_no_more_rows_than_fit_in_memory_are_held(small_memory, monkeypatch):
    held, computed = [], LazyActivations.__getitem__

    def noted(self, rows):
        made = computed(self, rows)
        held.append(len(made))
        return made

    monkeypatch.setattr(LazyActivations, "__getitem__", noted)
    kde(lazy(), LABELS, noise_variance=5.0)
    assert max(held) <= 48
    assert sum(held) < 15 * 150


@pytest.mark.parametrize("rule", ["layer", "trace", "median"])
def test_noise_rules_take_lazy_layers(small_memory, rule):
    assert noise_variance(lazy(), rule=rule) == pytest.approx(noise_variance(LAYER(IMAGES), rule=rule), rel=1e-5)


def test_rows_of_half_precision_become_float32_and_those_of_numpy_keep_float64():
    assert lazy(lambda rows: jnp.asarray(IMAGES[rows], jnp.bfloat16).reshape(-1, 4, 5)).dtype == np.float32
    double = lazy(lambda rows: IMAGES[rows].astype(np.float64) / 3)
    assert double.dtype == np.float64
    np.testing.assert_array_equal(double[3:40], IMAGES[3:40].astype(np.float64) / 3)
    assert kde(double, noise_variance=5.0).precision == "float64"


def test_a_single_row_and_no_rows_are_taken_as_of_an_array():
    layer = lazy()
    np.testing.assert_allclose(layer[3], layer[:][3], rtol=1e-6)
    assert layer[[]].shape == (0, 70)
    assert layer[[]].dtype == np.float32


def test_tensors_that_require_a_gradient_are_taken():
    rows = lazy(lambda rows: torch.tensor(IMAGES[rows]).requires_grad_())[:40]
    np.testing.assert_array_equal(rows, IMAGES[:40])


def test_lazy_layers_that_cannot_be_measured_are_explained():
    for estimate in (lambda t: monte_carlo(t, noise_variance=1.0, key=0), lambda t: binning(t, bin_size=0.5)):
        with pytest.raises(InputError, match=r"t is computed lazily, which .* give t\[:\]"):
            estimate(lazy())
    with pytest.raises(InputError, match="holds NaN or infinity"):
        kde(lazy(lambda rows: np.where(rows[:, None] == 149, np.nan, IMAGES[rows])), noise_variance=1.0)
    with pytest.raises(InputError, match="dtype int"):
        kde(lazy(lambda rows: rows[:, None]), noise_variance=1.0)


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"function": np.zeros((4, 2))}, "function must be a function of row numbers, not ndarray"),
        ({"n": 0}, "Invalid n 0: expected a whole number of at least 1"),
        ({"n": 2.5}, "Invalid n 2.5: expected a whole number of at least 1"),
        ({"batch_size": 0}, "Invalid batch_size 0: expected a whole number of at least 1"),
    ],
)
def test_settings_of_lazy_activations_that_do_not_fit_are_refused(options, says):
    with pytest.raises(InputError, match=says):
        LazyActivations(**({"function": lambda rows: np.zeros((len(rows), 2)), "n": 4} | options))


def test_a_function_that_gives_another_number_of_rows_is_refused():
    """Twice as many rows would be read as rows of twice the width."""
    for wrong in (lambda rows: np.zeros((2 * len(rows), 2)), lambda rows: np.float32(0)):
        with pytest.raises(InputError, match=r"gave an array of shape \(.*\) for 4 rows; give a row for each"):
            LazyActivations(wrong, n=4, batch_size=4)[:]


def test_measure_layers_refuses_a_lazy_layer_and_a_single_label():
    with pytest.raises(InputError, match=r"^conv1 is computed lazily, .*; give conv1\[:\]"):
        measure_layers({"conv1": lazy()})
    with pytest.raises(InputError, match=r"^conv1 has 150 rows and labels 1; give the same images for all"):
        measure_layers({"conv1": lazy()[:]}, 3)
    with pytest.raises(InputError, match=r"^d: y holds only one class"):
        measure_layers({"d": np.eye(4, dtype=np.float32)}, np.zeros(4, int))
