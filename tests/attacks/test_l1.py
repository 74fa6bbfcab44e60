"""The L1 threat model: projections against pyautoattack 0.2.0 and closed forms, and its attacks image by image."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from pyautoattack import AutoAttack, autopgd_base
from pyautoattack.autopgd_base import APGDAttack, L1_projection
from pyautoattack.fab_projections import projection_l1
from pyautoattack.fab_pt import FABAttack_PT

from mi_jax.attacks import APGD, FAB, PGD, Budget, Square, ThreatModel, autoattack, fab, minimal_norm, plan, run
from mi_jax.attacks.apgd_l1 import Schedule, sparse_sign
from mi_jax.attacks.attack import Batch
from mi_jax.attacks.engine.input_checks import Model
from mi_jax.attacks.engine.run import problem_of, steps
from mi_jax.attacks.projections import onto_hyperplane, onto_l1_ball, threshold

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
COUNT, EPS = 40, 3.0


@pytest.fixture(scope="module")
def random():
    return np.random.default_rng(0)


@pytest.mark.parametrize("eps", [0.3, 5.0, 1e3])
def test_projection_onto_ball_and_box_equals_pyautoattack(random, eps):
    clean = random.uniform(0, 1, (64, 60)).astype(np.float32)
    clean[:, :20] = np.round(clean[:, :20])
    delta = (random.normal(size=(64, 60)) * random.uniform(0.001, 2, (64, 1))).astype(np.float32)
    delta[:, ::7] = 0
    ours = onto_l1_ball(jnp.asarray(delta), jnp.asarray(clean), eps)
    theirs = delta + L1_projection(torch.tensor(clean), torch.tensor(delta), eps).numpy()
    np.testing.assert_allclose(ours, theirs, atol=3e-5)
    assert np.abs(ours).sum(axis=1).max() <= eps * (1 + 1e-5)
    own = onto_l1_ball(jnp.asarray(delta), jnp.asarray(clean), jnp.linspace(eps / 2, eps, 64))
    assert np.all(np.abs(own).sum(axis=1) <= np.linspace(eps / 2, eps, 64) * (1 + 1e-5))


def test_move_onto_a_hyperplane_is_as_long_as_that_of_pyautoattack(random):
    point = random.uniform(0, 1, (64, 50)).astype(np.float32)
    normal = np.round(2 * random.normal(size=(64, 50))).astype(np.float32) / 2 + np.float32(1e-3)
    offset = ((normal * point).sum(1) + random.normal(size=64) * np.linspace(0, 12, 64)).astype(np.float32)
    ours = np.asarray(onto_hyperplane(*map(jnp.asarray, (point, normal, offset)), norm="l1"))
    theirs = projection_l1(*map(torch.tensor, (point, normal, offset))).numpy()
    # Equal entries of the normal share what they have to move here, which is as short.
    np.testing.assert_allclose(np.abs(ours).sum(1), np.abs(theirs).sum(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose((normal * (point + ours)).sum(1), (normal * (point + theirs)).sum(1), atol=2e-4)
    assert np.all((point + ours >= -1e-6) & (point + ours <= 1 + 1e-6))


def test_threshold_is_the_value_of_that_rank(random):
    values = np.abs(random.normal(size=(9, 30))).astype(np.float32)
    ranks = jnp.arange(1, 28, 3)
    expected = [row[-k] for row, k in zip(np.sort(values, axis=1), ranks, strict=True)]
    np.testing.assert_array_equal(threshold(jnp.asarray(values), jnp.int32(1), ranks), np.array(expected))
    assert float(threshold(jnp.ones((1, 3)), 1.0, jnp.array([4.0]))[0]) == 0


def test_steps_move_the_pixels_with_the_largest_gradient(random):
    gradient = random.normal(size=(2, 10, 10, 1)).astype(np.float32)
    step = sparse_sign(jnp.asarray(gradient), jnp.array([0.05, 0.2]))
    for row, slope, count in zip(np.asarray(step), gradient, (5, 20), strict=True):
        largest = np.argsort(np.abs(slope).ravel())[-count:]
        expected = np.zeros(100)
        expected[largest] = np.sign(slope.ravel()[largest]) / count
        np.testing.assert_allclose(row.ravel(), expected, atol=1e-6)
    few = ThreatModel("l1", 1.0).steepest(jnp.asarray(gradient))
    np.testing.assert_allclose(np.abs(few).sum(axis=(1, 2, 3)), 1, rtol=1e-6)
    assert np.all(np.count_nonzero(few, axis=(1, 2, 3)) == 1)


def test_random_starts_are_uniform_in_the_ball():
    """A uniform point of the ball of d dimensions has length eps u^(1/d), and each coordinate |x| / length mean 1/d."""
    clean = jnp.full((4000, 1, 1, 3), 0.5)
    start = np.asarray(ThreatModel("l1", 0.4).random_start(jax.random.key(0), clean) - clean)[:, 0, 0]
    length = np.abs(start).sum(axis=1)
    np.testing.assert_allclose(np.quantile(length / 0.4, [0.1, 0.5, 0.9]), np.cbrt([0.1, 0.5, 0.9]), atol=0.02)
    # Uniform on the simplex: the first of three parts has the distribution 1 - (1 - t)^2.
    part = np.abs(start[:, 0]) / length
    np.testing.assert_allclose(np.quantile(part, [0.25, 0.5, 0.75]), 1 - np.sqrt([0.75, 0.5, 0.25]), atol=0.03)


def test_radii_shrink_in_the_proportions_of_the_paper():
    schedule = Schedule.of(100, True)
    assert [int(np.sum(schedule.radius == r)) for r in (3, 2, 1)] == [31, 31, 41]
    np.testing.assert_array_equal(np.flatnonzero(schedule.ends), [30, 61])
    np.testing.assert_array_equal(np.flatnonzero(schedule.begins), [0, 31, 62])
    assert APGD(norm="l1").iterations == 103
    assert [len(Schedule.of(n, True).radius) for n in (1, 2, 3)] == [2, 3, 6]
    assert not Schedule.of(20, False).ends.any()


def peer_of(model, decreasing):
    peer = APGDAttack(model, n_iter=50, norm="L1", eps=EPS, device="cpu", use_largereps=decreasing)
    peer.init_hyperparam(torch.zeros(1, 3, 8, 8))
    return peer


def compare_apgd(monkeypatch, logits_fn, net, torch_model, decreasing):
    """Best and adversarial images from the same start, in double precision, with pixels that moved counted exactly.

    The official code counts a pixel as changed where rounding leaves it 1e-17 from its clean value.
    """
    x, y = net.torch_batch(COUNT)
    start = np.random.default_rng(1).normal(size=(COUNT, 8, 8, 3))
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(autopgd_base, "L0_norm", lambda d: (d.abs() > 1e-12).view(len(d), -1).sum(-1))
    monkeypatch.setattr(torch, "randn", lambda *a, **k: torch.tensor(start.transpose(0, 3, 1, 2).copy()))
    monkeypatch.setattr(torch, "randn_like", torch.randn)
    torch.set_default_dtype(torch.float64)
    torch_model.double()
    try:
        with torch.no_grad():
            peer = peer_of(torch_model, decreasing)
            if decreasing:
                best, accurate, _, adversarial = peer.decr_eps_pgd(x.double(), y, [3 * EPS, 2 * EPS, EPS], [15, 15, 20])
            else:
                best, accurate, _, adversarial = peer.attack_single_run(x.double(), y)
    finally:
        torch.set_default_dtype(torch.float32)
        monkeypatch.undo()
        torch_model.float()
    config = APGD(norm="l1", eps=EPS, steps=50, decreasing_eps=decreasing)
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), net.variables)
        labels = jnp.asarray(net.labels[:COUNT])
        images = jnp.asarray(net.images[:COUNT].astype(np.float64))
        batch = Batch(images, labels, None, jnp.zeros_like(labels))
        problem = problem_of(config, Model(logits_fn), variables, None, batch)
        monkeypatch.setattr("mi_jax.attacks.engine.randomness.normal", lambda words: jnp.asarray(start))
        state = config.initial_state(problem, jnp.zeros((COUNT, 192), jnp.uint32))
        ours = jax.jit(lambda state: steps(config, problem, state, None, 0, config.iterations))(state)
        monkeypatch.undo()
    found = np.asarray(ours.found)
    np.testing.assert_array_equal(found, accurate.numpy() == 0)
    assert 0.2 < found.mean() < 0.99
    gaps = [
        np.abs(np.asarray(mine) - peers.numpy().transpose(0, 2, 3, 1)).max((1, 2, 3))
        for mine, peers in ((ours.best, best), (ours.images, adversarial))
    ]
    return np.mean(gaps[0] <= 1e-6), np.mean(gaps[1][found] <= 1e-6)


@pytest.mark.parametrize("decreasing", [False, True])
def test_apgd_from_the_same_start_equals_pyautoattack(monkeypatch, linear, softmax, decreasing):
    dense = torch.nn.Linear(192, 10)
    with torch.no_grad():
        weights = np.asarray(softmax.variables["w"]).reshape(8, 8, 3, 10).transpose(3, 2, 0, 1).reshape(10, 192)
        dense.weight.copy_(torch.tensor(weights))
        dense.bias.copy_(torch.tensor(np.asarray(softmax.variables["b"])))
    model = torch.nn.Sequential(torch.nn.Flatten(), dense)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert min(compare_apgd(monkeypatch, linear, softmax, model, decreasing)) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("decreasing", [False, True])
@pytest.mark.parametrize("name", ["normal", "robust"])
def test_apgd_on_a_network_equals_pyautoattack(monkeypatch, cnn, request, name, decreasing):
    net = request.getfixturevalue(name)
    assert min(compare_apgd(monkeypatch, cnn, net, net.torch_model, decreasing)) > 0.9


def half_space(variables, x):
    lead = (x.reshape(len(x), -1) - 0.5) @ variables
    return jnp.stack([-lead, lead], axis=1)


def test_minimal_distance_to_a_plane_is_the_lead_over_the_largest_weight(random):
    w = random.normal(size=12).astype(np.float32)
    x = random.uniform(0.45, 0.55, (30, 2, 2, 3)).astype(np.float32)
    lead = (x.reshape(30, -1) - 0.5) @ w
    found = minimal_norm(half_space, jnp.asarray(w), x, (lead > 0).astype(int), 0, norm="l1", steps=20)
    np.testing.assert_allclose(found.distance, np.abs(lead) / np.abs(w).max(), rtol=0.02, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("targets", [0, 3])
def test_minimal_perturbations_equal_pyautoattack(cnn, robust, targets):
    x, y = robust.torch_batch(COUNT)
    options = {"norm": "L1", "n_iter": 20, "eps": 100.0, "device": "cpu", "targeted": targets > 0}
    peer = FABAttack_PT(robust.torch_model, **options)
    distances = []
    with torch.no_grad():
        for rank in range(2, max(1, targets) + 2):
            peer.target_class = rank
            moved = peer.attack_single_run(x, y, is_targeted=targets > 0) - x
            distances.append(moved.flatten(1).abs().sum(1))
        clean = (robust.torch_model(x).argmax(1) == y).numpy()
    theirs = torch.stack(distances).amin(0).numpy()
    config = FAB(norm="l1", eps=100.0, steps=20, targets=targets)
    ours = fab(cnn, robust.variables, robust.images[:COUNT], robust.labels[:COUNT], 0, config=config)
    close = np.isclose(np.asarray(ours.perturbation_norm), theirs, rtol=1e-3)[clean]
    assert close.mean() > 0.9


def official(net, count, budget):
    """The images that pyautoattack's standard L1 evaluation leaves robust, with our numbers of steps and targets."""
    suite = AutoAttack(net.torch_model, norm="L1", eps=EPS, seed=0, version="standard")
    suite.apgd.n_iter_orig = suite.apgd_targeted.n_iter_orig = budget.apgd_steps
    suite.apgd_targeted.n_target_classes, suite.fab.n_target_classes = min(5, budget.targets), budget.targets
    suite.fab.n_iter, suite.square.n_queries = budget.fab_steps, budget.square_queries
    images, labels = net.torch_batch(count)
    return (suite.run_standard_evaluation(images, labels)[1] == labels).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["normal", "robust"])
def test_standard_breaks_the_images_that_pyautoattack_breaks(cnn, request, name):
    net = request.getfixturevalue(name)
    theirs = official(net, 100, Budget())
    ours = autoattack(cnn, net.variables, net.images[:100], net.labels[:100], 7, norm="l1", eps=EPS)
    print(f"{name}: {ours.robust_accuracy:.2f} here, {theirs.mean():.2f} by pyautoattack 0.2.0")
    assert np.mean(ours.success == theirs) <= 0.01
    assert ours.warnings == ()


def test_an_evaluation_in_l1_stays_in_the_ball_and_finds_what_pyautoattack_finds(linear, softmax):
    """Golden: pyautoattack 0.2.0 leaves the same images robust with this budget."""
    options = {"norm": "l1", "eps": EPS, "budget": Budget(apgd_steps=20, fab_steps=10, square_queries=50, targets=3)}
    x, y = softmax.images[:COUNT], softmax.labels[:COUNT]
    result = autoattack(linear, softmax.variables, x, y, 7, version=["apgd-ce", "fab-t", "square", PGD()], **options)
    assert result.perturbation_norm.max() <= EPS * (1 + 1e-5)
    assert result.images.min() >= 0
    assert result.images.max() <= 1
    np.testing.assert_array_equal(result.success, np.argmax(linear(softmax.variables, result.images), axis=1) != y)
    # Only images that an exact search over pairs of classes leaves robust survive.
    assert result.robust_accuracy == pytest.approx(np.mean(exact_distance(softmax, x, y) > EPS), abs=0.026)


def exact_distance(net, x, y):
    """L1 distance of each image from the nearest boundary of softmax regression, by filling the steepest pixels."""
    w, b = np.asarray(net.variables["w"]), np.asarray(net.variables["b"])
    flat, distance = x.reshape(len(x), -1), np.full(len(x), np.inf)
    for k in range(10):
        normal, lead = w[:, k] - w[:, y].T, -(flat * (w[:, k] - w[:, y].T)).sum(1) - (b[k] - b[y])
        move = onto_hyperplane(
            jnp.asarray(flat), jnp.asarray(normal, jnp.float32), jnp.asarray((flat * normal).sum(1) + lead), "l1"
        )
        reached = np.abs((normal * (flat + np.asarray(move))).sum(1) + b[k] - b[y]) < 1e-3
        own = np.where(y == k, np.inf, np.where(reached, np.abs(np.asarray(move)).sum(1), np.inf))
        distance = np.minimum(distance, np.where(lead > 0, own, np.where(y == k, np.inf, 0)))
    return distance


def test_standard_in_l1_has_the_restarts_and_targets_of_the_official_code():
    stages = dict(plan("standard", "l1", 12.0, Budget(), 10, (8, 8, 3)))
    assert (stages["apgd-ce"].restarts, stages["apgd-t"].targets, stages["apgd-t"].restarts) == (5, 5, 1)
    assert (stages["fab-t"].targets, stages["fab-t"].restarts) == (9, 1)
    assert PGD(norm="l1") == dataclasses.replace(PGD(norm="l1", eps=12.0), step_size=3.0)
    assert Square(norm="l1").eps == 12.0


@pytest.mark.parametrize("config", [PGD(norm="l2", step_size=0.2), APGD(steps=6), FAB(steps=5), Square(queries=20)])
def test_each_image_can_have_its_own_radius(linear, softmax, config):
    x, y = softmax.images[:20], softmax.labels[:20]
    attack = functools.partial(run, linear, softmax.variables, key=3, config=config)
    radii = np.where(np.arange(20) < 8, 0.05, 0.2)
    mixed = attack(x=x, y=y, eps=radii)
    for part, eps in ((slice(0, 8), 0.05), (slice(8, 20), 0.2)):
        alone = attack(x=x[part], y=y[part], eps=eps, index=np.arange(20)[part])
        np.testing.assert_allclose(mixed.images[part], alone.images, atol=1e-6)
    assert np.all(mixed.perturbation_norm <= radii * (1 + 1e-5))
