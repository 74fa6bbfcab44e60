"""Networks of other frameworks are measured and attacked as functions, and saved activations layer by layer."""

import functools
from collections import OrderedDict

import equinox as eqx
import flax.linen as linen
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import torch
from flax import nnx

import mi_jax as mj
from mi_jax.errors import InputError

SHAPE = (4, 4, 1)
ATTACK = mj.attacks.PGD(steps=1)


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.Conv(2, (3, 3), name="conv1")(x))
        return linen.Dense(3, name="head")(x.reshape(len(x), -1))


class Nnx(nnx.Module):
    def __init__(self):
        self.hidden, self.norm = nnx.Linear(16, 5, rngs=nnx.Rngs(0)), nnx.BatchNorm(5, rngs=nnx.Rngs(0))
        self.head = nnx.Linear(5, 3, rngs=nnx.Rngs(1))

    def __call__(self, x):
        h = nnx.relu(self.norm(self.hidden(x.reshape(len(x), -1))))
        return self.head(h), {"zeroth": x, "hidden": h}


@pytest.fixture(scope="module")
def dataset() -> mj.data.Dataset:
    rng = np.random.default_rng(0)
    return mj.data.from_arrays(rng.integers(0, 256, (30, *SHAPE), np.uint8), np.arange(30) % 3)


@pytest.fixture(scope="module")
def x(dataset) -> np.ndarray:
    return dataset.test.images / np.float32(255)


def study(network, variables, dataset):
    return mj.study("confusion", network, variables, dataset, samples=6, attack=ATTACK)


def test_a_linen_model_is_studied_as_it_is_and_its_captured_layers_are_taps_in_their_order(dataset, x):
    model = Linen()
    variables = model.init(jax.random.key(0), x)
    assert {"accuracy", "confidence_right"} <= set(study(model, variables, dataset).quantity)
    network, own = mj.models.from_function(
        lambda v, x: model.apply(v, x, capture_intermediates=True), variables, input_shape=SHAPE
    )
    assert network.layers == ("conv1", "head", "logits")
    assert network.tap_shapes["conv1"] == (4, 4, 2)
    np.testing.assert_allclose(network.apply(own, x)[0], model.apply(variables, x), rtol=1e-6)
    attacked = mj.attacks.pgd(network.logits, own, x, dataset.test.labels, 0, config=ATTACK)
    np.testing.assert_array_equal(
        attacked.success, network.logits(own, attacked.images).argmax(1) != dataset.test.labels
    )


def test_an_nnx_model_and_a_function_of_weights_give_their_own_logits_and_taps(x):
    model = Nnx()
    model.eval()
    network, own = mj.models.from_function(lambda model, x: model(x), model, input_shape=SHAPE)
    assert network.layers == ("zeroth", "hidden", "logits")
    logits, taps = network.apply(own, x)
    np.testing.assert_allclose(logits, model(x)[0], rtol=1e-5)
    np.testing.assert_allclose(taps["hidden"], model(x)[1]["hidden"], rtol=1e-5)
    weights = np.eye(16, 3, dtype=np.float32)
    network, own = mj.models.from_function(lambda w, x: x.reshape(len(x), -1) @ w, weights, input_shape=SHAPE)
    np.testing.assert_allclose(network.logits(own, x), x.reshape(len(x), -1)[:, :3])
    assert (network.layers, network.num_classes, network.parameter_count) == (("logits",), 3, 48)


def test_an_equinox_model_is_given_whole_with_its_activation_functions(dataset, x):
    model = eqx.nn.MLP(16, 3, 8, 1, key=jax.random.key(0))
    network, own = mj.models.from_function(
        lambda model, x: jax.vmap(model)(x.reshape(len(x), -1)), model, input_shape=SHAPE
    )
    np.testing.assert_allclose(network.logits(own, x), jax.vmap(model)(x.reshape(len(x), -1)), rtol=1e-5)
    assert {"clean", "adversarial"} <= set(study(network, own, dataset).inputs)


class Jitted:
    """Two layers whose names do not sort in their order, compiled as a method."""

    @functools.partial(jax.jit, static_argnums=0)
    def apply(self, w, x):
        hidden = x.reshape(len(x), -1) @ w
        return hidden[:, :3], {"stem": hidden, "block": 2 * hidden}


@functools.partial(jax.jit, static_argnames="scale")
def compiled(w, x, scale=2.0):
    hidden = x.reshape(len(x), -1) @ w
    return hidden[:, :3], {"stem": hidden, "block": scale * hidden}


@jax.jit
def ordered(w, x):
    return compiled(w, x)[0], OrderedDict([("stem", x), ("block", 2 * x)])


@pytest.mark.parametrize("function", [compiled, jax.jit(compiled), Jitted(), ordered, lambda w, x: ordered(w, x)])
def test_layers_of_a_compiled_function_keep_their_order(function, x):
    weights = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    network, own = mj.models.from_function(function, weights, input_shape=SHAPE)
    assert network.layers == ("stem", "block", "logits")
    logits, taps = network.apply(own, x)
    np.testing.assert_allclose(logits, x.reshape(len(x), -1) @ weights[:, :3], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(taps["block"], 2 * taps["stem"], rtol=1e-6)


def test_a_function_has_the_cost_of_its_products_and_is_folded_as_it_is(x):
    weights = np.ones((16, 3), np.float32)
    network, own = mj.models.from_function(lambda w, x: x.reshape(len(x), -1) @ w, weights, input_shape=SHAPE)
    assert network.flops == 2 * weights.size
    folded, variables = network.fold(own)
    np.testing.assert_array_equal(folded.logits(variables, x), network.logits(own, x))


def test_random_variables_of_a_function_are_its_own_in_another_order(x):
    weights = {"w": np.arange(48, dtype=np.float32).reshape(16, 3)}
    network, own = mj.models.from_function(lambda v, x: x.reshape(len(x), -1) @ v["w"], weights, input_shape=SHAPE)
    (drawn,) = network.init(jax.random.key(0))["params"]
    assert not np.array_equal(drawn, own["params"][0])
    np.testing.assert_array_equal(np.sort(np.ravel(drawn)), np.arange(48))


def test_variables_of_another_network_are_refused(x):
    weights = jnp.ones(3)
    network, _ = mj.models.from_function(
        lambda w, x: x.reshape(len(x), -1)[:, :3] * w[None], weights, input_shape=SHAPE
    )
    with pytest.raises(InputError, match="The variables are not those of own network: pass those that came with it"):
        network.logits({"params": {"w": weights}, "batch_stats": {}}, x)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda w, x: x, "must return logits of shape"),
        (lambda w, x: x @ jnp.ones((7, 3)), "fails on images of shape"),
        (lambda w, x: (x[:, 0, 0, :] @ jnp.ones((1, 3)), {"sum": x.sum()}), "'sum' must be a floating array"),
        (3, "must be a function or have a method apply; got int"),
    ],
)
def test_functions_that_are_no_classifiers_are_refused_in_a_sentence(function, sentence):
    with pytest.raises(InputError, match=sentence):
        mj.models.from_function(function, np.ones(3), input_shape=SHAPE)


def test_what_a_function_cannot_do_is_said(dataset, x):
    network, own = mj.models.from_function(lambda w, x: x[:, 0, 0] @ w, np.ones((1, 3)), input_shape=SHAPE)
    with pytest.raises(InputError, match="cannot be trained"):
        network.apply_train(own, x, jax.random.key(0))
    with pytest.raises(InputError, match="does not support perturbations"):
        network.apply(own, x, {"logits": jnp.zeros(3)})
    with pytest.raises(InputError, match="has 2 logits, fewer than the 3 classes"):
        study(lambda w, x: x[:, 0, 0] @ w, np.ones((1, 2)), dataset)
    with pytest.raises(InputError, match="not APGD"):
        mj.study("confusion", network, own, dataset, attack=mj.attacks.APGD())
    for unfit in (mj.attacks.PGD(restarts=2), mj.attacks.PGD(loss="kl")):
        with pytest.raises(InputError, match="since a study attacks from the image itself"):
            mj.study("confusion", network, own, dataset, attack=unfit)
    empty = mj.data.from_arrays(dataset.train.images, dataset.train.labels, name="untested", test_share=0.0)
    with pytest.raises(InputError, match="The test split of untested has no images; a study needs at least 1"):
        study(network, own, empty)
    with pytest.raises(InputError, match="The test split of untested has no images"):
        mj.study("corruptions", network, own, dataset, test_sets={"other": empty})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"samples": 2.5}, "Invalid samples 2.5: expected a whole number of at least 1"),
        ({"samples": None}, "Invalid samples None: expected a whole number of at least 1"),
        ({"dataset": "digits"}, "Invalid dataset: expected a data set of mi_jax.data.load or from_arrays, not str"),
        ({"dataset": None}, "Invalid dataset: expected a data set of mi_jax.data.load or from_arrays, not NoneType"),
        ({"name": "corruptions", "test_sets": [3]}, "Invalid test_sets: expected data sets by name, .* not list"),
        ({"name": "corruptions", "test_sets": {"fog": 3}}, "Invalid test_sets: expected data sets by name, .* not int"),
        ({"baseline": {}}, "Invalid baseline: expected a function that loads variables, not dict"),
        ({"name": "all"}, "Invalid name 'all': expected one study; choose from autoattack, confusion"),
        ({"name": None}, "Invalid name: expected one of autoattack, confusion, .* not NoneType"),
        ({"name": "confusion", "test_sets": True}, "The study confusion takes no test_sets; leave them out, or run"),
    ],
)
def test_arguments_of_a_study_that_do_not_fit_are_refused_in_a_sentence(dataset, given, words, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it would refuse them first
    given = {"name": "confusion", "dataset": dataset} | given
    if given.get("test_sets") is True:
        given["test_sets"] = {"fog_1": dataset}
    with pytest.raises(InputError, match=words):
        mj.study(network=lambda w, x: x[:, 0, 0] @ w, variables=np.ones((1, 3)), **given)


@pytest.fixture(scope="module")
def layers() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    conv = torch.randn(40, 2, 3, 3, generator=generator).requires_grad_()
    return {"conv1": conv, "logits": torch.nn.functional.one_hot(labels).to(torch.bfloat16)}, labels


def test_tensors_files_and_memory_maps_of_activations_give_the_table_of_kde(layers, tmp_path):
    tensors, labels = layers
    table = mj.information.measure_layers(tensors, labels, noise_variance=0.5)
    for name, tensor in tensors.items():
        found = mj.information.kde(tensor.detach().float().numpy(), labels.numpy(), noise_variance=0.5)
        assert table.loc[name, "i_tx_upper"] == pytest.approx(float(found.i_tx_upper) / np.log(2))
        assert table.loc[name, "i_ty_certified_lower"] == pytest.approx(float(found.i_ty_certified_lower) / np.log(2))
        assert table.loc[name, "undersampled"] == found.undersampled
    assert table.features.to_dict() == {"conv1": 18, "logits": 2}
    arrays = {name: tensor.detach().float().numpy() for name, tensor in tensors.items()}
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    np.savez(tmp_path / "all.npz", **arrays)
    mapped = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in arrays}
    for given in (tmp_path, tmp_path / "all.npz", mapped):
        again = mj.information.measure_layers(given, labels.numpy(), noise_variance=0.5)
        assert again.equals(table)


def test_a_draw_of_rows_is_the_same_for_every_layer_and_units_can_be_nats(layers):
    tensors, _ = layers
    table = mj.information.measure_layers({"a": tensors["conv1"], "b": tensors["conv1"]}, samples=20, unit="nats")
    assert table.n.tolist() == [20, 20]
    assert table.loc["a"].equals(table.loc["b"])
    assert table.loc["a", "i_tx_upper"] <= np.log(20)
    assert "i_ty_upper" not in table


def test_activations_that_cannot_be_measured_are_refused_by_layer(layers, tmp_path):
    tensors, labels = layers
    measure = mj.information.measure_layers
    with pytest.raises(InputError, match="short has 10 rows and conv1 40"):
        measure({"conv1": tensors["conv1"], "short": tensors["conv1"][:10]})
    with pytest.raises(InputError, match="conv1 has 40 rows and labels 39"):
        measure(tensors, labels[:39])
    with pytest.raises(InputError, match="dead is constant"):
        measure({"dead": np.ones((5, 2))})
    with pytest.raises(InputError, match="at least one layer"):
        measure(tmp_path)
    (tmp_path / "broken.npy").write_text("no array")
    with pytest.raises(InputError, match=r"broken\.npy cannot be read as NumPy arrays"):
        measure(tmp_path)
    with pytest.raises(InputError, match="Two layers are named '1'; give each its own name"):
        measure({1: tensors["conv1"], "1": tensors["logits"]})


def test_files_that_do_not_hold_an_array_are_refused_by_name(tmp_path):
    measure, rows = mj.information.measure_layers, np.eye(4)
    np.savez(tmp_path / "archive.npz", a=rows)
    (tmp_path / "renamed.npy").write_bytes((tmp_path / "archive.npz").read_bytes())
    np.savez(tmp_path / "objects.npz", a=np.array([{}, {}]))
    damaged = bytearray((tmp_path / "archive.npz").read_bytes())
    damaged[len(damaged) // 2] ^= 255
    (tmp_path / "damaged.npz").write_bytes(damaged)
    np.save(tmp_path / "array.npy", rows)
    (tmp_path / "array.npz").write_bytes((tmp_path / "array.npy").read_bytes())
    for given in (tmp_path / "objects.npz", tmp_path / "damaged.npz", tmp_path / "array.npz", "~nouser/a.npy"):
        with pytest.raises(InputError, match=rf"^{given} cannot be read as NumPy arrays; save them with"):
            measure(given)
    for name in ("archive.npz", "renamed.npy"):
        sentence = rf"{name} is an archive of arrays; give the path of one array, saved with np\.save"
        for given in ({"activations": {"a": tmp_path / name}}, {"activations": rows, "labels": tmp_path / name}):
            with pytest.raises(InputError, match=sentence):
                measure(**given)
