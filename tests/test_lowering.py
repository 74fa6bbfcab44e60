"""Every kind of compiled program lowers for accelerators, as convolutions and in the precision that its dtype names."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax import data, information, models
from mi_jax.attacks import APGD, ATTACKS, PGD, run
from mi_jax.attacks.attack import Batch
from mi_jax.attacks.engine import survivors
from mi_jax.attacks.engine.input_checks import Model
from mi_jax.information import _mixture, _pairwise, _products
from mi_jax.information.estimators import variational
from mi_jax.measure import linear_probes
from mi_jax.training import OBJECTIVES, ObjectiveConfig, Optimizer, Trainer

PLATFORMS = ("cuda", "tpu")
CLASSES, COUNT, SHAPE = 10, 5, (4, 4, 3)
NETWORK = functools.partial(models.create, num_classes=CLASSES, input_shape=SHAPE)
SPEC = jax.ShapeDtypeStruct


def lowered(function, *specs, platforms=PLATFORMS) -> list[str]:
    """StableHLO of the function for each platform."""
    traced = jax.jit(function).trace(*specs)
    return [traced.lower(lowering_platforms=(platform,)).as_text() for platform in platforms]


def products(program: str, kind: str = "convolution|dot_general") -> list[str]:
    """The lines of its convolutions and matrix products of floats."""
    return [line for line in program.splitlines() if re.search(rf"stablehlo\.({kind})\b", line) and "xf32>" in line]


@functools.cache
def network_specs(network):
    variables = jax.eval_shape(network.init, jax.random.key(0))
    return variables, SPEC((COUNT, *SHAPE), jnp.float32), SPEC((COUNT,), jnp.int32)


def input_gradient(network):
    return lambda variables, x: jax.grad(lambda x: jnp.sum(network.logits(variables, x) ** 2))(x)


@pytest.mark.parametrize("dtype", models.DTYPES)
def test_convolutions_are_convolutions_on_accelerators_in_the_precision_that_the_dtype_names(dtype):
    network = NETWORK("cnn", width=0.25, dtype=dtype)
    variables, x, _ = network_specs(network)
    for program in lowered(input_gradient(network), variables, x):
        convolutions = [line for line in program.splitlines() if "stablehlo.convolution" in line]
        assert len(convolutions) == 6  # three layers, forwards and backwards
        assert all(re.search(r"dim_numbers = \[b, 0, 1, f\]x\[0, 1, ., .\]", line) for line in convolutions)
        assert len(re.findall(r"stablehlo\.dot_general", program)) == 4  # the dense layer and the head
        assert all(("HIGHEST" in line) == (dtype == "float32") for line in convolutions)
        assert all(("bf16>" in line) == (dtype == "bfloat16") for line in convolutions)
        head = [line for line in products(program, "dot_general") if f"x{CLASSES}xf32>" in line]
        assert len(head) == 2
        assert all("HIGHEST" in line for line in head)


def test_a_cpu_gets_matrix_products():
    network = NETWORK("cnn", width=0.25)
    variables, x, _ = network_specs(network)
    (program,) = lowered(input_gradient(network), variables, x, platforms=("cpu",))
    assert "stablehlo.convolution" not in program
    assert len(products(program)) == 10  # six of layers and four of dense layers


IMAGES, LABELS = SPEC((COUNT, *SHAPE), jnp.uint8), SPEC((COUNT,), jnp.int32)


def trainer(objective):
    return Trainer(
        network=NETWORK("cnn", width=0.25), objective=objective, objective_config=ObjectiveConfig(PGD(steps=2)),
        optimizer=Optimizer(), augmentation=data.Augmentation(pad=1), epochs=1, batch_size=COUNT, examples=COUNT,
        seeds=(0,),
    )  # fmt: skip


@functools.cache
def state_specs():
    """Of any objective."""
    return jax.eval_shape(trainer("nt").init, IMAGES)


def training(objective):
    def advance(state, images, labels):
        return trainer(objective).advance(state, images, labels, 0, 1)

    return advance, state_specs(), IMAGES, LABELS


def attack(name):
    network = NETWORK("cnn", width=0.25)
    config = ATTACKS[name].with_values(eps=0.1)
    return lambda variables, x, y: run(network.logits, variables, x, y, 0, config=config), *network_specs(network)


def information_estimate(estimate):
    labels = np.arange(12) % 3
    return lambda t: estimate(t, labels), SPEC((12, 6), jnp.float32)


def kernel_sums(t, labels):
    return _pairwise.pair_sums(t, labels, np.ones(2), num_classes=3)


def mixture_sums(t, labels):
    return _mixture.mixture_sums(t, labels, labels, np.ones(2), jax.random.key(0), num_classes=3)


def critic(t, labels):
    weights = variational._init(np.random.default_rng(0), 6, 6, 4)
    rows = (jnp.zeros((2, 4), jnp.int32), jnp.zeros((2, 4), jnp.int32))
    schedule = variational._Schedule("infonce", 2, 1e-3, True)
    return variational._train_and_read(jax.random.key(0), weights, t, t, rows, jnp.float32(1), schedule=schedule)


def probed():
    network = NETWORK("cnn", width=0.25)
    variables, x, y = network_specs(network)
    probe = linear_probes.ProbedNetwork(network, "conv2")
    features = int(np.prod(network.tap_shapes["conv2"]))
    weights = {"network": variables, "weight": SPEC((features, 3), jnp.float32), "bias": SPEC((3,), jnp.float32)}
    return lambda variables, x, y: run(probe, variables, x, y % 3, 0, config=PGD(steps=2)), weights, x, y


PROGRAMS = {
    **{
        f"training {name}": functools.partial(training, name)
        for name, kind in OBJECTIVES.items()
        if not kind.architectures
    },
    **{f"attack {name}": functools.partial(attack, name) for name in ATTACKS},
    "kde": functools.partial(information_estimate, kernel_sums),
    "kde estimate": functools.partial(
        information_estimate, lambda t, y: information.kde(t, y, noise_variance=0.1, num_classes=3)
    ),
    "monte carlo": functools.partial(information_estimate, mixture_sums),
    "variational": functools.partial(information_estimate, critic),
    "gram matrix of probes": lambda: (linear_probes._product, SPEC((6, 5), jnp.float32)),
    "attack on a probe": probed,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_float32_program_lowers_for_accelerators_in_full_precision(name):
    function, *specs = PROGRAMS[name]()
    for program in lowered(function, *specs):
        assert products(program)
        assert all("HIGHEST" in line for line in products(program))


@pytest.mark.parametrize(
    ("precision", "on_cuda", "on_tpu"),
    [
        ("bfloat16x6", ("bf16", 6), ("bf16", 6)),
        ("tf32x3", ("tf32", 3), ("bf16", 6)),
        ("bfloat16x3", ("bf16", 3), ("bf16", 3)),
    ],
)
def test_split_products_are_those_of_the_compiler_on_accelerators(precision, on_cuda, on_tpu):
    rows = SPEC((6, 5), jnp.float32)
    programs = lowered(functools.partial(_products.dot, precision=precision), rows, rows, platforms=(*PLATFORMS, "cpu"))
    for program, (dtype, count) in zip(programs, (on_cuda, on_tpu), strict=False):
        (product,) = products(program, "dot_general")
        assert f"lhs_precision_type = {dtype}," in product
        assert f"num_primitive_operations = {count}," in product
    assert len(products(programs[2], "dot_general")) == on_cuda[1]  # one by one, each in float32
    assert all("HIGHEST" in line for line in products(programs[2]))


def test_iterations_of_autoattack_donate_their_state():
    network, config = NETWORK("cnn", width=0.25), APGD(eps=0.1, steps=4).as_arrays(jnp.float32)
    variables, x, y = network_specs(network)
    rows, model = Batch(x, y, None, y), Model(network.logits)
    words = SPEC((COUNT, config.start_words(SHAPE)), jnp.uint32)
    state = jax.eval_shape(lambda *given: survivors._begin(config, model, *given), variables, None, rows, words)
    traced = survivors._advance.trace(config, model, variables, None, rows, state, None, 0, 1)
    program = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert program.count("tf.aliasing_output") == len(jax.tree.leaves(state))
