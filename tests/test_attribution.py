"""Attribution maps against closed forms: linear models, a hand-made feature map, limits, and axioms."""

from collections import OrderedDict
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import torch

import mi_jax as mj
from mi_jax import attribution
from mi_jax.errors import InputError

SHAPE = (6, 5, 3)
CLASSES = 4


def linear_logits(weights: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.einsum("bhwc,hwck->bk", x, weights) + 0.3


def curved_logits(variables: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    hidden = jax.nn.softplus(jnp.einsum("bhwc,hwck->bk", x, variables["first"]))
    return jnp.tanh(hidden) @ variables["second"]


def feature_apply(
    variables: dict[str, jax.Array], x: jax.Array, perturbations: dict[str, jax.Array]
) -> tuple[jax.Array, OrderedDict[str, jax.Array]]:
    """A map of squared pixels read by a linear head: everything about it is known in closed form."""
    features = x**2
    if "features" in perturbations:
        features = features + perturbations["features"]
    logits = jnp.einsum("bhwc,hwck->bk", features, variables["head"])
    return logits, OrderedDict(features=features, logits=logits)


@pytest.fixture(scope="module")
def network() -> mj.models.Network:
    return mj.models.create("cnn", num_classes=10, input_shape=(8, 8, 1))


@pytest.fixture
def x(key) -> jax.Array:
    return jax.random.uniform(jax.random.fold_in(key, 1), (2, *SHAPE))


@pytest.fixture
def labels() -> jax.Array:
    return jnp.array([2, 0])


@pytest.fixture
def weights(key) -> jax.Array:
    return jax.random.normal(jax.random.fold_in(key, 2), (*SHAPE, CLASSES))


@pytest.fixture
def curved(key, weights) -> dict[str, jax.Array]:
    second = jax.random.normal(jax.random.fold_in(key, 3), (CLASSES, CLASSES))
    return {"first": 0.3 * weights, "second": second}


def _of_labels(weights: jax.Array, labels: jax.Array) -> np.ndarray:
    """`[b h w c]`: the weights that lead to each label."""
    return np.moveaxis(np.asarray(weights), -1, 0)[np.asarray(labels)]


def test_gradient_of_a_linear_model_is_its_weights(weights, x, labels):
    maps = attribution.gradient(linear_logits, weights, x, labels)
    np.testing.assert_allclose(maps, _of_labels(weights, labels), atol=1e-6)
    np.testing.assert_allclose(attribution.magnitude(maps), np.abs(maps).max(-1), atol=0)


def test_grad_x_input_and_integrated_gradients_agree_on_a_linear_model(weights, x, labels):
    expected = _of_labels(weights, labels) * np.asarray(x)
    np.testing.assert_allclose(attribution.grad_x_input(linear_logits, weights, x, labels), expected, atol=1e-6)
    integrated = attribution.integrated_gradients(linear_logits, weights, x, labels, steps=7)
    np.testing.assert_allclose(integrated, expected, atol=1e-5)


def test_smoothgrad_of_a_linear_model_is_the_gradient_whatever_the_noise(weights, x, labels, key):
    maps = attribution.smoothgrad(linear_logits, weights, x, labels, key, noise=1.0, samples=4)
    np.testing.assert_allclose(maps, _of_labels(weights, labels), atol=1e-5)


def test_smoothgrad_goes_to_the_gradient_as_the_noise_goes_to_zero(curved, x, labels, key):
    gradient = attribution.gradient(curved_logits, curved, x, labels)

    def distance(noise: float) -> float:
        maps = attribution.smoothgrad(curved_logits, curved, x, labels, key, noise=noise, samples=8)
        return float(jnp.abs(maps - gradient).max() / jnp.abs(gradient).max())

    assert distance(0.0) < 1e-6
    assert distance(1e-3) < 1e-2 < distance(0.5)


def test_smoothgrad_of_a_quadratic_averages_the_noise_away(x, key):
    """The gradient of sum(x^2) is 2x; over noisy copies its mean is 2x with error 2 noise / sqrt(samples)."""

    def quadratic(_: Any, x: jax.Array) -> jax.Array:
        return jnp.stack([(x**2).sum((1, 2, 3)), jnp.zeros(x.shape[0])], axis=1)

    maps = attribution.smoothgrad(quadratic, None, x, jnp.zeros(2, int), key, noise=0.2, samples=400)
    error = np.asarray(maps - 2 * x)
    np.testing.assert_allclose(error.std(), 2 * 0.2 / 20, rtol=0.2)


def test_integrated_gradients_of_a_square_is_the_square_of_the_way(x, key):
    """d/dx of x^2 is linear along the line, where the midpoint rule is exact: the map is x^2 - baseline^2."""

    def quadratic(_: Any, x: jax.Array) -> jax.Array:
        return jnp.stack([(x**2).sum((1, 2, 3)), jnp.zeros(x.shape[0])], axis=1)

    baseline = jax.random.uniform(key, SHAPE)
    maps = attribution.integrated_gradients(quadratic, None, x, jnp.zeros(2, int), baseline=baseline, steps=3)
    np.testing.assert_allclose(maps, x**2 - baseline[None] ** 2, atol=1e-5)


@pytest.mark.parametrize("baseline", [0.0, 0.5])
def test_integrated_gradients_are_complete_on_a_network(baseline, network, key):
    variables = network.init(key)
    x = jax.random.uniform(key, (3, 8, 8, 1))
    labels = jnp.array([1, 5, 9])
    line = {"baseline": baseline}

    @jax.jit
    def measure(variables: Any) -> jax.Array:
        maps = attribution.integrated_gradients(network.logits, variables, x, labels, steps=128, **line)
        return attribution.completeness_error(network.logits, variables, x, labels, maps, **line)

    error = measure(variables)
    assert float(error.max()) < 0.01


def test_completeness_error_sees_a_map_that_is_not_complete(weights, x, labels):
    maps = attribution.integrated_gradients(linear_logits, weights, x, labels)
    error = attribution.completeness_error(linear_logits, weights, x, labels, 1.25 * maps)
    np.testing.assert_allclose(error, 0.25, atol=1e-4)


def test_grad_cam_of_a_linear_head_is_its_closed_form(weights, x, labels):
    maps = attribution.grad_cam(feature_apply, {"head": weights}, x, labels, layer="features")
    channel_weights = _of_labels(weights, labels).mean((1, 2))
    expected = np.maximum(np.einsum("bhwc,bc->bhw", np.asarray(x) ** 2, channel_weights), 0)
    assert (expected > 0).any()
    assert (expected == 0).any()
    np.testing.assert_allclose(maps, expected, atol=1e-5)


def test_layer_cam_of_a_linear_head_is_its_closed_form(weights, x, labels):
    maps = attribution.layer_cam(feature_apply, {"head": weights}, x, labels, layer="features")
    positive = np.maximum(_of_labels(weights, labels), 0)
    np.testing.assert_allclose(maps, (positive * np.asarray(x) ** 2).sum(-1), atol=1e-5)


def test_grad_cam_on_a_network_explains_the_label_asked_for(network, key):
    variables = network.init(key)
    x = jax.random.uniform(key, (1, 8, 8, 1))
    explain = jax.jit(partial(attribution.grad_cam, network.apply, layer="conv2"))
    maps = [explain(variables, x, jnp.array([label])) for label in range(10)]
    assert maps[0].shape == (1, 4, 4)
    assert len({np.asarray(m).tobytes() for m in maps}) > 5  # a map without positive part is zero for any label
    # Raising the activation against the derivative by a little must change the logit by their product.
    layer = partial(attribution.activation_and_derivative, network.apply, layer="conv2")
    activation, derivative = jax.jit(layer)(variables, x, jnp.array([3]))
    step = jnp.where(activation > 0, 1e-3 * jnp.sign(derivative), 0.0)
    raised, _ = network.apply(variables, x, {"conv2": step})
    change = float(raised[0, 3] - network.logits(variables, x)[0, 3])
    np.testing.assert_allclose(change, float((step * derivative).sum()), rtol=0.05)


def test_randomising_the_parameters_changes_every_map(network, key):
    """The sanity check of Adebayo et al. (2018): a map that survives other weights explains no model."""
    x = jax.random.uniform(key, (1, 8, 8, 1))
    labels = jnp.array([3])

    @jax.jit
    def explain(variables: Any) -> dict[str, jax.Array]:
        return {
            "gradient": attribution.gradient(network.logits, variables, x, labels),
            "smoothgrad": attribution.smoothgrad(network.logits, variables, x, labels, key, samples=4),
            "integrated": attribution.integrated_gradients(network.logits, variables, x, labels, steps=4),
            "grad_cam": attribution.grad_cam(network.apply, variables, x, labels, layer="conv1"),
            "layer_cam": attribution.layer_cam(network.apply, variables, x, labels, layer="conv1"),
        }

    one, other = explain(network.init(key)), explain(network.init(jax.random.fold_in(key, 9)))
    for name in one:
        distance, size = jnp.abs(one[name] - other[name]).sum(), jnp.abs(one[name]).sum() + jnp.abs(other[name]).sum()
        assert float(distance) > 0.2 * float(size) > 0, name


def test_enlarge_keeps_constants_and_the_order_of_a_gradient():
    ramp = jnp.arange(4.0)[None, None, :] * jnp.ones((1, 4, 1))
    large = attribution.enlarge(ramp, height=8, width=16)
    assert large.shape == (1, 8, 16)
    assert bool((jnp.diff(large, axis=2) >= 0).all())
    np.testing.assert_allclose(attribution.enlarge(jnp.full((2, 3, 3), 0.7), height=9, width=5), 0.7, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w, x: attribution.gradient(linear_logits, w, x, jnp.array([0, 4])), "Labels must lie in 0..3"),
        (
            lambda w, x: attribution.gradient(lambda _, x: x.sum((1, 2, 3)), w, x, jnp.array([0, 1])),
            r"must return logits of shape \[2, classes\]",
        ),
        (
            lambda w, x: attribution.integrated_gradients(linear_logits, w, x, jnp.array([0, 1]), steps=0),
            "Invalid steps 0",
        ),
        (
            lambda w, x: attribution.smoothgrad(linear_logits, w, x, jnp.array([0, 1]), jax.random.key(0), samples=0),
            "Invalid samples 0: expected a whole number of at least 1",
        ),
        (
            lambda w, x: attribution.smoothgrad(linear_logits, w, x, jnp.array([0, 1]), jax.random.key(0), noise=-1.0),
            "Invalid noise -1.0: expected a number in ",
        ),
        (
            lambda w, x: attribution.grad_cam(feature_apply, {"head": w}, x, jnp.array([0, 1]), layer="conv9"),
            "There is no layer 'conv9'; choose from features, logits",
        ),
        (
            lambda w, x: attribution.layer_cam(feature_apply, {"head": w}, x, jnp.array([0, 1]), layer="logits"),
            "Layer 'logits' has no height and width to map; choose from features",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(call, message, weights, x):
    with pytest.raises(InputError, match=message):
        call(weights, x)


@pytest.mark.parametrize(
    ("images", "labels", "sentence"),
    [
        (lambda x: (x * 255).astype(np.uint8), lambda y: y, "divide 8-bit pixels by 255"),
        (lambda x: x * 255, lambda y: y, r"Images must lie in \[0, 1\]"),
        (lambda x: x[0], lambda y: y, "Images must have shape"),
        (lambda x: x, lambda y: y[:, None], "Labels must be integers of shape"),
        (lambda x: x, lambda y: y[:1], "Labels must be integers of shape"),
        (lambda x: x, lambda y: np.eye(4)[y], "Labels must be integers of shape"),
        (lambda x: x, lambda y: y - 1, r"Labels must lie in 0\.\.3"),
    ],
)
@pytest.mark.parametrize(
    "explain",
    [
        attribution.gradient,
        attribution.grad_x_input,
        partial(attribution.smoothgrad, key=jax.random.key(0), samples=2),
        partial(attribution.integrated_gradients, steps=2),
        partial(attribution.completeness_error, maps=np.zeros((2, 8, 8, 1))),
    ],
)
def test_images_and_labels_that_do_not_fit_are_refused(explain, images, labels, sentence, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it would refuse them first
    x, y = np.linspace(0, 1, 2 * 64, dtype=np.float32).reshape(2, 8, 8, 1), np.array([0, 3])
    with pytest.raises(InputError, match=sentence):
        explain(linear_logits, jnp.ones((8, 8, 1, 4)), images(x), labels(y))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize("count", [64, 4096])
def test_sums_of_many_gradients_are_exact_in_half_precision(dtype, count):
    """A running sum in the dtype of the images stops growing at 256 (bfloat16) or 2048 (float16) terms of one size."""

    def logits(variables, x):
        return (x.reshape(len(x), -1) @ variables).astype(jnp.float32)

    x, ones, labels = jnp.full((1, 2, 2, 1), 0.5, dtype), jnp.ones((4, 2), dtype), jnp.array([0])
    integrated = attribution.integrated_gradients(logits, ones, x, labels, steps=count)
    smooth = attribution.smoothgrad(logits, ones, x, labels, jax.random.key(0), samples=count)
    assert integrated.dtype == smooth.dtype == jnp.float32
    assert float(integrated.sum()) == pytest.approx(2.0)
    np.testing.assert_allclose(smooth, 1.0)


@pytest.mark.parametrize("noise", [0.1, np.float64(0.1), np.float32(0.1)])
@pytest.mark.usefixtures("as_a_user")
def test_smoothgrad_draws_its_noise_in_float32_for_images_of_half_precision(noise):
    """The gradient of sum(x^2) / 2 is the noisy image itself: its mean is the image plus the mean of the noise."""
    seen = []

    def logits(_, x):
        seen.append(x.dtype)
        squares = (x.astype(jnp.float32) ** 2).sum((1, 2, 3)) / 2
        return jnp.stack([squares, 0 * squares], axis=1)

    x, labels, key = jnp.full((1, 8, 8, 1), 0.5, jnp.bfloat16), jnp.array([0]), jax.random.key(0)
    maps = attribution.smoothgrad(logits, None, x, labels, key, noise=noise, samples=1)
    assert set(seen) == {jnp.dtype(jnp.bfloat16)}
    drawn = jax.random.normal(jax.random.split(key, 1)[0], x.shape, jnp.float32)
    np.testing.assert_array_equal(maps, (0.5 + 0.1 * drawn).astype(jnp.bfloat16).astype(jnp.float32))


def test_completeness_error_of_an_image_equal_to_the_baseline_is_zero():
    x = jnp.stack([jnp.zeros((2, 2, 1)), jnp.full((2, 2, 1), 0.5)])
    weights, labels = jnp.ones((2, 2, 1, 2)), jnp.array([0, 1])
    maps = attribution.integrated_gradients(linear_logits, weights, x, labels)
    errors = attribution.completeness_error(linear_logits, weights, x, labels, maps)
    np.testing.assert_allclose(errors, [0, 0], atol=1e-6)
    off = attribution.completeness_error(linear_logits, weights, x, labels, maps + 1)
    assert float(off[0]) == float("inf"), "a map that differs from no change at all has no finite relative error"


@pytest.mark.parametrize(
    ("sentence", "explain"),
    [
        ("returns probabilities", lambda x, y: attribution.gradient(lambda v, x: jax.nn.softmax(_sums(x)), 0, x, y)),
        ("NaN logits for 2 of 2", lambda x, y: attribution.gradient(lambda v, x: _sums(x) * jnp.nan, 0, x, y)),
        ("logits_fn must be a function", lambda x, y: attribution.gradient(3, 0, x, y)),
        (
            "into NumPy or Python",
            lambda x, y: attribution.gradient(lambda v, x: np.stack([x, x]).sum((2, 3, 4)).T, 0, x, y),
        ),
        (
            r"baseline must lie in \[0, 1\]",
            lambda x, y: attribution.integrated_gradients(_model, 0, x, y, baseline=127),
        ),
        (
            "baseline must lie .* hold NaN",
            lambda x, y: attribution.integrated_gradients(_model, 0, x, y, baseline=np.nan),
        ),
        (
            "baseline must be a pixel value or broadcast to",
            lambda x, y: attribution.integrated_gradients(_model, 0, x, y, baseline=np.zeros(3)),
        ),
        (
            "baseline must hold real numbers, as integers or floats; got <U5",
            lambda x, y: attribution.integrated_gradients(_model, 0, x, y, baseline="black"),
        ),
        (
            "baseline must hold real numbers, as integers or floats; got bool",
            lambda x, y: attribution.integrated_gradients(_model, 0, x, y, baseline=True),
        ),
        (
            "baseline must hold real numbers, as integers or floats; got complex64",
            lambda x, y: attribution.integrated_gradients(_model, 0, x, y, baseline=np.complex64(1j)),
        ),
        (
            "baseline must hold real numbers, as integers or floats; got bool",
            lambda x, y: attribution.completeness_error(_model, 0, x, y, x, baseline=np.ones((2, 2, 1), bool)),
        ),
        (
            "baseline must be an array; got a ragged list",
            lambda x, y: attribution.integrated_gradients(_model, 0, x, y, baseline=[[0.0], [0.0, 1.0]]),
        ),
        ("apply must be a function", lambda x, y: attribution.grad_cam(_model, 0, x, y, layer="a")),
        ("returned no taps", lambda x, y: attribution.grad_cam(lambda v, x, p: _sums(x), 0, x, y, layer="a")),
        ("no layer \\['a'\\]", lambda x, y: attribution.grad_cam(_tapped(_sums), 0, x, y, layer=["a"])),
        (
            "returns probabilities",
            lambda x, y: attribution.grad_cam(_tapped(lambda x: jax.nn.softmax(_sums(x))), 0, x, y, layer="a"),
        ),
        (
            "NaN logits for 2 of 2",
            lambda x, y: attribution.layer_cam(_tapped(lambda x: jnp.nan * _sums(x)), 0, x, y, layer="a"),
        ),
        (r"Maps must have shape \[b, h, w, c\]", lambda x, y: attribution.magnitude(x[..., 0])),
        ("Maps must be an array, not str", lambda x, y: attribution.completeness_error(_model, 0, x, y, "maps")),
        (
            "Maps must hold real numbers, as integers or floats; got <U1",
            lambda x, y: attribution.completeness_error(_model, 0, x, y, np.full(x.shape, "a")),
        ),
        ("Maps must hold real numbers", lambda x, y: attribution.magnitude(np.full(x.shape, "a"))),
        (
            "Maps must hold real numbers",
            lambda x, y: attribution.enlarge(np.full(x.shape[:3], "a"), height=4, width=4),
        ),
        (r"Maps must have shape \[b, rows, columns\]", lambda x, y: attribution.enlarge(x, height=4, width=4)),
        ("Invalid height 0", lambda x, y: attribution.enlarge(x[..., 0], height=0, width=4)),
    ],
)
def test_models_baselines_and_maps_that_do_not_fit_are_refused(sentence, explain, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it would refuse them first
    with pytest.raises(InputError, match=sentence):
        explain(jnp.full((2, 2, 2, 1), 0.5), jnp.array([0, 1]))


def _sums(x):
    return jnp.stack([x.sum((1, 2, 3)), -x.sum((1, 2, 3))], axis=1)


def _model(variables, x):
    return _sums(x)


def _tapped(logits):
    def apply(variables, x, perturbations):
        x = x + perturbations.get("a", 0)
        return logits(x), {"a": x}

    return apply


def test_maps_may_be_lists_and_tensors_of_torch(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it would refuse them first
    maps = np.linspace(-1, 1, 8, dtype=np.float32).reshape(1, 2, 2, 2)
    large = attribution.enlarge(maps[..., 0], height=4, width=4)
    for kind in (np.ndarray.tolist, torch.tensor):
        np.testing.assert_array_equal(attribution.magnitude(kind(maps)), np.abs(maps).max(-1))
        np.testing.assert_array_equal(attribution.enlarge(kind(maps[..., 0]), height=4, width=4), large)


@pytest.mark.usefixtures("as_a_user")
def test_a_baseline_may_be_a_tensor_that_requires_a_gradient():
    x, y = jnp.full((2, 2, 2, 1), 0.5), jnp.array([0, 1])
    tensor, number = (
        attribution.integrated_gradients(_model, 0, x, y, baseline=baseline)
        for baseline in (torch.full((2, 2, 1), 0.25).requires_grad_(), 0.25)
    )
    np.testing.assert_array_equal(tensor, number)


def test_integrated_gradients_of_pixels_at_the_baseline_are_zero_where_the_derivative_is_infinite():
    """Along the way from a black baseline a black pixel does not move: its share is 0, not infinity times 0."""

    def logits(weights, x):
        return jnp.sqrt(x.reshape(len(x), -1)) @ weights

    x, weights = jnp.array([0.0, 0.25, 1.0, 0.0]).reshape(1, 2, 2, 1), jnp.ones((4, 2))
    maps = attribution.integrated_gradients(logits, weights, x, jnp.array([0]), steps=256)
    np.testing.assert_allclose(maps.ravel(), [0, 0.5, 1, 0], rtol=0.03)
