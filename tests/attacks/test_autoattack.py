"""AutoAttack: the end figure against pyautoattack 0.2.0, independence of batching, resumption, compile counts."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pyautoattack import AutoAttack

from mi_jax.attacks import APGD, FAB, PGD, Budget, EvaluationState, Square, apgd, autoattack, fab, square
from mi_jax.errors import InputError

QUICK = Budget(apgd_steps=10, fab_steps=5, square_queries=30, targets=3)
KEY = 7


def official(net, images, labels, norm, eps, budget):
    """Robust accuracy of pyautoattack's stages with the same numbers of steps, queries and targets."""
    suite = AutoAttack(net.twin, norm={"linf": "Linf", "l2": "L2"}[norm], eps=eps, seed=0, version="standard")
    suite.apgd.n_iter, suite.apgd_targeted.n_iter = budget.apgd_steps, budget.apgd_steps
    for attack in (suite.apgd, suite.apgd_targeted):
        shares = (0.22, 0.06, 0.03)
        attack.n_iter_2, attack.n_iter_min, attack.size_decr = (max(int(s * attack.n_iter), 1) for s in shares)
    suite.apgd_targeted.n_target_classes = suite.fab.n_target_classes = budget.targets
    suite.fab.n_iter, suite.square.n_queries = budget.fab_steps, budget.square_queries
    _, predictions = suite.run_standard_evaluation(images, labels)
    return float((predictions == labels).float().mean())


def test_robust_accuracy_is_within_one_image_in_a_hundred_of_pyautoattack(cnn, robust):
    budget = Budget(apgd_steps=30, fab_steps=15, square_queries=200, targets=4)
    theirs = official(robust, *robust.torch_batch(100), "linf", 0.1, budget)
    images, labels = robust.images[:100], robust.labels[:100]
    ours = autoattack(cnn, robust.variables, images, labels, jax.random.key(KEY), eps=0.1, budget=budget)
    assert 0.1 < ours.robust_accuracy < 0.9
    assert abs(ours.robust_accuracy - theirs) <= 0.01 + 1e-9
    check_books(cnn, robust, ours, "linf", 0.1, 100)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "norm", "eps"),
    [("normal", "linf", 0.04), ("normal", "l2", 0.4), ("robust", "linf", 0.1), ("robust", "l2", 0.8)],
)
def test_standard_is_within_one_image_in_a_hundred_of_pyautoattack(cnn, request, name, norm, eps):
    net = request.getfixturevalue(name)
    theirs = official(net, *net.torch_batch(100), norm, eps, Budget())
    key = jax.random.key(KEY)
    ours = autoattack(cnn, net.variables, net.images[:100], net.labels[:100], key, norm=norm, eps=eps)
    print(f"{name} {norm} {eps}: {ours.robust_accuracy:.2f} here, {theirs:.2f} by pyautoattack 0.2.0")
    assert 0.1 < ours.robust_accuracy < 0.9
    assert abs(ours.robust_accuracy - theirs) <= 0.01 + 1e-9
    check_books(cnn, net, ours, norm, eps, 100)


def check_books(cnn, net, result, norm, eps, count):
    labels = net.labels[:count]
    np.testing.assert_array_equal(result.success, np.argmax(cnn(net.variables, result.images), axis=1) != labels)
    np.testing.assert_array_equal(result.success, result.loss > 0)
    assert result.robust_accuracy == pytest.approx(np.mean(~result.success))
    clean = np.argmax(cnn(net.variables, net.images[:count]), axis=1) == labels
    assert result.clean_accuracy == pytest.approx(float(np.mean(clean)))
    assert result.perturbation_norm.max() <= eps * (1 + 1e-5)
    assert result.images.min() >= 0
    assert result.images.max() <= 1
    attacked = round(result.clean_accuracy * count)
    for index, stage in enumerate(result.stages):
        assert stage.attacked == attacked
        assert stage.broken == np.sum(result.broken_by == index)
        attacked -= stage.broken
        assert stage.robust_accuracy == pytest.approx(attacked / count)


def run(logits_fn, net, count=60, **options):
    options = {"norm": "linf", "eps": 0.08, "budget": QUICK} | options
    return autoattack(logits_fn, net.variables, net.images[:count], net.labels[:count], jax.random.key(KEY), **options)


def test_outcome_does_not_depend_on_the_batch_size_or_on_the_other_images(linear, softmax):
    large = run(linear, softmax, batch_size=64)
    small = run(linear, softmax, batch_size=32)
    np.testing.assert_array_equal(large.broken_by, small.broken_by)
    np.testing.assert_allclose(large.images, small.images, atol=1e-5)
    fewer = run(linear, softmax, count=25, batch_size=32)
    np.testing.assert_array_equal(large.broken_by[:25], fewer.broken_by)


class Interrupted(Exception):
    pass


def test_interrupted_evaluation_goes_on_to_the_same_result(linear, softmax, tmp_path):
    whole = run(linear, softmax, batch_size=32)
    calls = []

    def interrupt(progress):
        calls.append(progress)
        if progress.stage == "apgd-t" and 0.3 < progress.fraction < 1:
            progress.state.save(tmp_path / "state.npz")
            raise Interrupted

    with pytest.raises(Interrupted):
        run(linear, softmax, batch_size=32, progress=interrupt)
    assert calls[0].stage == "apgd-ce"
    state = EvaluationState.load(tmp_path / "state.npz")
    assert state.stage == 1
    assert 0 < state.done.sum() < 60
    rest = run(linear, softmax, batch_size=32, state=state)
    np.testing.assert_array_equal(rest.images, whole.images)
    np.testing.assert_array_equal(rest.broken_by, whole.broken_by)
    for a, b in zip(rest.stages, whole.stages, strict=True):
        assert (a.name, a.attacked, a.broken, a.robust_accuracy) == (b.name, b.attacked, b.broken, b.robust_accuracy)
    with pytest.raises(InputError, match="belongs to other images"):
        run(linear, softmax, eps=0.07, state=EvaluationState.load(tmp_path / "state.npz"))
    (tmp_path / "state.npz").write_bytes(b"PK nothing")
    with pytest.raises(InputError, match="holds no state"):
        EvaluationState.load(tmp_path / "state.npz")


def test_each_attack_compiles_once_a_bucket(linear, softmax):
    shapes = []

    def counted(variables, x):
        shapes.append(len(x))
        return linear(variables, x)

    run(counted, softmax, count=80, batch_size=64)
    # The plain forward pass (for 64 rows alone), Auto-PGD twice and Square trace the model once for a bucket; FAB
    # traces it twice, for its gradient and its check.
    assert set(shapes) <= {64, 32, 16}
    assert shapes.count(64) <= 6
    assert all(shapes.count(size) <= 5 for size in (32, 16))
    seen = collections.Counter(shapes)
    run(counted, softmax, count=80, batch_size=64, eps=0.05)
    run(counted, softmax, count=70, batch_size=64)
    # Another eps or number of images may reach a bucket for the first time, but compiles none anew.
    assert shapes.count(64) == seen[64]
    assert all(shapes.count(size) <= 5 for size in (32, 16))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_images_that_are_not_square_are_attacked_within_the_ball(linear, softmax, norm):
    def cut(variables, x):
        return linear(variables, jnp.pad(x, ((0, 0), (0, 2), (0, 0), (0, 0))))

    net = softmax._replace(images=softmax.images[:, :6])
    eps = {"linf": 0.15, "l2": 1.0}[norm]
    result = run(cut, net, norm=norm, eps=eps, version=["square"])
    assert result.stages[0].broken > 0
    check_books(cut, net, result, norm, eps, 60)


def test_a_list_runs_pgd_with_restarts_on_survivors_and_other_configs(linear, softmax):
    attacks = [PGD(steps=5, step_size=0.03, restarts=3), APGD(steps=10, loss="cw"), Square(queries=20), "fab"]
    result = run(linear, softmax, version=attacks)
    assert [stage.name for stage in result.stages] == ["pgd", "apgd", "square", "fab"]
    assert result.stages[0].broken > 0
    check_books(linear, softmax, result, "linf", 0.08, 60)


def test_random_model_needs_rand_and_rand_averages_over_its_noise(linear, softmax):
    def noisy(variables, x, key):
        return linear(variables, x) + 0.1 * jax.random.normal(key, (len(x), 10))

    result = run(noisy, softmax, version="rand", budget=Budget(apgd_steps=5, eot_draws=3))
    assert [stage.name for stage in result.stages] == ["apgd-ce", "apgd-dlr"]
    plain = run(linear, softmax, version=["apgd-ce"], budget=Budget(apgd_steps=5))
    assert abs(result.robust_accuracy - plain.robust_accuracy) < 0.25
    with pytest.raises(InputError, match=r"logits_fn\(variables, x, key\)"):
        run(linear, softmax, version="rand")
    with pytest.raises(InputError, match=r"of the form logits_fn\(variables, x\)"):
        run(noisy, softmax)


def test_few_classes_and_other_misuse_are_named(linear, softmax):
    def classes(count):
        return lambda variables, x: linear(variables, x)[:, :count]

    few = softmax._replace(labels=softmax.labels % 2)
    with pytest.raises(InputError, match=r"needs at least 4 classes, but the model has 3.*'apgd-dlr', 'fab'"):
        run(classes(3), few)
    with pytest.raises(InputError, match=r"needs at least 3 classes, but the model has 2.*'apgd-ce', 'fab', 'square'"):
        run(classes(2), few, version="plus")
    assert run(classes(2), few, count=20, version=["apgd-ce", "fab", "square"]).stages[1].name == "fab"

    noise = np.random.default_rng(0)

    def unsteady(variables, x):
        draw = jax.pure_callback(
            lambda: noise.normal(size=(len(x), 10)).astype(np.float32), jax.ShapeDtypeStruct((len(x), 10), jnp.float32)
        )
        return linear(variables, x) + draw

    for expected, call in {
        "not deterministic": lambda: run(unsteady, softmax),
        "probabilities": lambda: run(lambda v, x: jax.nn.softmax(linear(v, x)), softmax),
        "NaN logits": lambda: run(lambda v, x: linear(v, x) * jnp.nan, softmax),
        "eps must be positive": lambda: run(linear, softmax, eps=0.0),
        "standard, plus, rand": lambda: run(linear, softmax, version="best"),
        "Attack 'apgd' is unknown": lambda: run(linear, softmax, version=["apgd"]),
        "list of attacks is empty": lambda: run(linear, softmax, version=[]),
        "power of two": lambda: run(linear, softmax, batch_size=100),
        "linf, l2": lambda: run(linear, softmax, norm="l1"),
        "only 9 wrong classes": lambda: run(linear, softmax, version=[APGD(loss="dlr", targets=12)]),
        "cannot be traced": lambda: jax.jit(lambda v: run(linear, softmax._replace(variables=v)).images)(
            softmax.variables
        ),
    }.items():
        with pytest.raises(InputError, match=expected):
            call()
    for attack, config in ((apgd, APGD(eps=0.0)), (fab, FAB(eps=0.0)), (square, Square(eps=0.0))):
        with pytest.raises(InputError, match="eps must be positive"):
            attack(linear, softmax.variables, softmax.images, softmax.labels, jax.random.key(0), config=config)
    with pytest.raises(InputError, match="square_queries must be an integer >= 1"):
        Budget(square_queries=0)
