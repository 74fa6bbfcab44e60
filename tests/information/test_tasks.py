"""Closed forms against published values, and samples that have the information of their task."""

import math

import numpy as np
import pytest
from scipy.special import logsumexp, ndtri
from scipy.stats import qmc

from mi_jax.errors import InputError
from mi_jax.information import monte_carlo, tasks


def test_closed_forms_equal_published_values():
    amplitudes = {((-1, 1), 1.0): 0.3368308203, ((-1, 1), 0.25): 0.6327201937, ((-1, 1), 0.1): 0.6908988385}
    amplitudes |= {((-3, -1, 1, 3), 1.0): 0.8452327551, (tuple(range(-7, 8, 2)), 0.5): 1.7413462442}
    for (levels, variance), want in amplitudes.items():
        assert tasks.amplitude_channel(np.array(levels), variance) == pytest.approx(want, abs=1e-9)
    assert tasks.gaussian_channel(10, 0.1) == pytest.approx(11.989476363991853, abs=1e-12)
    assert tasks.additive_uniform(0.1) == pytest.approx(1.7094379124, abs=1e-9)
    assert tasks.additive_uniform(0.75) == pytest.approx(1 / 3, abs=1e-12)
    assert tasks.staircase(5) == pytest.approx(1.0549201680, abs=1e-9)
    assert tasks.normal_task(25, 25, 0.5).information == pytest.approx(1.2921837216, abs=1e-9)
    assert tasks.normal_task(1, 1, 0.75).information == pytest.approx(-0.5 * math.log(1 - 0.75**2), abs=1e-12)
    assert tasks.student_task(1, 1).information == pytest.approx(0.2241714275, abs=1e-9)
    assert tasks.student_task(3, 5).information == pytest.approx(0.2985436227, abs=1e-9)


def test_a_simplex_of_two_is_the_binary_channel():
    for variance in (0.02, 0.5, 30.0):
        binary = tasks.amplitude_channel(np.array([-1, 1]), 2 * variance)
        assert tasks.simplex_channel(2, variance) == pytest.approx(binary, abs=1e-9)


@pytest.mark.parametrize("variance", [1.2426, 0.3563, 0.1615])
def test_a_simplex_of_ten_agrees_with_quasi_monte_carlo(variance):
    """Scrambled Sobol points and their mirror images, for each of the ten vectors as input."""
    half = ndtri(np.clip(qmc.Sobol(10, seed=0).random_base2(14), 1e-12, 1 - 1e-12))
    g = np.concatenate([half, -half])
    lost = 0.0
    for sent in range(10):
        exponent = (g - g[:, [sent]]) / math.sqrt(variance) - 1 / variance
        exponent[:, sent] = 0
        lost += logsumexp(exponent, axis=1).mean() / 10
    assert tasks.simplex_channel(10, variance) == pytest.approx(math.log(10) - lost, abs=2e-4)


def test_monte_carlo_finds_the_prescribed_information(key):
    task = tasks.prescribed_task(1.0, classes=6, width=40)
    t, y = task.sample(120, 0)
    assert task.information == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(np.unique(np.round(t @ t.T, 4)), [0, 1], atol=1e-4)  # a regular simplex
    got = monte_carlo(t, y, noise_variance=task.noise_variance, key=key, draws=20)
    assert abs(got.i_ty - 1.0) < 4 * got.i_ty_stderr
    with pytest.raises(InputError, match="between 0"):
        tasks.prescribed_task(9.0)


def test_samples_are_reproducible_and_have_the_shapes_of_their_task():
    for task in tasks.tasks():
        (t, other), (again, _) = task.sample(50, 3), task.sample(50, 3)
        assert t.shape == (50, task.dimension)
        assert t.dtype == np.float32
        np.testing.assert_array_equal(t, again)
        assert (other is None) == (task.target == "input")
        assert task.information > 0
        noisy, _ = task.observe(50, 3)
        assert np.allclose(noisy, t) == (task.noise_variance is None)


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: tasks.gaussian_channel(0, 1.0), "Invalid d 0: expected a whole number of at least 1"),
        (lambda: tasks.gaussian_channel(2, 0.0), r"Invalid noise_variance 0\.0: expected a positive number"),
        (lambda: tasks.channel_task(2, -1.0), r"Invalid noise_variance -1\.0: expected a positive number"),
        (lambda: tasks.amplitude_channel([], 1.0), "levels must be a list of one or more finite numbers"),
        (lambda: tasks.amplitude_channel([1.0, np.nan], 1.0), "levels must be a list of one or more finite numbers"),
        (lambda: tasks.atoms_task((-1.0, 1.0), 0.0), r"Invalid noise_variance 0\.0: expected a positive number"),
        (lambda: tasks.atoms_task((-1.0, 1.0), 1.0, dimension=0), "Invalid dimension 0: expected a whole number"),
        (lambda: tasks.normal_information(-np.eye(2), 1), "covariance must be positive definite"),
        (lambda: tasks.normal_information(np.ones((2, 2)), 1), "covariance must be positive definite"),
        (lambda: tasks.normal_information(np.ones((2, 3)), 1), r"a symmetric matrix of numbers; got shape \(2, 3\)"),
        (lambda: tasks.normal_information(np.eye(2), 2), "Invalid d 2: expected a whole number of at most 1"),
        (lambda: tasks.normal_task(0, 1, 0.5), "Invalid d 0: expected a whole number of at least 1"),
        (lambda: tasks.normal_task(1, 1, 2.0), r"Invalid rho 2\.0: expected a number in \[-1, 1\]"),
        (lambda: tasks.normal_task(1, 1, 1.0), r"Invalid rho 1\.0: expected a number between -1 and 1"),
        (lambda: tasks.paired_task(1, -1.0), r"Invalid information -1\.0: expected a number of at least 0"),
        (lambda: tasks.student_task(0, 1), "Invalid df 0: expected a positive number"),
        (lambda: tasks.uniform_task(-1.0), r"Invalid half_width -1\.0: expected a positive number"),
        (lambda: tasks.staircase_task(0), "Invalid m 0: expected a whole number of at least 1"),
        (lambda: tasks.staircase(2.5), r"Invalid m 2\.5: expected a whole number of at least 1"),
        (lambda: tasks.label_task(0), "Invalid d 0: expected a whole number of at least 1"),
        (lambda: tasks.label_task(1, -1.0), r"Invalid separation -1\.0: expected a number of at least 0"),
        (lambda: tasks.label_task(1, layer_noise=1.0), r"layer_noise is 1\.0; it must be between 0 and 1"),
        (lambda: tasks.prescribed_task(-1.0), r"Invalid information -1\.0: expected a positive number"),
        (
            lambda: tasks.prescribed_task(1.0, classes=6, width=5),
            "Invalid width 5: expected a whole number of at least",
        ),
        (lambda: tasks.simplex_channel(3, 0.0), r"Invalid noise_variance 0\.0: expected a positive number"),
    ],
)
def test_tasks_that_do_not_exist_are_refused(call, says):
    with pytest.raises(InputError, match=says):
        call()
