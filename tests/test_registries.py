"""Every entry of every registry keeps the promises of its kind: documented, typed, and what `CONFORMANCE` states.

Another registry joins by one line in `CONFORMANCE`.
"""

import dataclasses
import functools
import importlib.util
import inspect
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax import attacks, claims, data, distortions, information, models, records, studies, training
from mi_jax.errors import InputError
from mi_jax.information.estimator import Kind as EstimateKind
from mi_jax.plotting.figures import FIGURES, FigureSpec
from mi_jax.records.run_records import RunRecords, read
from mi_jax.registry import Registry
from mi_jax.report import figures  # noqa: F401  (registers the figures of every run)
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
    """A registry, what each of its entries must do, and what of an entry has a docstring and a signature."""

    entries: Any
    keeps_its_promise: Callable[[str, Any], None]
    documented: Callable[[Any], Any] | None = lambda entry: entry


def is_public(entry: Any) -> None:
    """Documented, every parameter annotated, options keyword-only, random keys called `key`."""
    doc = inspect.getdoc(entry.func if isinstance(entry, functools.partial) else entry)
    assert doc, "no docstring"
    assert doc.splitlines()[0].endswith((".", ":")), "the first line is no sentence"
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


def builds_a_network(name: str, build: Any) -> None:
    """Taps in the order of its layers, the logits last and float32, for images whose sides are odd and differ."""
    shape = (17, 9, 3)
    images = jax.ShapeDtypeStruct((4, *shape), jnp.float32)
    network = models.create(name, num_classes=3, input_shape=shape, width=0.125)
    variables = jax.eval_shape(network.init, jax.random.key(0))
    logits, taps = jax.eval_shape(jax.jit(network.apply), variables, images)
    assert tuple(taps) == network.layers
    assert {layer: tap.shape for layer, tap in taps.items()} == {n: (4, *s) for n, s in network.tap_shapes.items()}
    assert all(min(tap.shape) > 0 for tap in taps.values())
    assert network.layers[-1] == "logits"
    assert (logits.shape, logits.dtype) == ((4, 3), jnp.float32)
    trained, _, statistics = jax.eval_shape(network.apply_train, variables, images, jax.random.key(0))
    assert trained.shape == logits.shape
    assert jax.tree.structure(statistics) == jax.tree.structure(variables["batch_stats"])
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert parameters == network.parameter_count
    twice = models.create(name, num_classes=3, input_shape=shape, width=0.25)
    assert twice.parameter_count > network.parameter_count, "the width changes nothing"


def trains(name: str, kind: Any) -> None:
    """Images in [0, 1], within the radius if adversarial, and a finite loss with a gradient, under jit."""
    arch = kind.architectures[0] if kind.architectures else "mlp"
    network = models.create(arch, num_classes=3, input_shape=SHAPE, width=0.05)
    variables = network.init(jax.random.key(0))
    config = ObjectiveConfig(attack=attacks.PGD(eps=0.1, steps=2, step_size=0.05))
    objective = config.objective(name)
    assert all(field.kw_only for field in dataclasses.fields(kind)), "its options are not keyword-only"
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


def attacks_images(name: str, attack: Any) -> None:
    """Images in the ball and in [0, 1], misclassified wherever it reports success, the same again, and under jit."""
    weights = jax.random.normal(jax.random.key(3), (IMAGES[0].size, 6)) / 8
    linear = lambda weights, x: x.reshape(len(x), -1) @ weights  # noqa: E731
    labels = jnp.argmax(linear(weights, IMAGES), axis=1)
    changed = {attack.effort: 3, "eps": 0.1} | ({"targets": 2} if attack.targets else {})
    config = dataclasses.replace(attack, **changed)
    assert hash(config) == hash(dataclasses.replace(attack, **changed)), "its settings are not hashable values"
    assert set(config.traced) <= {field.name for field in dataclasses.fields(config)}
    assert config.budget.keys() <= {field.name for field in dataclasses.fields(config)}
    assert set(config.budget.values()) <= {field.name for field in dataclasses.fields(attacks.Budget)}
    attacked = functools.partial(attacks.run, linear, config=config)
    result = attacked(weights, IMAGES, labels, jax.random.key(0))
    assert float(result.perturbation_norm.max()) <= config.eps * (1 + 1e-5), "leaves the ball"
    assert 0 <= float(result.images.min()) <= float(result.images.max()) <= 1, "leaves [0, 1]"
    order = {"linf": np.inf, "l2": 2, "l1": 1}[str(config.norm)]
    distance = np.linalg.norm((result.images - IMAGES).reshape(len(IMAGES), -1), order, axis=1)
    np.testing.assert_allclose(result.perturbation_norm, distance, atol=1e-6)
    predicted = jnp.argmax(linear(weights, result.images), axis=1)
    np.testing.assert_array_equal(result.success, predicted != labels, "success on a correctly classified image")
    assert result.success.any(), "finds nothing on a linear model"
    again = jax.jit(attacked)(weights, IMAGES, labels, jax.random.key(0))
    np.testing.assert_allclose(result.images, again.images, atol=1e-6)


ROWS = 96
ROW_CLASSES = np.arange(ROWS) % 3
_generator = np.random.default_rng(0)
ACTIVATIONS = (2 * np.eye(3, 4)[ROW_CLASSES] + _generator.standard_normal((ROWS, 4))).astype(np.float32)
OTHERS = {"input": None, "label": ROW_CLASSES, "continuous": ACTIVATIONS[:, :2] + 1}
ORDER = _generator.permutation(ROWS)
SMALL = {"noise_variance": 1.0, "batch": 16, "steps": 20, "hidden": 16}
"""Options of estimators that need a noise variance, or would take seconds."""


def estimates(name: str, estimator: Any) -> None:
    """Finite nats for each of its targets, the same for the same key, whatever the order of the rows, and JSON."""
    assert estimator.name == name
    assert estimator.targets
    accepted = inspect.signature(estimator.function).parameters
    options = {option: value for option, value in SMALL.items() if option in accepted}
    for target in estimator.targets:
        other = OTHERS[target]
        shuffled = None if other is None else other[ORDER]
        found, again, other_key = (
            estimator.function(ACTIVATIONS, other, key=jax.random.key(seed), **options) for seed in (0, 0, 1)
        )
        reordered = estimator.function(ACTIVATIONS[ORDER], shuffled, key=jax.random.key(0), **options)
        assert (found.estimator, found.n) == (name, ROWS)
        assert found.kind in get_args(EstimateKind)
        assert np.isfinite(found.value)
        assert found.stderr is None or found.stderr >= 0
        json.dumps({"settings": dict(found.settings), "details": dict(found.details)})
        assert found.value == again.value, "the same key gives another value"
        tolerance = 0.2 if found.value != other_key.value else 1e-6
        assert reordered.value == pytest.approx(found.value, abs=tolerance), "the order of rows matters"


def chooses_a_variance(name: str, rule: Any) -> None:
    """rule(a t + b) = a^2 rule(t), whatever the order of the rows, above 0, and 0 for a constant layer."""
    variance = rule(ACTIVATIONS)
    assert variance > 0
    assert rule(3 * ACTIVATIONS) == pytest.approx(9 * variance, rel=1e-4), "does not scale with the activations"
    assert rule(ACTIVATIONS + 2) == pytest.approx(variance, rel=1e-4), "depends on the mean"
    assert rule(ACTIVATIONS[ORDER]) == pytest.approx(variance, rel=1e-4), "the order of rows matters"
    assert rule(np.ones_like(ACTIVATIONS)) == 0


@functools.cache
def made_up_run() -> RunRecords:
    """The run that the tests of reports use."""
    spec = importlib.util.spec_from_file_location("made_up", Path(__file__).parent / "report/conftest.py")
    assert spec is not None
    assert spec.loader is not None
    made_up = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made_up)
    with tempfile.TemporaryDirectory() as folder:
        return read(made_up.write_run(Path(folder), layers=3, epochs=(0, 2, 4)))


@functools.cache
def run_without_measurements() -> RunRecords:
    """A run whose only record is of no known quantity."""
    with tempfile.TemporaryDirectory() as folder:
        records.append(folder, [records.Record(quantity="nothing", value=0, training="nt", seed=0, epoch=0)])
        return read(folder)


def describes_a_figure(spec: FigureSpec) -> None:
    """Texts are whole, and a run without the records that it shows does not need it."""
    assert spec.title
    assert not spec.title.endswith(".")
    assert spec.alt.endswith("."), "the alternative text is no sentence"
    assert not spec.needs(run_without_measurements()), "needs no records"


def draws(name: str, spec: Any) -> None:
    """A figure by its name, whose caption is made of sentences, for every run that has the records."""
    assert spec.name == name
    describes_a_figure(spec)
    if spec.needs(made_up_run()):
        assert spec.caption(made_up_run()).endswith(".")
        assert spec.uninformative(made_up_run())[-1:] in ("", ".")


@functools.cache
def small_data_sets() -> list[data.Dataset]:
    return [data.load(name, limit=20) for name in data.DATASETS]


def measures(name: str, study: Any) -> None:
    """Takes a `StudyInput`, says to which data sets it does not apply, and describes its figures."""
    assert study.name == name
    assert study.title
    assert study.which_checkpoints in get_args(studies.WhichCheckpoints)
    assert study.part_of is None or study.part_of in studies.STUDIES
    (parameter,) = inspect.signature(study.measure).parameters.values()
    assert parameter.annotation is studies.StudyInput
    assert inspect.signature(study.measure).return_annotation is studies.StudyResult
    reasons = [study.unsupported_reason(dataset) for dataset in small_data_sets()]
    assert None in reasons, "applies to no data set"
    assert all(reason is None or not reason.endswith(".") for reason in reasons), "the reason ends a sentence"
    for spec in study.figures:
        describes_a_figure(spec)


def claims_something(name: str, test: Any) -> None:
    """Undecided without records, with the reason in every statistic that decides; intervals around their values."""
    drawn = {*FIGURES, *(spec.name for study in studies.STUDIES.values() for spec in study.figures)}
    for run_records, measured in ((run_without_measurements(), False), (made_up_run(), True)):
        claim = test(run_records, ("nt", "at"))
        assert claim.text.endswith(".")
        assert claim.method.endswith(".")
        assert set(claim.figures) <= drawn, "shows a figure that does not exist"
        assert any(statistic.decides for statistic in claim.statistics)
        for statistic in claim.statistics:
            if statistic.value is None:
                assert statistic.verdict == "undecided"
                assert statistic.remark, "does not say why it is undecided"
            elif statistic.low is not None:
                assert statistic.low <= statistic.value <= statistic.high
        if not measured:
            assert {claim.verdict(rule) for rule in (None, "fixed", "trace")} == {"undecided"}
            assert all(statistic.value is None for statistic in claim.statistics if statistic.decides)
        assert (claim.weakest("fixed") is None) == (not claim.deciding("fixed"))


CONFORMANCE = {
    "architecture": Kind(models.ARCHITECTURES, builds_a_network),
    "objective": Kind(training.OBJECTIVES, trains),
    "data set": Kind(data.DATASETS, loads),
    "distortion": Kind({name: getattr(distortions, name) for name in DISTORTIONS}, distorts),
    "attack": Kind(attacks.ATTACKS, attacks_images, type),
    "estimator": Kind(information.ESTIMATORS, estimates, lambda estimator: estimator.function),
    "noise rule": Kind(information.NOISE_RULES, chooses_a_variance),
    "study": Kind(studies.STUDIES, measures, lambda study: study.measure),
    "figure": Kind(FIGURES, draws, None),
    "claim": Kind(claims.CLAIMS, claims_something),
}
ENTRIES = [(kind, name) for kind, (entries, *_) in CONFORMANCE.items() for name in entries]


@pytest.mark.parametrize(("kind", "name"), [entry for entry in ENTRIES if CONFORMANCE[entry[0]].documented])
def test_every_entry_is_documented_typed_and_takes_options_by_keyword(kind, name):
    entries, _, documented = CONFORMANCE[kind]
    assert documented is not None
    is_public(documented(entries[name]))


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_every_entry_does_what_its_kind_promises(kind, name):
    CONFORMANCE[kind].keeps_its_promise(name, CONFORMANCE[kind].entries[name])


@pytest.mark.parametrize("kind", [kind for kind, (entries, *_) in CONFORMANCE.items() if isinstance(entries, Registry)])
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


def escapes_the_ball() -> Any:
    @dataclasses.dataclass(frozen=True)
    class Escapes(type(attacks.ATTACKS["mi-fgsm"])):
        def outcome(self, state: Any) -> Any:
            found = super().outcome(state)
            return found._replace(images=jnp.clip(found.images + 1, 0, 1))

    return Escapes()


def value_of_the_first_row(t: Any, other: Any = None, *, key: jax.Array) -> information.Estimate:
    return information.Estimate("first", float(t[0, 0]), None, "value", len(t), {})


def claim_without_a_reason(run_records: RunRecords, pair: tuple[str, str]) -> claims.Claim:
    claim = claims.CLAIMS["prefers_shape"](run_records, pair)
    statistics = tuple(dataclasses.replace(statistic, remark="") for statistic in claim.statistics)
    return dataclasses.replace(claim, statistics=statistics)


@pytest.mark.parametrize(
    ("keeps_its_promise", "name", "entry", "message"),
    [
        (attacks_images, "escapes", escapes_the_ball(), "leaves the ball"),
        (
            estimates,
            "first",
            information.Estimator("first", value_of_the_first_row, ("label",)),
            "the order of rows matters",
        ),
        (chooses_a_variance, "std", lambda t: float(np.std(t)), "does not scale"),
        (chooses_a_variance, "moment", lambda t: float(np.mean(t**2)), "depends on the mean"),
        (
            measures,
            "nowhere",
            dataclasses.replace(studies.STUDIES["geometry"], name="nowhere", unsupported_reason=lambda _: "broken"),
            "applies to no data set",
        ),
        (
            draws,
            "always",
            dataclasses.replace(next(iter(FIGURES.values())), name="always", needs=lambda _: True),
            "needs no records",
        ),
        (claims_something, "silent", claim_without_a_reason, "does not say why"),
    ],
)
def test_an_entry_that_breaks_the_promise_of_its_kind_fails(keeps_its_promise, name, entry, message):
    with pytest.raises(AssertionError, match=message):
        keeps_its_promise(name, entry)


def test_entries_that_break_their_promise_fail():
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
