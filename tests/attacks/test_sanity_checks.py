"""Sanity checks: a sound model passes without findings, and every flawed one gets the finding expected."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mi_jax as mj
from mi_jax.attacks import PGD, check, pgd, sanity_checks
from mi_jax.attacks.engine.input_checks import Model
from mi_jax.attacks.engine.run import predict
from mi_jax.errors import InputError
from mi_jax.training import ObjectiveConfig, Optimizer, Trainer, fit

COUNT = 50


def checked(logits_fn, net, **options):
    options = {"eps": 0.08, "steps": 50, "queries": 60} | options
    return check(logits_fn, net.variables, net.images[:COUNT], net.labels[:COUNT], jax.random.key(0), **options)


def names(result):
    return {finding.name for finding in result.findings}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "norm", "eps"), [("normal", "linf", 0.05), pytest.param("robust", "l2", 0.5, marks=pytest.mark.slow)]
)
def test_a_sound_network_passes_without_findings(cnn, request, net, norm, eps):
    result = checked(cnn, request.getfixturevalue(net), norm=norm, eps=eps)
    assert result.findings == ()
    assert result.passed
    assert result.measurements["accuracy_pgd_50"] <= result.measurements["accuracy_pgd_1"]
    assert result.measurements["accuracy_pgd_50"] <= result.measurements["accuracy_square"]
    assert result.measurements["accuracy_at_any_image"] == 0


def test_a_sound_linear_model_passes_without_findings(linear, softmax):
    assert checked(linear, softmax).findings == ()


def test_few_steps_are_compared_with_a_single_one_from_random_starts(linear, softmax, monkeypatch):
    attacks = []

    def record(*args, config, step_size, **options):
        attacks.append((config.steps, config.random_start, "start" in options, float(step_size)))
        return pgd(*args, config=config, step_size=step_size, **options)

    monkeypatch.setattr(sanity_checks, "pgd", record)
    result = checked(linear, softmax, steps=7)
    assert "accuracy_pgd_5" in result.measurements
    eps = attacks[0][-1]
    assert attacks[0] == (1, False, False, eps)
    assert attacks[1:6] == [(1, True, i > 0, pytest.approx(eps / 2)) for i in range(5)]


def test_quantised_input_is_caught(linear, softmax):
    def quantised(variables, x):
        return linear(variables, jnp.round(x * 8) / 8)

    result = checked(quantised, softmax, queries=300)
    assert {"zero_gradients", "square_beats_gradient", "survives_large_eps"} <= names(result)
    assert result.findings[0].severity == "error"
    assert not result.passed


def test_quantised_input_with_a_straight_through_gradient_is_caught(linear, softmax):
    def straight_through(variables, x):
        return linear(variables, x + jax.lax.stop_gradient(jnp.round(x * 8) / 8 - x))

    assert "discontinuous" in names(checked(straight_through, softmax))


def test_logits_multiplied_by_a_thousand_are_caught(linear, softmax):
    result = checked(lambda variables, x: 1e3 * linear(variables, x), softmax)
    assert "overconfident" in names(result)
    assert "zero_gradients" not in names(result)
    assert not result.passed


def test_random_layers_are_caught(linear, softmax):
    calls = itertools.count()

    def callback(variables, x):
        def draw():
            return np.random.default_rng(next(calls)).normal(size=(len(x), 10)).astype(np.float32)

        return linear(variables, x) + jax.pure_callback(draw, jax.ShapeDtypeStruct((len(x), 10), jnp.float32))

    assert names(checked(callback, softmax)) == {"random"}

    def drawn_by_python(variables, x):
        return linear(variables, x) + np.random.default_rng(next(calls)).normal(size=(len(x), 10)).astype(np.float32)

    assert names(checked(drawn_by_python, softmax)) == {"random"}

    def fixed_key(variables, x):
        return linear(variables, x) + jax.random.normal(jax.random.key(0), (len(x), 10))

    assert names(checked(fixed_key, softmax)) == {"batch_dependent"}

    def seeded_by_the_image(variables, x):
        phase = 1e5 * jax.lax.stop_gradient(x).reshape(len(x), -1) @ jnp.cos(jnp.arange(1920.0).reshape(192, 10))
        return linear(variables, x) + jnp.sin(phase)

    assert "discontinuous" in names(checked(seeded_by_the_image, softmax))


def by_brightness(knots, margins):
    """A model of two classes on grey images: the margin of class 1 is piecewise linear in the mean pixel's shift."""

    def logits_fn(variables, x):
        margin = jnp.interp(jnp.mean(x - 0.5, axis=(1, 2, 3)) / 0.1, jnp.array(knots), jnp.array(margins))
        return jnp.stack([jnp.zeros_like(margin), margin], axis=1)

    return logits_fn


@pytest.mark.parametrize(
    ("name", "knots", "margins"),
    [
        # One long step crosses the local maximum at which short ones stop.
        ("weaker_with_steps", [-5, 0.3, 0.6, 0.9, 5], [-6, -0.5, -1, 0.5, 0.6]),
        # Only the short steps of a small ball find the narrow interval where class 1 wins.
        ("not_monotone", [-5, 0.1, 0.15, 0.2, 0.22, 5], [-6, 0, 0.5, 0, -1, -0.1]),
    ],
)
def test_loss_surfaces_on_which_more_steps_or_a_larger_eps_hurt_are_caught(softmax, name, knots, margins):
    grey = softmax._replace(images=np.full((COUNT, 8, 8, 3), 0.5, np.float32), labels=np.zeros(COUNT, np.int32))
    result = checked(by_brightness(knots, margins), grey._replace(variables={}), eps=0.1)
    assert name in names(result)
    assert next(finding.value for finding in result.findings if finding.name == name) > 0.5


def test_batch_statistics_probabilities_and_infinities_are_caught(linear, softmax):
    def batch_statistics(variables, x):
        logits = linear(variables, x)
        return logits - logits.mean(axis=0, keepdims=True)

    assert names(checked(batch_statistics, softmax)) == {"batch_dependent"}
    assert names(checked(lambda v, x: jax.nn.softmax(linear(v, x)), softmax)) == {"probabilities"}
    for bad_value in (jnp.nan, jnp.inf):
        result = checked(lambda v, x, bad_value=bad_value: linear(v, x) * bad_value, softmax)
        assert names(result) == {"not_finite"}
        assert result.findings[0].value == COUNT


def test_bad_input_is_an_error_not_a_finding(linear, softmax):
    with pytest.raises(InputError, match="positive"):
        checked(linear, softmax, eps=0.0)
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        checked(linear, softmax._replace(images=softmax.images * 2))


def findings_about_gradients(logits_fn, variables, images, labels):
    """The findings that need no attack, for few seconds of compilation."""
    model, labels = Model(logits_fn), jnp.asarray(labels)

    def predicted(x):
        return np.asarray(predict(model, variables, x, None))

    logits, report = sanity_checks.output_findings(predicted, model, variables, jnp.asarray(images))
    assert report.findings == []
    sanity_checks._check_gradients(report, predicted, model, variables, images, labels, logits, ("ce", "cw"))
    return {finding.name for finding in report.findings}


def in_bfloat16(logits_fn):
    def cast(tree):
        return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tree)

    return lambda variables, x: logits_fn(cast(variables), cast(x))


FAULTS = {
    "saturated logits": (lambda f, v, x: 10 * jnp.tanh(f(v, x) / 2.5), "saturated"),
    "rounded logits": (lambda f, v, x: jnp.round(f(v, x)), "zero_gradients"),
    "binary images": (lambda f, v, x: f(v, (x > 0.5).astype(x.dtype)), "zero_gradients"),
    "straight-through": (
        lambda f, v, x: f(v, x + jax.lax.stop_gradient((x > 0.5).astype(x.dtype) - x)),
        "discontinuous",
    ),
    "dead units": (lambda f, v, x: f(v, 0.9 + jax.nn.relu(x - 1.5)) + f(v, jax.lax.stop_gradient(x)), "zero_gradients"),
    "none": (lambda f, v, x: f(v, x), None),
    "none, in bfloat16": (lambda f, v, x: in_bfloat16(f)(v, x), None),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_gradients_of_faulty_linear_models_are_found_and_those_of_sound_ones_are_not(linear, softmax, fault):
    change, name = FAULTS[fault]
    batch = softmax.variables, softmax.images[:COUNT], softmax.labels[:COUNT]
    found = findings_about_gradients(lambda v, x: change(linear, v, x), *batch)
    assert found == ({name} if name else set())


def test_pgd_on_every_loss_reaches_the_corner_of_the_ball_of_a_linear_model(linear_model, batch):
    (logits_fn, variables), x = linear_model, batch[0]
    pair = {"w": variables["w"][:, :2], "b": jnp.zeros(2)}
    labels = jnp.argmax(logits_fn(pair, x), axis=1)
    towards = jnp.sign(pair["w"][:, 1] - pair["w"][:, 0])[None] * jnp.where(labels == 0, 1, -1)[:, None]
    corner = jnp.clip(x + 0.05 * towards.reshape(x.shape), 0, 1)
    broken = sanity_checks._broken_on(
        Model(logits_fn), ("ce", "cw"), PGD(steps=8), pair, x, labels, jax.random.key(0), 0.05, 0.02
    )
    assert broken.tolist() == 2 * [(jnp.argmax(logits_fn(pair, corner), axis=1) != labels).tolist()]


@pytest.mark.parametrize(("gained", "lost", "found"), [(7, 0, True), (6, 0, False), (20, 13, False), (4, 0, False)])
def test_another_loss_is_stronger_by_a_twentieth_of_the_images_and_more_than_chance_allows(gained, lost, found):
    image, report = np.arange(100), sanity_checks.Report()
    by_ce = image >= 100 - lost
    sanity_checks._compare_losses(report, {"ce": by_ce, "cw": by_ce, "dlr": image < gained})
    assert [finding.name for finding in report.findings] == ["weaker_on_cross_entropy"] * found
    assert report.measurements["accuracy_pgd_dlr"] == pytest.approx(1 - gained / 100)
    if found:
        assert report.findings[0].value == pytest.approx((gained - lost) / 100)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "tf32"])
@pytest.mark.parametrize("arch", ["cnn", "mlp", "vgg11"])
def test_trained_networks_in_every_dtype_pass_without_findings(arch, dtype):
    """Normally trained on real digits in float32, and attacked in the given dtype."""
    digits = mj.data.load("digits")
    width = 1.0 if arch == "mlp" else 0.25
    network = mj.models.create(arch, num_classes=10, input_shape=digits.input_shape, width=width)
    trainer = Trainer(
        network=network, objective="nt", objective_config=ObjectiveConfig(), augmentation=mj.data.Augmentation(),
        optimizer=Optimizer(name="adam", learning_rate=0.005, schedule="triangle"), epochs=20, batch_size=32,
        examples=len(digits.train), seeds=(0,),
    )  # fmt: skip
    images, labels = jnp.asarray(digits.train.images), jnp.asarray(digits.train.labels)
    state = fit(trainer, trainer.init(images), images, labels, after_chunk=lambda *_: None)
    x, y = digits.test.images[:COUNT] / np.float32(255), digits.test.labels[:COUNT]
    attacked = mj.models.create(arch, num_classes=10, input_shape=digits.input_shape, width=width, dtype=dtype)
    assert np.mean(np.argmax(attacked.logits(state["variables"], x), axis=1) == y) > 0.9
    assert check(attacked.logits, state["variables"], x, y, 0, eps=0.05).findings == ()
