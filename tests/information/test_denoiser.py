"""The denoiser against closed forms of Gaussians and Gaussian mixtures, and against MINDE."""

import importlib

import jax
import numpy as np
import pytest

from mi_jax.errors import InputError
from mi_jax.information import beyond_normal, denoiser, estimate, tasks

FEW = {"steps": 100, "hidden": 32, "batch": 64, "learning_rate": 1e-2}


def test_one_network_has_the_information_of_a_gaussian_at_every_noise_level(key):
    """Within three of the stated errors, and not below the truth beyond two: the value is a bound in expectation."""
    variances = np.array([0.1, 1.0, 10.0])
    t = np.random.default_rng(0).standard_normal((400, 3)) * [1.0, 0.5, 2.0]
    found = denoiser(t, noise_variance=variances, key=key, **FEW)
    true = sum(0.5 * np.log1p(s**2 / variances) for s in (1.0, 0.5, 2.0))
    assert (np.abs(found.i_tx - true) < 3 * found.i_tx_stderr).all()
    assert (found.i_tx > true - 2 * found.i_tx_stderr).all()
    assert (found.i_tx_stderr < 0.15).all()
    assert not found.unreliable.any()


@pytest.fixture(scope="module")
def two_points():
    t, y = np.repeat([[1.0], [-1.0]], 120, axis=0), np.repeat([0, 1], 120)
    return denoiser(t, y, noise_variance=[0.25, 1.0], key=jax.random.key(1), **FEW | {"steps": 400})


def test_a_mixture_has_less_information_than_the_gaussian_of_its_variance_which_the_linear_part_sees(two_points):
    true = np.array([0.6327201937, 0.3368308203])
    gaussian = 0.5 * np.log1p(1 / np.array([0.25, 1.0]))
    assert (np.abs(two_points.i_tx - true) < 3 * two_points.i_tx_stderr).all()
    assert (np.abs(two_points.i_tx - true) < 0.06).all()
    assert two_points.i_tx[0] < gaussian[0] - 0.1


def test_the_label_of_a_point_has_all_of_its_information(two_points):
    assert np.abs(two_points.i_other - two_points.i_tx).max() < 0.01


def test_a_value_near_the_entropy_of_the_labels_is_flagged_as_training_may_have_left_the_linear_denoiser(two_points):
    # 0.63 of ln 2 = 0.69 nats at the smaller noise, 0.34 at the larger.
    assert two_points.unreliable.tolist() == [True, False]


def test_too_few_rows_are_refused_and_too_few_for_the_width_are_flagged(key):
    with pytest.raises(InputError, match="at least 16"):
        denoiser(np.eye(8), noise_variance=1.0, key=key)
    t, y = np.random.default_rng(0).standard_normal((40, 60)), np.arange(40) % 2
    found = denoiser(t, y, noise_variance=1.0, key=key, **FEW)
    assert found.unreliable
    assert abs(found.i_tx - tasks.gaussian_channel(60, 1.0)) < 2 * found.i_tx_stderr
    assert abs(found.i_other) < 2 * found.i_other_stderr, "the label is not in t"


def test_noise_below_the_digits_of_the_network_is_flagged(key):
    t = np.random.default_rng(0).standard_normal((64, 2)).astype(np.float32) * 1e15
    assert denoiser(t, noise_variance=0.1, key=key, steps=2).unreliable


def test_few_rows_and_an_unfinished_training_are_two_limits(key):
    t, y = np.random.default_rng(0).standard_normal((40, 60)), np.arange(40) % 2
    assert estimate("denoiser", t, y, noise_variance=1.0, key=key, **FEW).unreliable == "sample size"
    points = np.repeat([[1.0], [-1.0]], 120, axis=0)
    options = {"noise_variance": 0.1, "steps": 100, "learning_rate": 0.02, "hidden": 16, "batch": 64}
    assert estimate("denoiser", points, key=key, **options).unreliable == "training"


@pytest.mark.parametrize(("moved", "unreliable"), [(0.0, False), (0.3, True)])
def test_an_unfinished_training_of_either_network_makes_the_information_about_the_other_unreliable(
    monkeypatch, key, moved, unreliable
):
    def terms(key, x, condition, **options):
        """Of i_tx 2 and, given the other, 1 nat, which the second half of the training moved."""
        given = condition.shape[1] > 0
        return np.stack([np.full((1, len(x)), value) for value in (2.0 - given, 2.0 - given + moved * given)])

    monkeypatch.setattr(importlib.import_module("mi_jax.information.estimators.denoiser"), "_information", terms)
    found = denoiser(np.arange(40.0)[:, None], np.arange(40) % 5, noise_variance=1.0, key=key)
    assert found.i_other == pytest.approx(1.0)
    assert found.i_other_stderr == pytest.approx(moved)
    assert found.unreliable is unreliable
    assert not denoiser(np.arange(40.0)[:, None], noise_variance=1.0, key=key).unreliable


@pytest.mark.slow
@pytest.mark.parametrize(
    "task",
    [tasks.label_task(16), beyond_normal.sparse_task(5), tasks.student_task(2, 2), beyond_normal.sparse_task(25)],
    ids=lambda task: task.name,
)
def test_known_information_is_within_three_stated_errors(task, key):
    t, other = task.sample(2000, 0)
    options = {"noise_variance": task.noise_variance} if task.noise_variance else {}
    found = estimate("denoiser", t, other, key=key, **options)
    assert abs(found.value - task.information) < 3 * found.stderr + 0.05


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_minde_has_the_same_information_of_a_normal_pair_within_two_tenths(key):
    minde = pytest.importorskip(
        "dmi.estimators",
        reason="MINDE is absent; install the package diffusion-mi with torchvision to compare with it",
        exc_type=ImportError,
    )
    task = tasks.normal_task(2, 2, 0.5)
    t, other = task.sample(2000, 0)
    peer = minde.MINDEEstimator(learning_rate=1e-3, batch_size=128, max_epochs=120)
    peer.fit(t[:1500], other[:1500])
    theirs, ours = float(peer.estimate(t[1500:], other[1500:])), estimate("denoiser", t, other, key=key).value
    assert abs(ours - task.information) < 0.1
    assert abs(ours - theirs) < 0.2
