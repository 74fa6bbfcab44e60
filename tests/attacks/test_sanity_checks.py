"""The self-checks: a sane model passes clean, and every negative control is caught by name."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax.attacks import check
from mi_jax.errors import InputError

COUNT = 50


def diagnose(logits_fn, net, **options):
    options = {"eps": 0.08, "steps": 50, "queries": 60} | options
    return check(logits_fn, net.variables, net.images[:COUNT], net.labels[:COUNT], jax.random.key(0), **options)


def names(result):
    return {finding.name for finding in result.findings}


@pytest.mark.parametrize(("net", "norm", "eps"), [("normal", "linf", 0.05), ("robust", "l2", 0.5)])
def test_a_sane_network_passes_clean(cnn, request, net, norm, eps):
    result = diagnose(cnn, request.getfixturevalue(net), norm=norm, eps=eps)
    assert result.findings == ()
    assert result.passed
    assert result.measurements["accuracy_pgd_50"] <= result.measurements["accuracy_pgd_1"]
    assert result.measurements["accuracy_pgd_50"] <= result.measurements["accuracy_square"]
    assert result.measurements["accuracy_at_any_image"] == 0


def test_a_sane_linear_model_passes_clean(linear, softmax):
    assert diagnose(linear, softmax).findings == ()


def test_quantised_input_is_caught(linear, softmax):
    def quantised(variables, x):
        return linear(variables, jnp.round(x * 8) / 8)

    result = diagnose(quantised, softmax, queries=300)
    assert {"zero_gradients", "square_beats_gradient", "survives_large_eps"} <= names(result)
    assert result.findings[0].severity == "error"
    assert not result.passed


def test_quantised_input_with_a_made_up_gradient_is_caught(linear, softmax):
    def straight_through(variables, x):
        return linear(variables, x + jax.lax.stop_gradient(jnp.round(x * 8) / 8 - x))

    assert "discontinuous" in names(diagnose(straight_through, softmax))


def test_logits_of_a_thousand_times_the_size_are_caught(linear, softmax):
    result = diagnose(lambda variables, x: 1e3 * linear(variables, x), softmax)
    assert "overconfident" in names(result)
    assert "zero_gradients" not in names(result)
    assert not result.passed


def test_random_layers_are_caught(linear, softmax):
    calls = itertools.count()

    def callback(variables, x):
        def draw():
            return np.random.default_rng(next(calls)).normal(size=(len(x), 10)).astype(np.float32)

        return linear(variables, x) + jax.pure_callback(draw, jax.ShapeDtypeStruct((len(x), 10), jnp.float32))

    assert names(diagnose(callback, softmax)) == {"random"}

    def drawn_by_python(variables, x):
        return linear(variables, x) + np.random.default_rng(next(calls)).normal(size=(len(x), 10)).astype(np.float32)

    assert names(diagnose(drawn_by_python, softmax)) == {"random"}

    def fixed_key(variables, x):
        return linear(variables, x) + jax.random.normal(jax.random.key(0), (len(x), 10))

    assert names(diagnose(fixed_key, softmax)) == {"batch_dependent"}

    def drawn_from_the_image(variables, x):
        rough = 1e5 * jax.lax.stop_gradient(x).reshape(len(x), -1) @ jnp.cos(jnp.arange(1920.0).reshape(192, 10))
        return linear(variables, x) + jnp.sin(rough)

    assert "discontinuous" in names(diagnose(drawn_from_the_image, softmax))


def by_brightness(knots, margins):
    """A model of two classes on grey images: the margin of class 1 is piecewise linear in the mean pixel's shift."""

    def logits_fn(variables, x):
        margin = jnp.interp(jnp.mean(x - 0.5, axis=(1, 2, 3)) / 0.1, jnp.array(knots), jnp.array(margins))
        return jnp.stack([jnp.zeros_like(margin), margin], axis=1)

    return logits_fn


@pytest.mark.parametrize(
    ("name", "knots", "margins"),
    [
        # One long step jumps over the hill on which short ones are caught.
        ("weaker_with_steps", [-5, 0.3, 0.6, 0.9, 5], [-6, -0.5, -1, 0.5, 0.6]),
        # Only the short steps of a small ball find the narrow band where class 1 leads.
        ("not_monotone", [-5, 0.1, 0.15, 0.2, 0.22, 5], [-6, 0, 0.5, 0, -1, -0.1]),
    ],
)
def test_a_landscape_that_misleads_long_or_wide_attacks_is_caught(softmax, name, knots, margins):
    grey = softmax._replace(images=np.full((COUNT, 8, 8, 3), 0.5, np.float32), labels=np.zeros(COUNT, np.int32))
    result = diagnose(by_brightness(knots, margins), grey._replace(variables={}), eps=0.1)
    assert name in names(result)
    assert next(finding.value for finding in result.findings if finding.name == name) > 0.5


def test_batch_statistics_probabilities_and_infinities_are_caught(linear, softmax):
    def batch_statistics(variables, x):
        logits = linear(variables, x)
        return logits - logits.mean(axis=0)

    assert names(diagnose(batch_statistics, softmax)) == {"batch_dependent"}
    assert names(diagnose(lambda v, x: jax.nn.softmax(linear(v, x)), softmax)) == {"probabilities"}
    for spoilt in (jnp.nan, jnp.inf):
        result = diagnose(lambda v, x, spoilt=spoilt: linear(v, x) * spoilt, softmax)
        assert names(result) == {"not_finite"}
        assert result.findings[0].value == COUNT


def test_bad_input_is_an_error_not_a_finding(linear, softmax):
    with pytest.raises(InputError, match="positive"):
        diagnose(linear, softmax, eps=0.0)
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        diagnose(linear, softmax._replace(images=softmax.images * 2))
