"""The variational information bottleneck: its code, its rate, and the information of the code by two estimators."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mi_jax as mj
from mi_jax.errors import InputError
from mi_jax.information import code_information, gaussian_rate
from mi_jax.runs.config import RunConfig
from mi_jax.studies.estimators.study import code_records
from mi_jax.training import ObjectiveConfig

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def network() -> mj.models.Network:
    return mj.models.create("vib", num_classes=10, input_shape=SHAPE, width=1 / 64)


@pytest.fixture(scope="module")
def variables(network) -> dict:
    return network.init(jax.random.key(0))


def test_the_network_of_the_paper_has_its_layers():
    network = mj.models.create("vib", num_classes=10, input_shape=(28, 28, 1))
    assert network.tap_shapes["code_mean"] == network.tap_shapes["code_std"] == (256,)
    sizes = [(784, 1024), (1024, 1024), (1024, 512), (256, 10)]
    assert network.parameter_count == sum((n + 1) * m for n, m in sizes)


def test_the_code_is_drawn_in_training_and_at_its_mean_otherwise(network, variables):
    x = jnp.full((2, *SHAPE), 0.5).at[1].set(0.2)
    logits, taps = network.apply(variables, x)
    head = variables["params"]["head"]
    np.testing.assert_allclose(logits, taps["code_mean"] @ head["kernel"] + head["bias"][None], rtol=1e-5, atol=1e-6)
    one, _, _ = network.apply_train(variables, x, jax.random.key(0))
    other, _, _ = network.apply_train(variables, x, jax.random.key(1))
    assert float(jnp.abs(one - other).max()) > 0
    np.testing.assert_array_equal(network.apply_train(variables, x, 0)[0], one)
    np.testing.assert_allclose(network.apply_train(variables, x, None)[0], logits, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="Invalid key 'seed': expected a JAX random key or an integer seed"):
        network.apply_train(variables, x, "seed")
    drawn = taps["code_mean"] + taps["code_std"] * jax.random.normal(jax.random.key(0), taps["code_mean"].shape)
    np.testing.assert_allclose(one, drawn @ head["kernel"] + head["bias"][None], rtol=1e-5, atol=1e-6)


def test_the_loss_is_cross_entropy_plus_beta_times_the_rate(network, variables):
    x, y, key = jax.random.uniform(jax.random.key(2), (6, *SHAPE)), jnp.arange(6), jax.random.key(3)
    losses = [
        float(ObjectiveConfig(beta=beta).objective("vib").loss(network, variables, x, x, y, key)[0])
        for beta in (0.0, 0.5)
    ]
    logits, taps, _ = network.apply_train(variables, x, key)
    entropy = optax.losses.softmax_cross_entropy_with_integer_labels(logits, y).mean()
    mean, std = np.asarray(taps["code_mean"], float), np.asarray(taps["code_std"], float)
    rate = np.mean(np.sum((std**2 + mean**2 - 1) / 2 - np.log(std), axis=1))
    assert losses[0] == pytest.approx(float(entropy), rel=1e-5)
    assert losses[1] == pytest.approx(float(entropy) + 0.5 * rate, rel=1e-4)
    np.testing.assert_allclose(np.mean(gaussian_rate(mean, std)), rate, rtol=1e-4)


def test_the_information_of_a_code_is_that_of_monte_carlo_where_its_noise_is_the_same_everywhere():
    mean = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    code = code_information(mean, np.full_like(mean, 0.7), key=0, draws=16)
    other = mj.information.monte_carlo(mean, noise_variance=0.49, key=1)
    assert code.i_tx == pytest.approx(float(other.i_tx), abs=4 * (code.i_tx_stderr + float(other.i_tx_stderr)))
    assert 0 < code.i_tx < code.rate
    assert not code.saturated


def test_the_error_of_the_information_of_a_code_is_that_of_its_draws():
    mean, std = np.random.default_rng(0).normal(size=(60, 2)), np.geomspace(0.1, 3, 60)[:, None].repeat(2, axis=1)
    found = [code_information(mean, std, key=seed) for seed in range(60)]
    spread = np.std([code.i_tx for code in found])
    assert np.mean([code.i_tx_stderr for code in found]) == pytest.approx(spread, rel=0.25)


@pytest.mark.parametrize(
    ("mean", "std", "sentence"),
    [
        (np.zeros((3, 2)), np.ones((3, 1)), "must have one shape"),
        (np.zeros((3, 2)), np.zeros((3, 2)), "std positive"),
        (np.full((3, 2), np.nan), np.ones((3, 2)), "must be finite"),
        (np.full((3, 2), 1j), np.ones((3, 2)), "mean must hold real numbers, as integers or floats; got complex128"),
        (np.zeros((3, 2)), [["1", "1"]] * 3, "std must hold real numbers, as integers or floats; got <U1"),
    ],
)
def test_codes_that_have_no_density_are_refused(mean, std, sentence):
    with pytest.raises(InputError, match=sentence):
        code_information(mean, std, key=0)
    with pytest.raises(InputError, match=sentence):
        gaussian_rate(mean, std)


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.float16])
def test_the_rate_of_narrow_numbers_does_not_overflow(dtype):
    mean, std = np.full((2, 3), 100, dtype), np.full((2, 3), 120, dtype)
    np.testing.assert_allclose(gaussian_rate(mean, std), gaussian_rate(mean.astype("f"), std.astype("f")))


def test_the_rate_is_recorded_beside_the_estimators_of_the_same_layer():
    mean = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)
    rate, code = code_records(mean, np.full_like(mean, 0.5), jax.random.key(0), {"inputs": "clean"})
    assert {(row.layer, row.quantity, row.unit, row.n) for row in (rate, code)} == {("code_mean", "i_tx", "bits", 40)}
    assert rate.value == pytest.approx(float(np.mean(gaussian_rate(mean, np.full_like(mean, 0.5)))) / np.log(2))
    assert code.value <= min(rate.value, np.log2(40))


def test_other_networks_and_trainings_are_told_apart():
    from mi_jax.runs.context import make_trainer

    config = RunConfig(arch="mlp", dataset="digits", trainings=("vib",))
    mlp = mj.models.create("mlp", num_classes=10, input_shape=SHAPE)
    with pytest.raises(InputError, match="The training vib needs the architecture vib, not mlp"):
        make_trainer(config, mlp, mj.data.load("digits", limit=200), "vib", (0,), mesh=None)


@pytest.mark.parametrize(("centre", "std"), [(100.0, 0.01), (1000.0, 0.1)])
def test_the_information_of_a_code_does_not_depend_on_where_it_lies(centre, std):
    mean = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32) * 1.5 * std
    there = np.asarray(mean + np.float32(centre))
    near, far = (code_information(m, np.full_like(m, std), key=0).i_tx for m in (there - np.float32(centre), there))
    assert far == pytest.approx(near, abs=1e-3)
    assert 2 < near < np.log(64)


def test_the_rate_of_codes_that_are_none_is_refused():
    """A deviation of 0 or less has no rate, and codes of another shape would be broadcast."""
    mean, ones = np.zeros((3, 2), np.float32), np.ones((3, 2), np.float32)
    for wrong, says in ((0 * ones, "std positive"), (-ones, "std positive"), (np.nan * ones, "must be finite"),
                        (ones[:1], "must have one shape")):  # fmt: skip
        with pytest.raises(InputError, match=says):
            gaussian_rate(mean, wrong)
    np.testing.assert_array_equal(jax.jit(gaussian_rate)(mean, ones), gaussian_rate(mean, ones))
