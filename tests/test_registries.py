"""Every entry of every registry keeps the promises of its kind: documented, typed, named keys, keyword-only options.

Another registry joins by one line in `CONFORMANCE`.
"""

import dataclasses
import importlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax import attacks, data, distortions, models, training
from mi_jax.errors import InputError
from mi_jax.registry import Registry
from mi_jax.training import ObjectiveConfig, Outcome

SHAPE = (8, 8, 1)
IMAGES = jax.random.uniform(jax.random.key(1), (4, *SHAPE))
LABELS = jnp.arange(4) % 3
DISTORTIONS = {
    "saturate": {"p": 8.0},
    "patch_shuffle": {"k": 2, "key": jax.random.key(0)},
    "low_pass": {"cutoff": 2.0},
    "high_pass": {"cutoff": 2.0},
    "phase_scramble": {"strength": 0.5, "key": jax.random.key(0)},
    "greyscale": {},
    "gaussian_noise": {"std": 0.1, "key": jax.random.key(0)},
}


class Kind(NamedTuple):
    """A registry, what each of its entries must do beyond `is_public`, and the entries that a broken one is made of."""

    entries: Any
    keeps_its_promise: Callable[[str, Any], None]


def is_public(entry: Any) -> None:
    """Documented, every parameter annotated, options keyword-only, random keys called `key`."""
    assert inspect.getdoc(entry), "no docstring"
    assert (inspect.getdoc(entry) or "").splitlines()[0].endswith((".", ":")), "the first line is no sentence"
    own_init = inspect.isclass(entry) and "__init__" in vars(entry)
    function = entry.__init__ if own_init else entry
    for name, parameter in inspect.signature(function).parameters.items():
        if name in ("self", "cls"):
            continue
        assert parameter.annotation is not inspect.Parameter.empty, f"{name} is not annotated"
        assert name not in ("rng", "rngs", "seed_key", "random_key", "prng"), f"{name} should be called key"
        is_option = parameter.default is not inspect.Parameter.empty and parameter.default is not None
        if is_option and not inspect.isclass(entry):
            assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, f"{name} is an option but not keyword-only"
    if dataclasses.is_dataclass(entry):
        assert hash(entry()) == hash(entry()), "its options are not hashable values"
        assert all(field.kw_only for field in dataclasses.fields(entry)), "its options are not keyword-only"


def builds_a_network(name: str, build: Any) -> None:
    """Taps in the order of its layers, the logits last and float32, and the same under jit and for one image alone."""
    network = models.create(name, num_classes=3, input_shape=SHAPE, width=0.125)
    variables = jax.eval_shape(network.init, jax.random.key(0))
    logits, taps = jax.eval_shape(jax.jit(network.apply), variables, IMAGES)
    assert tuple(taps) == network.layers
    assert network.layers[-1] == "logits"
    assert (logits.shape, logits.dtype) == ((4, 3), jnp.float32)
    trained, _, statistics = jax.eval_shape(network.apply_train, variables, IMAGES, jax.random.key(0))
    assert trained.shape == logits.shape
    assert jax.tree.structure(statistics) == jax.tree.structure(variables["batch_stats"])
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert parameters == network.parameter_count
    twice = models.create(name, num_classes=3, input_shape=SHAPE, width=0.25)
    assert twice.parameter_count > network.parameter_count, "the width changes nothing"


def trains(name: str, kind: Any) -> None:
    """Images in [0, 1], within the radius if adversarial, and a finite loss with a gradient, under jit."""
    network = models.create("mlp", num_classes=3, input_shape=SHAPE, width=0.05)
    variables = network.init(jax.random.key(0))
    config = ObjectiveConfig(attack=attacks.PGD(eps=0.1, steps=2, step_size=0.05))
    objective = config.objective(name)
    assert kind.inputs in ("clean", "adversarial", "noisy")
    assert kind.title
    assert kind.forwards(2) >= 3

    @jax.jit
    def step(key: jax.Array) -> Any:
        x, statistics = objective.perturb(network, variables, IMAGES, LABELS, key, config)

        def loss(params: Any) -> tuple[jax.Array, Outcome]:
            current = {"params": params, "batch_stats": statistics}
            return objective.loss(network, current, IMAGES, x, LABELS, key)

        (value, outcome), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        return x, value, outcome, gradient

    x, value, outcome, gradient = step(jax.random.key(2))
    assert 0 <= float(x.min()) <= float(x.max()) <= 1
    distance = float(jnp.abs(x - IMAGES).max())
    assert distance == 0 if kind.inputs == "clean" else distance > 0
    if kind.adversarial:
        assert distance <= 0.1 + 1e-6
    assert jnp.isfinite(value)
    assert outcome.logits.shape == (4, 3)
    assert any(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(gradient))
    again, *_ = step(jax.random.key(2))
    np.testing.assert_array_equal(x, again)


def loads(name: str, load: Any) -> None:
    """uint8 images, int32 labels in range, both splits, the limit, and the same at every call."""
    dataset = load(limit=20)
    again = data.load(name, limit=20)
    assert dataset.name == name
    for part, same in ((dataset.train, again.train), (dataset.test, again.test)):
        assert part.images.dtype == np.uint8
        assert part.labels.dtype == np.int32
        assert len(part.images) == len(part.labels) == 20
        assert 0 <= part.labels.min() <= part.labels.max() < dataset.num_classes
        assert all(len(values) == 20 for values in part.factors.values())
        np.testing.assert_array_equal(part.images, same.images)
    assert dataset.train.images.shape[1:] == dataset.test.images.shape[1:] == dataset.input_shape


def distorts(name: str, distort: Any) -> None:
    """Images in [0, 1] of the same shape and dtype, also under jit, and refuses bytes."""
    options = DISTORTIONS[name]
    distorted = distort(IMAGES, **options)
    static = [option for option, value in options.items() if isinstance(value, int)]
    compiled = jax.jit(distort, static_argnames=static)(IMAGES, **options)
    assert (distorted.shape, distorted.dtype) == (IMAGES.shape, IMAGES.dtype)
    assert 0 <= float(distorted.min()) <= float(distorted.max()) <= 1
    np.testing.assert_allclose(distorted, compiled, atol=1e-5)
    with pytest.raises(InputError):
        distort(jnp.zeros(IMAGES.shape, jnp.uint8), **options)


CONFORMANCE = {
    "architecture": Kind(models.ARCHITECTURES, builds_a_network),
    "objective": Kind(training.OBJECTIVES, trains),
    "data set": Kind(data.DATASETS, loads),
    "distortion": Kind({name: getattr(distortions, name) for name in DISTORTIONS}, distorts),
}
ENTRIES = [(kind, name) for kind, (entries, _) in CONFORMANCE.items() for name in entries]


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_every_entry_is_documented_typed_and_takes_options_by_keyword(kind, name):
    is_public(CONFORMANCE[kind].entries[name])


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_every_entry_does_what_its_kind_promises(kind, name):
    CONFORMANCE[kind].keeps_its_promise(name, CONFORMANCE[kind].entries[name])


@pytest.mark.parametrize("kind", [kind for kind, (entries, _) in CONFORMANCE.items() if isinstance(entries, Registry)])
def test_an_unknown_name_is_refused_with_the_choices_and_a_taken_one_is_not_replaced(kind):
    entries = CONFORMANCE[kind].entries
    with pytest.raises(InputError, match=rf"^There is no {entries.kind} 'nothing'; choose from {next(iter(entries))}"):
        entries.get_or_explain("nothing")
    taken = next(iter(entries))
    with pytest.raises(ValueError, match="is registered already"):
        entries.register(taken, object())


def no_docstring(x: jax.Array) -> jax.Array:
    return x


def an_option_by_position(x: jax.Array, strength: float = 1.0) -> jax.Array:
    """A distortion."""
    return x * strength


def no_types(x, *, key) -> jax.Array:
    """A distortion."""
    return x


def another_word_for_key(x: jax.Array, rng: jax.Array) -> jax.Array:
    """A distortion."""
    return x


@pytest.mark.parametrize("entry", [no_docstring, an_option_by_position, no_types, another_word_for_key])
def test_an_entry_with_a_bad_signature_fails(entry):
    with pytest.raises(AssertionError):
        is_public(entry)


def test_entries_that_break_their_promise_fail(monkeypatch):
    with pytest.raises(AssertionError):
        distorts("greyscale", lambda x: 2 * x)
    with pytest.raises(AssertionError):
        loads("digits", lambda limit: data.load("shapetex", limit=limit))

    @training.register("leaves-the-ball")
    class LeavesTheBall(training.OBJECTIVES["at"]):
        """PGD training with twice the perturbation."""

        def perturb(self, network, variables, x, *rest):
            perturbed, statistics = super().perturb(network, variables, x, *rest)
            return jnp.clip(2 * perturbed - x, 0, 1), statistics

    @models.register("narrow")
    class Narrow(importlib.import_module("mi_jax.models.architectures.mlp").MLP):
        """A multilayer perceptron that ignores its width."""

        def __init__(self, spec: models.ModelSpec, stream: models.NormalStream):
            super().__init__(dataclasses.replace(spec, width=0.05), stream)

    try:
        with pytest.raises(AssertionError):
            trains("leaves-the-ball", LeavesTheBall)
        with pytest.raises(AssertionError, match="the width changes nothing"):
            builds_a_network("narrow", Narrow)
    finally:
        training.OBJECTIVES.unregister("leaves-the-ball")
        models.ARCHITECTURES.unregister("narrow")
