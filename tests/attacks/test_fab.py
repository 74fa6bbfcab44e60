"""FAB: projections against their definition and pyautoattack 0.2.0, whole runs against pyautoattack."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyautoattack.fab_projections import projection_l2, projection_linf
from pyautoattack.fab_pt import FABAttack_PT
from scipy.optimize import brentq

from mi_jax.attacks import FAB, fab
from mi_jax.attacks.attack import Batch
from mi_jax.attacks.engine.input_checks import Model
from mi_jax.attacks.engine.run import problem_of
from mi_jax.attacks.fab import onto_hyperplane
from mi_jax.errors import InputError

COUNT = 40
project = jax.jit(onto_hyperplane, static_argnames="norm")


def problems(rows, size, seed=0):
    random = np.random.default_rng(seed)
    point = random.uniform(0, 1, (rows, size)).astype(np.float32)
    normal = random.normal(size=(rows, size)).astype(np.float32)
    # From planes through the point to planes that miss the box.
    offset = (normal * point).sum(1) + random.normal(size=rows).astype(np.float32) * np.linspace(0, 12, rows)
    return point, normal, offset.astype(np.float32)


@pytest.mark.parametrize(("norm", "peer"), [("linf", projection_linf), ("l2", projection_l2)])
def test_projection_equals_pyautoattack(norm, peer):
    point, normal, offset = problems(64, 50)
    ours = np.asarray(project(*map(jnp.asarray, (point, normal, offset)), norm=norm))
    theirs = peer(*map(torch.tensor, (point, normal, offset))).numpy()
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), norm=st.sampled_from(["linf", "l2"]))
def test_projection_is_the_smallest_move_that_reaches_the_plane(seed, norm):
    point, normal, offset = problems(8, 20, seed)
    normal[:, ::7] = 0
    move = np.asarray(project(*map(jnp.asarray, (point, normal, offset)), norm=norm))
    assert np.all((point + move >= -1e-6) & (point + move <= 1 + 1e-6))
    assert np.all(move[:, ::7] == 0)
    for x, w, b, d in zip(point, normal, offset, move, strict=True):
        gap = float(w @ x - b)
        speed = np.sign(gap) * (np.sign(w) if norm == "linf" else w)

        def after(level, x=x, w=w, b=b, speed=speed):
            return float(w @ np.clip(x - level * speed, 0, 1) - b)

        farthest = after(1e9)
        if gap * farthest > 0:
            np.testing.assert_allclose(x + d, np.clip(x - 1e9 * speed, 0, 1), atol=1e-5)
        else:
            level = brentq(after, 0, 1e9, xtol=1e-10, maxiter=500) if gap else 0.0
            np.testing.assert_allclose(d, np.clip(x - level * speed, 0, 1) - x, atol=1e-4)


@pytest.mark.parametrize(
    ("norm", "eps", "targets"),
    [
        ("linf", 0.1, 3),
        ("l2", 0.8, 0),
        pytest.param("linf", 0.1, 0, marks=pytest.mark.slow),
        pytest.param("l2", 0.8, 3, marks=pytest.mark.slow),
    ],
)
def test_minimal_perturbations_equal_pyautoattack(cnn, robust, norm, eps, targets):
    x, y = robust.torch_batch(COUNT)
    # An eps above all distances, so that both return the nearest adversarial image that they found.
    wide = {"linf": 1.0, "l2": 10.0}[norm]
    peer = FABAttack_PT(
        robust.torch_model,
        norm={"linf": "Linf", "l2": "L2"}[norm],
        n_iter=20,
        eps=wide,
        device="cpu",
        targeted=targets > 0,
    )
    with torch.no_grad():
        clean = robust.torch_model(x).argmax(1) == y
        if targets:
            distances = []
            for rank in range(2, targets + 2):
                peer.target_class = rank
                distances.append(size(peer.attack_single_run(x, y, is_targeted=True) - x, norm))
            theirs = torch.stack(distances).amin(0).numpy()
        else:
            theirs = size(peer.attack_single_run(x, y) - x, norm).numpy()
    config = FAB(norm=norm, eps=wide, steps=20, targets=targets)
    ours = fab(cnn, robust.variables, robust.images[:COUNT], robust.labels[:COUNT], jax.random.key(0), config=config)
    keep = clean.numpy()
    assert keep.sum() > 30
    assert ours.success.all()
    close = np.abs(np.asarray(ours.perturbation_norm) - theirs)[keep] < 1e-4
    assert close.mean() > 0.9
    near = np.asarray(ours.perturbation_norm)[keep] <= eps
    assert np.mean(near == (theirs[keep] <= eps)) > 0.95


def size(delta, norm):
    flat = delta.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)


def test_found_images_lie_within_eps_and_others_are_clean(cnn, robust):
    images, labels = robust.images[:COUNT], robust.labels[:COUNT]
    config = FAB(eps=0.06, steps=10, targets=2, restarts=2)
    result = fab(cnn, robust.variables, images, labels, jax.random.key(0), config=config)
    norms = np.asarray(result.perturbation_norm)
    assert norms.max() <= 0.06 + 1e-6
    assert np.all(norms[~np.asarray(result.success)] == 0)
    np.testing.assert_array_equal(result.success, jnp.argmax(cnn(robust.variables, result.images), axis=1) != labels)


def test_a_misclassified_image_is_its_own_nearest_adversarial_image(cnn, robust):
    images = robust.images[:COUNT]
    wrong = (jnp.argmax(cnn(robust.variables, images), axis=1) + 1) % 10
    result = fab(cnn, robust.variables, images, wrong, jax.random.key(0), config=FAB(norm="l2", eps=1.0, steps=5))
    np.testing.assert_array_equal(result.perturbation_norm, 0)
    np.testing.assert_array_equal(result.images, images)
    assert result.success.all()


def test_bad_settings_raise_a_clear_error():
    for expected, options in {
        "Invalid eta 0.5: expected a number of at least 1": {"eta": 0.5},
        "targets": {"targets": -1},
        "eps -1.0": {"eps": -1.0},
    }.items():
        with pytest.raises(InputError, match=expected):
            FAB(**options)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_first_start_is_the_image_and_later_ones_are_half_of_the_radius_away(linear, softmax, norm):
    grey, restarts = jnp.full((2, 8, 8, 3), 0.5), jnp.array([0, 1])
    batch = Batch(grey, jnp.zeros(2, jnp.int32), None, restarts)
    config = FAB(norm=norm, eps=0.1, restarts=2)
    problem = problem_of(config, Model(linear), softmax.variables, None, batch)
    words = jax.random.bits(jax.random.key(0), (2, config.start_words((8, 8, 3))))
    found = problem.threat.distance(config.initial_state(problem, words).point, grey)
    np.testing.assert_allclose(found, [0, 0.05], rtol=1e-5)
