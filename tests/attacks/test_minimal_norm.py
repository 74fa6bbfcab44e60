"""Minimal distances and robust accuracy over eps, against the closed form of a linear model of two classes."""

import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from mi_jax.attacks import minimal_norm, robust_accuracy_curve
from mi_jax.errors import InputError


def half_space(variables, x):
    """Class 1 on the side of the plane w . (x - 1/2) = 0 to which w points."""
    lead = (x.reshape(len(x), -1) - 0.5) @ variables
    return jnp.stack([-lead, lead], axis=1)


@pytest.fixture(scope="module")
def problem():
    random = np.random.default_rng(0)
    w = random.normal(size=12).astype(np.float32)
    x = random.uniform(0.4, 0.6, (30, 2, 2, 3)).astype(np.float32)
    lead = (x.reshape(30, -1) - 0.5) @ w
    y = (lead > 0).astype(np.int32)
    y[:3] = 1 - y[:3]
    exact = {norm: np.abs(lead) / np.linalg.norm(w, dual) for norm, dual in {"linf": 1, "l2": 2, "l1": np.inf}.items()}
    for distance in exact.values():
        distance[:3] = 0
    return jnp.asarray(w), x, y, exact


@pytest.mark.parametrize(
    ("method", "norm", "steps", "tolerance"),
    [
        ("fab", "linf", 20, 0.02),  # overshoots by at most 5 % and then moves back
        ("fab", "l2", 20, 0.02),
        ("fmn", "linf", 30, 0.003),
        ("fmn", "l2", 30, 0.003),
        ("fmn", "l1", 30, 0.003),
        ("ddn", "l2", 150, 0.05),  # keeps to steps of 5 %
    ],
)
def test_distance_to_a_plane_equals_the_closed_form(problem, method, norm, steps, tolerance):
    w, x, y, exact = problem
    found = minimal_norm(half_space, w, x, y, 0, norm=norm, method=method, steps=steps)
    np.testing.assert_allclose(found.distance, exact[norm], rtol=tolerance, atol=1e-6)
    assert np.all(found.distance >= exact[norm] * (1 - 1e-5)), "nearer than any adversarial image"
    assert np.all(np.argmax(half_space(w, found.images), axis=1) != y)
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("method", "norm"),
    [*((method, norm) for method in ("fab", "fmn") for norm in ("linf", "l2", "l1")), ("ddn", "l2")],
)
def test_distances_do_not_depend_on_the_scale_of_the_logits(problem, method, norm):
    w, x, y, _ = problem
    # The cross-entropy of DDN is constant, which warns, where the logits are large.
    scales = 2.0 ** np.array([0, -50, -100, *(() if method == "ddn" else (50, 100))], np.float32)

    def distance(scale):
        return minimal_norm(scaled, (w, scale), x[:5], y[:5], 0, norm=norm, method=method, steps=10).distance

    def scaled(variables, x):
        return half_space(variables[0], x) * variables[1]

    expected = distance(scales[0])
    assert np.isfinite(expected).all()
    for scale in scales[1:]:
        np.testing.assert_allclose(distance(scale), expected, rtol=1e-3)


@pytest.mark.parametrize(("method", "norm"), [("fab", "linf"), ("fmn", "l1"), ("ddn", "l2")])
def test_distance_is_infinite_where_no_image_is_misclassified_and_zero_where_the_clean_one_is(problem, method, norm):
    w, x, _, _ = problem
    labels = np.arange(30) % 2

    def far(variables, x):
        return half_space(variables, x) + jnp.array([[1e3, 0.0]])

    found = minimal_norm(far, w, x, labels, 0, norm=norm, method=method, steps=5)
    np.testing.assert_array_equal(found.distance, np.where(labels == 0, np.inf, 0))
    np.testing.assert_array_equal(found.images, x)


def test_methods_find_equal_distances_from_the_boundaries_of_ten_classes(linear, softmax):
    x, y = softmax.images[:30], softmax.labels[:30]
    fab, fmn, ddn = (
        np.asarray(minimal_norm(linear, softmax.variables, x, y, 0, norm="l2", **options).distance)
        for options in ({"steps": 20}, {"method": "fmn", "targets": 9}, {"method": "ddn"})
    )
    assert np.all(fab < 5)
    np.testing.assert_allclose(fmn, fab, rtol=0.02)
    assert np.median(ddn / np.maximum(fab, 1e-9)) < 1.03


@pytest.mark.parametrize(
    ("expected", "options"),
    [
        ("DDN does not support the norm 'linf', only l2", {"method": "ddn"}),
        ("Invalid method 'best': expected one of fab, fmn, ddn", {"method": "best"}),
        ("restarts is 2, but 'fmn' has a single start", {"method": "fmn", "restarts": 2}),
    ],
)
def test_a_method_that_does_not_fit_raises_a_clear_error(problem, expected, options):
    w, x, y, _ = problem
    with pytest.raises(InputError, match=expected):
        minimal_norm(half_space, w, x, y, 0, **options)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_robust_accuracy_curve_is_the_share_of_images_at_a_larger_distance(problem, norm):
    w, x, y, exact = problem
    # Radii half-way between two distances, so that rounding decides nothing.
    distances = np.sort(exact[norm])
    radii = [0.0, *((distances[i] + distances[i + 1]) / 2 for i in (25, 10, 18))]
    curve = robust_accuracy_curve(half_space, w, x, y, 0, norm=norm, eps=radii, version=["apgd-ce"])
    np.testing.assert_allclose(curve.eps, np.sort(radii))
    np.testing.assert_allclose(curve.accuracy, [np.mean(exact[norm] > eps) for eps in np.sort(radii)], atol=1e-9)


def test_an_empty_list_of_radii_raises_a_clear_error(problem):
    w, x, y, _ = problem
    with pytest.raises(InputError, match="eps is empty"):
        robust_accuracy_curve(half_space, w, x, y, 0, eps=[])


@pytest.mark.parametrize(
    ("expected", "options"),
    [
        ("Labels must lie in 0..1; got values from 7 to 8", {"labels": 7}),  # clean errors all, and so never attacked
        ("Invalid eps 128: images in", {"norm": "l2", "eps": [128.0]}),
        ("expected radii in pixel units", {"eps": ["wide"]}),
    ],
)
def test_labels_and_radii_that_do_not_fit_are_refused_even_if_no_image_is_attacked(
    problem, expected, options, monkeypatch
):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it would refuse them first
    w, x, y, _ = problem
    with pytest.raises(InputError, match=expected):
        robust_accuracy_curve(half_space, w, x, y + options.pop("labels", 0), 0, **{"eps": [0.1]} | options)


def test_a_model_that_is_no_function_is_refused(problem, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it would refuse them first
    w, x, y, _ = problem
    with pytest.raises(InputError, match="must be a function"):
        minimal_norm(3, w, x, y, 0)
