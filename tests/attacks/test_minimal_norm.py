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
    exact = {"linf": np.abs(lead) / np.abs(w).sum(), "l2": np.abs(lead) / np.linalg.norm(w)}
    for distance in exact.values():
        distance[:3] = 0
    return jnp.asarray(w), x, y, exact


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_distance_to_a_plane_equals_the_closed_form(problem, norm):
    w, x, y, exact = problem
    found = minimal_norm(half_space, w, x, y, 0, norm=norm, steps=20)
    # FAB overshoots by at most 5 % and then moves back.
    np.testing.assert_allclose(found.distance, exact[norm], rtol=0.02, atol=1e-6)
    wrong = np.argmax(half_space(w, found.images), axis=1) != y
    assert wrong.all()
    assert found.warnings == ()


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
