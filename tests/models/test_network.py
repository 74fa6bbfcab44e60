"""Networks as hashable values and pure functions: taps, modes, dtypes, several seeds, and invalid input."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

import mi_jax as mj
from mi_jax.errors import InputError
from mi_jax.models import convolution

SMALL = partial(mj.models.create, num_classes=4, input_shape=(8, 8, 3), width=0.25)


@pytest.fixture(scope="module")
def vgg() -> mj.models.Network:
    return SMALL("vgg11")


@pytest.fixture(scope="module")
def variables(vgg) -> dict[str, Any]:
    return vgg.init(jax.random.key(3))


@pytest.fixture(scope="module")
def x() -> jax.Array:
    return jax.random.uniform(jax.random.key(4), (5, 8, 8, 3))


def test_a_network_is_a_hashable_value_without_arrays(vgg):
    assert SMALL("vgg") == vgg
    assert hash(SMALL("vgg")) == hash(vgg)
    assert vgg.arch == "vgg11"
    assert replace(vgg, width=0.5) != vgg
    assert jax.tree.leaves(vgg) == [vgg]


@pytest.mark.parametrize("arch", mj.models.ARCHITECTURES)
def test_every_architecture_takes_images_of_one_pixel_and_taps_its_layers_in_order(arch):
    """The tests of the registry take larger images, whose sides differ."""
    shape = (1, 1, 1)
    network = mj.models.create(arch, num_classes=3, input_shape=shape, width=0.25)
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0))
    logits, taps = jax.eval_shape(network.apply, variables, images)
    assert tuple(taps) == network.layers
    assert network.layers[-1] == "logits"
    assert {name: tap.shape for name, tap in taps.items()} == {n: (2, *s) for n, s in network.tap_shapes.items()}
    assert logits.shape == (2, 3)
    assert all(min(tap.shape) > 0 for tap in taps.values())
    assert set(variables) == {"params", "batch_stats"}
    assert (variables["batch_stats"] == {}) == (arch in ("mlp", "lenet", "cnn", "vib"))


@pytest.mark.parametrize(
    ("arch", "layers"),
    [
        ("mlp", ("dense1", "dense2", "dense3", "dense4", "logits")),
        ("lenet", ("conv1", "conv2", "dense1", "dense2", "logits")),
        ("vgg11", (*(f"conv{i}" for i in range(1, 9)), "logits")),
        ("vgg16", (*(f"conv{i}" for i in range(1, 14)), "logits")),
        ("resnet18", ("stem", "stage1", "stage2", "stage3", "stage4", "pooled", "logits")),
        ("wrn-10-1", ("stem", "stage1", "stage2", "stage3", "pooled", "logits")),
    ],
)
def test_layers_are_those_of_the_study(arch, layers):
    assert SMALL(arch).layers == layers


@pytest.mark.parametrize(
    ("arch", "flops"), [("vgg11", 0.306e9), ("resnet18", 1.11e9), ("wrn-28-10", 10.5e9), ("wrn-10-1", 0.025e9)]
)
def test_flops_of_a_cifar10_image_are_the_published_ones(arch, flops):
    assert mj.models.create(arch, num_classes=10, input_shape=(32, 32, 3)).flops == pytest.approx(flops, rel=5e-3)


def test_flops_of_a_multilayer_perceptron_are_two_per_weight():
    network = SMALL("mlp")
    biases = 256 + 5 + 5 + 5 + 4
    assert network.flops == 2 * (network.parameter_count - biases)


def products_in(jaxpr: Any) -> list[Any]:
    """The precision of each convolution and matrix product of a program."""
    found = [e.params["precision"] for e in jaxpr.eqns if e.primitive.name in ("dot_general", "conv_general_dilated")]
    inner = (part for equation in jaxpr.eqns for part in core.jaxprs_in_params(equation.params))
    return found + [precision for part in inner for precision in products_in(part)]


@pytest.mark.parametrize("arch", mj.models.ARCHITECTURES)
def test_every_product_of_a_float32_network_is_in_float32(arch):
    network = SMALL(arch, width=0.125)
    variables = jax.eval_shape(network.init, jax.random.key(0))
    program = jax.make_jaxpr(network.logits)(variables, jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32))
    assert set(products_in(program.jaxpr)) == {(jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)}


def test_taps_keep_their_order_through_jit(vgg, variables, x):
    _, taps = jax.jit(vgg.apply)(variables, x)
    assert tuple(taps) == vgg.layers
    deep = SMALL("vgg16")
    _, taps = jax.eval_shape(jax.jit(deep.apply), jax.eval_shape(deep.init, jax.random.key(0)), x)
    assert tuple(taps) == deep.layers  # conv10 after conv9, not after conv1


def test_taps_that_nobody_reads_cost_nothing(vgg, variables, x):
    """A tap after the last one read leaves no product in the compiled code, and logits alone cost as with taps."""

    def products(function: Any) -> int:
        compiled = jax.jit(function).lower(variables, x).compile().as_text()
        return compiled.count(" dot(") + compiled.count(" convolution(")

    first = products(lambda v, x: vgg.apply(v, x)[1]["conv1"])
    second = products(lambda v, x: vgg.apply(v, x)[1]["conv2"])
    everything = products(vgg.apply)
    assert 0 < first < second < everything
    assert products(lambda v, x: vgg.apply(v, x)[0]) == products(vgg.logits) == everything


def test_logits_are_those_of_apply(vgg, variables, x):
    logits, taps = vgg.apply(variables, x)
    np.testing.assert_allclose(vgg.logits(variables, x), logits, atol=1e-6)
    np.testing.assert_array_equal(taps["logits"], logits)


def test_methods_of_convolution_agree_on_a_whole_network(x):
    networks = [SMALL("wrn-10-1", convolution=method) for method in convolution.METHODS]
    variables = networks[0].init(jax.random.key(0))
    logits = [network.logits(variables, x) for network in networks]
    for other in logits[1:]:
        np.testing.assert_allclose(logits[0], other, atol=1e-5)


def test_seeds_under_vmap_equal_seeds_in_turn(vgg, x):
    keys = jax.random.split(jax.random.key(0), 3)
    together = jax.vmap(vgg.init)(keys)
    logits, _, statistics = jax.jit(jax.vmap(vgg.apply_train, in_axes=(0, None, 0)))(together, x, keys)
    evaluated = jax.jit(jax.vmap(vgg.logits, in_axes=(0, None)))(together, x)
    for seed, key in enumerate(keys):
        single = vgg.init(key)
        jax.tree.map(np.testing.assert_array_equal, single, jax.tree.map(lambda leaf, i=seed: leaf[i], together))
        one, _, moved = vgg.apply_train(single, x, key)
        np.testing.assert_allclose(logits[seed], one, atol=1e-4)
        np.testing.assert_allclose(evaluated[seed], vgg.logits(single, x), atol=1e-5)
        jax.tree.map(lambda a, b, i=seed: np.testing.assert_allclose(a[i], b, atol=1e-5), statistics, moved)


def test_initial_weights_have_the_documented_variances():
    network = mj.models.create("vgg11", num_classes=10, input_shape=(32, 32, 3), width=0.5)
    params = network.init(jax.random.key(0))["params"]
    for block in ("conv2", "conv5", "conv8"):
        kernel = np.asarray(params[block]["conv"]["kernel"])
        assert kernel.std() == pytest.approx((2 / (9 * kernel.shape[-1])) ** 0.5, rel=0.03)
        assert abs(kernel.mean()) < 0.01
    head = np.asarray(params["head"]["kernel"])
    assert head.std() == pytest.approx(head.shape[0] ** -0.5, rel=0.06)
    assert not np.asarray(params["head"]["bias"]).any()
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params) if leaf.ndim == 4])
    assert len(np.unique(flat)) > 0.85 * flat.size  # no number used in two layers


def test_training_mode_uses_the_batch_and_evaluation_mode_the_running_statistics(vgg, variables, x):
    other = jnp.concatenate([x[:1], 0.2 * x[1:]])
    np.testing.assert_allclose(vgg.logits(variables, x)[0], vgg.logits(variables, other)[0], atol=1e-6)
    trained, _, statistics = vgg.apply_train(variables, x, jax.random.key(0))
    assert float(jnp.abs(trained[0] - vgg.apply_train(variables, other, jax.random.key(0))[0][0]).max()) > 1e-3
    assert jax.tree.structure(statistics) == jax.tree.structure(variables["batch_stats"])
    mean = statistics["conv1"]["norm"]["mean"] - 0.9 * variables["batch_stats"]["conv1"]["norm"]["mean"]
    kernel = variables["params"]["conv1"]["conv"]["kernel"]
    activation = convolution.conv2d(x, kernel, padding=1)
    np.testing.assert_allclose(mean, 0.1 * activation.mean((0, 1, 2)), atol=1e-6)


def test_training_mode_can_be_differentiated(vgg, variables, x):
    def loss(params: Any) -> tuple[jax.Array, Any]:
        logits, _, statistics = vgg.apply_train({**variables, "params": params}, x, jax.random.key(0))
        return (logits**2).sum(), statistics

    gradients, _ = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    assert jax.tree.structure(gradients) == jax.tree.structure(variables["params"])
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(gradients))


def test_normalisation_is_inside_the_network(vgg, variables, x):
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    normalising = SMALL("vgg11", mean=mean, std=std)
    expected = vgg.logits(variables, (x - jnp.array(mean)[None, None, None]) / jnp.array(std)[None, None, None])
    np.testing.assert_allclose(normalising.logits(variables, x), expected, atol=1e-5)
    grey = SMALL("vgg11", mean=0.5, std=0.5)
    np.testing.assert_allclose(grey.logits(variables, x), vgg.logits(variables, 2 * x - 1), atol=1e-5)


def test_bfloat16_keeps_float32_parameters_statistics_and_logits(vgg, variables, x):
    half = SMALL("vgg11", dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(half.init(jax.random.key(3)))} == {jnp.dtype("float32")}
    logits, taps, statistics = half.apply_train(variables, x, jax.random.key(0))
    assert logits.dtype == taps["logits"].dtype == jnp.float32
    assert taps["conv1"].dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(statistics)} == {jnp.dtype("float32")}
    exact = vgg.logits(variables, x)
    error = float(jnp.abs(half.logits(variables, x) - exact).max() / jnp.abs(exact).max())
    assert 1e-5 < error < 0.05
    gradient = jax.grad(lambda x: half.logits(variables, x).sum())(x)
    assert gradient.dtype == jnp.float32


@pytest.mark.parametrize("arch", ["lenet", "wrn-10-1"])
def test_other_families_compute_in_bfloat16(arch, x):
    half, full = SMALL(arch, dtype="bfloat16"), SMALL(arch)
    variables = full.init(jax.random.key(0))
    logits, reference = half.logits(variables, x), full.logits(variables, x)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, reference, atol=0.05 * float(jnp.abs(reference).max()))


def test_a_perturbation_is_added_at_its_tap_and_nowhere_before(vgg, variables, x):
    added = 0.1 * jax.random.normal(jax.random.key(1), (5, *vgg.tap_shapes["conv3"]))
    _, plain = vgg.apply(variables, x)
    logits, taps = vgg.apply(variables, x, {"conv3": added})
    np.testing.assert_allclose(taps["conv3"], plain["conv3"] + added, atol=1e-6)
    np.testing.assert_allclose(taps["conv2"], plain["conv2"], atol=1e-6)
    assert float(jnp.abs(logits - plain["logits"]).max()) > 1e-4
    with pytest.raises(InputError, match="There is no layer 'conv99'; choose from conv1, conv2"):
        vgg.apply(variables, x, {"conv99": added})


@pytest.mark.parametrize(
    ("perturbations", "message"),
    [
        ([np.zeros(3)], "perturbations must be a dict from names of layers to arrays, not list"),
        ({"conv3": np.zeros((5, 7, 7, 3))}, r"perturbation of 'conv3' must have shape \(5, .*\); got \(5, 7, 7, 3\)"),
        ({"conv3": "a"}, "perturbation of 'conv3' must be an array, not str"),
    ],
)
def test_perturbations_of_another_form_are_refused(vgg, variables, x, perturbations, message):
    with pytest.raises(InputError, match=message):
        vgg.apply(variables, x, perturbations)


def test_forward_and_input_gradient_are_traced_once_for_one_shape(vgg, variables, x):
    traces = 0

    def score(variables: Any, x: jax.Array) -> jax.Array:
        nonlocal traces
        traces += 1
        return vgg.logits(variables, x).sum()

    step = jax.jit(jax.grad(score, argnums=1))
    for seed in range(3):
        step(vgg.init(jax.random.key(seed)), x)
    assert traces == 1
    assert step._cache_size() == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arch": "alexnet"}, "There is no architecture 'alexnet'; choose from .*lenet.*wrn-28-10.*vgg11"),
        ({"width": 1e-3}, "Invalid width 0.001: it leaves no channel of a layer of 64; use at least 0.0078125"),
        ({"width": 1e308}, r"Invalid width 1e\+308: a layer of 64 would have .* channels"),
        ({"width": 0.0}, "Invalid width 0.0: expected a positive number"),
        ({"width": float("nan")}, "Invalid width nan: expected a positive number"),
        ({"num_classes": 1}, "Invalid num_classes 1: expected a whole number of at least 2"),
        ({"input_shape": (32, 32)}, r"Invalid input_shape \(32, 32\): expected \(height, width, channels\)"),
        ({"input_shape": (0, 32, 3)}, r"Invalid input_shape \(0, 32, 3\)"),
        ({"dtype": "float16"}, "Invalid dtype 'float16': expected one of float32, tf32, bfloat16"),
        ({"mean": (0.1, 0.2)}, "expected one finite number, or 3"),
        ({"std": (1.0, 0.0, 1.0)}, "Invalid std .*: expected positive numbers"),
    ],
)
def test_arguments_of_which_no_network_can_be_built_are_refused(options, message):
    defaults = {"arch": "vgg11", "num_classes": 10, "input_shape": (32, 32, 3)}
    with pytest.raises(InputError, match=message):
        mj.models.create(**(defaults | options))


def test_numbers_may_come_from_numpy():
    network = SMALL("mlp", num_classes=np.array([0, 3]).max() + 1, mean=np.full(3, 0.5), std=np.full(3, 0.25))
    assert network == SMALL("mlp", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    assert hash(network)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), r"Images for this vgg11 must have shape \[batch, 8, 8, 3\]; got \(8, 8, 3\)"),
        (np.zeros((2, 3, 8, 8), np.float32), r"got \(2, 3, 8, 8\)"),
        (np.zeros((2, 8, 8, 1), np.float32), r"got \(2, 8, 8, 1\)"),
        (np.zeros((0, 8, 8, 3), np.float32), r"must be at least one; got shape \(0, 8, 8, 3\)"),
        (np.zeros((2, 8, 8, 3), np.uint8), "Images must be floating, in .*, not uint8; divide 8-bit pixels by 255"),
    ],
)
def test_images_of_another_shape_or_dtype_are_refused(vgg, variables, images, message):
    for call in (vgg.apply, vgg.logits, lambda v, x: vgg.apply_train(v, x, jax.random.key(0))):
        with pytest.raises(InputError, match=message):
            call(variables, images)


def test_variables_of_another_network_are_refused(vgg, x):
    other = SMALL("vgg11", input_shape=(8, 8, 3), width=0.5).init(jax.random.key(0))
    with pytest.raises(InputError, match=r"The variables do not fit this vgg11 of width 0.25: at .*conv1.* it has"):
        vgg.logits(other, x)
    for call in (vgg.apply, vgg.logits, lambda v, x: vgg.apply_train(v, x, jax.random.key(0))):
        with pytest.raises(InputError, match=r"do not fit this vgg11: at \['params'\] there must be an array, not str"):
            call({"params": "a"}, x)
    with pytest.raises(InputError, match=r"do not fit this vgg11: at \['params'\] there must be an array, not str"):
        vgg.fold({"params": "a"})


@pytest.mark.parametrize(
    "options",
    [
        {"input_shape": 32},
        {"input_shape": None},
        {"input_shape": (True, 8, 3)},
        {"input_shape": (3, 8, 8)},
        {"mean": "grey"},
        {"mean": [[0.1, 0.2], [0.3]]},
        {"mean": [123.7, 116.3, 103.5]},
        {"std": [58.4, 57.1, 57.4]},
        {"num_classes": jnp.float32(4)},
    ],
)
def test_shapes_and_normalisations_of_another_form_or_unit_are_refused(options):
    (name,) = options
    with pytest.raises(InputError, match=f"Invalid {name} .*: expected "):
        SMALL("mlp", **options)


def test_the_number_of_classes_may_be_an_array_and_images_that_are_none_are_refused():
    network = SMALL("mlp", num_classes=jnp.max(jnp.arange(4)) + 1)
    assert network == SMALL("mlp")
    with pytest.raises(InputError, match="Images must be an array, not NoneType"):
        network.logits({}, None)
