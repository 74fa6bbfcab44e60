"""AutoAttack: robust accuracy against pyautoattack 0.2.0, independence of batching, resumption, compile counts.

The counters of Auto-PGD and its average over noise are compared step by step, since whole runs hide errors in them.
"""

import collections
import dataclasses
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from pyautoattack import AutoAttack

from mi_jax.attacks import (
    APGD,
    FAB,
    PGD,
    Budget,
    EvaluationState,
    Square,
    apgd,
    autoattack,
    fab,
    plan,
    square,
)
from mi_jax.attacks.apgd import state_at
from mi_jax.attacks.attack import Attack, Batch, Outcome
from mi_jax.attacks.engine.input_checks import Model
from mi_jax.attacks.engine.run import problem_of
from mi_jax.attacks.engine.saved_evaluation import StageReport
from mi_jax.attacks.losses import cross_entropy
from mi_jax.errors import InputError

QUICK = Budget(apgd_steps=10, fab_steps=5, square_queries=30, targets=3)
KEY = 7


def official(net, images, labels, norm, eps, budget):
    """Robust accuracy of pyautoattack's stages with the same numbers of steps, queries and targets."""
    suite = AutoAttack(net.torch_model, norm={"linf": "Linf", "l2": "L2"}[norm], eps=eps, seed=0, version="standard")
    suite.apgd.n_iter, suite.apgd_targeted.n_iter = budget.apgd_steps, budget.apgd_steps
    for attack in (suite.apgd, suite.apgd_targeted):
        shares = (0.22, 0.06, 0.03)
        attack.n_iter_2, attack.n_iter_min, attack.size_decr = (max(int(s * attack.n_iter), 1) for s in shares)
    suite.apgd_targeted.n_target_classes = suite.fab.n_target_classes = budget.targets
    suite.fab.n_iter, suite.square.n_queries = budget.fab_steps, budget.square_queries
    _, predictions = suite.run_standard_evaluation(images, labels)
    return float((predictions == labels).float().mean())


@pytest.mark.slow
def test_robust_accuracy_is_within_one_image_in_a_hundred_of_pyautoattack(cnn, robust):
    budget = Budget(apgd_steps=30, fab_steps=15, square_queries=200, targets=4)
    theirs = official(robust, *robust.torch_batch(100), "linf", 0.1, budget)
    images, labels = robust.images[:100], robust.labels[:100]
    ours = autoattack(cnn, robust.variables, images, labels, jax.random.key(KEY), eps=0.1, budget=budget)
    assert 0.1 < ours.robust_accuracy < 0.9
    assert abs(ours.robust_accuracy - theirs) <= 0.01 + 1e-9
    check_consistent(cnn, robust, ours, "linf", 0.1, 100)


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
    check_consistent(cnn, net, ours, norm, eps, 100)


def check_consistent(cnn, net, result, norm, eps, count):
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


def test_an_attack_that_cannot_reach_the_radius_is_warned_about(linear, softmax):
    (said,) = run(linear, softmax, count=4, eps=0.3, version=[PGD(steps=3)]).warnings
    assert "3 steps of 0.007843 go 0.02353 and never reach the radius 0.3" in said


def test_outcome_does_not_depend_on_the_batch_size_or_on_the_other_images(linear, softmax):
    large = run(linear, softmax, batch_size=64)
    small = run(linear, softmax, batch_size=32)
    np.testing.assert_array_equal(large.broken_by, small.broken_by)
    np.testing.assert_allclose(large.images, small.images, atol=1e-5)
    fewer = run(linear, softmax, count=25, batch_size=32)
    np.testing.assert_array_equal(large.broken_by[:25], fewer.broken_by)


class Interrupted(Exception):
    pass


def test_interrupted_evaluation_resumes_to_the_same_result(linear, softmax, tmp_path):
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
    moved = softmax._replace(variables={**softmax.variables, "b": softmax.variables["b"] + 1e-6})
    with pytest.raises(InputError, match="labels, variables, key"):
        run(linear, moved, batch_size=32, state=EvaluationState.load(tmp_path / "state.npz"))
    for content in (b"PK nothing", b""):
        (tmp_path / "state.npz").write_bytes(content)
        with pytest.raises(InputError, match="is not the saved state"):
            EvaluationState.load(tmp_path / "state.npz")


def test_an_interruption_at_the_end_of_a_stage_leaves_it_or_the_next_one_whole():
    report, lines = StageReport("apgd-ce", 3, 1, 1, 0.5, 2.0), 0

    def interrupted_at(number: int) -> EvaluationState:
        nonlocal lines
        state = EvaluationState.begin("mark", np.array([0, -1, -1, -2]), np.zeros((4, 2)))
        state.done[:], state.faults[:], state.seconds, state.unconfirmed = True, 1.0, 2.0, 1
        lines = 0

        def trace(frame, event, _):
            nonlocal lines
            lines += event == "line"
            if lines == number:
                raise Interrupted
            return trace

        before = sys.gettrace()
        sys.settrace(lambda frame, *_: trace if frame.f_code is EvaluationState.next_stage.__code__ else None)
        try:
            state.next_stage(report)
        except Interrupted:
            pass
        finally:
            sys.settrace(before)
        return state

    def summary(state: EvaluationState) -> tuple:
        return (
            state.stage, len(state.reports), state.seconds, state.unconfirmed, state.done.any(), state.faults.any()
        )  # fmt: skip

    assert summary(interrupted_at(0)) == (1, 1, 0.0, 0, False, False)
    for number in range(1, lines + 1):
        assert summary(interrupted_at(number)) in ((0, 0, 2.0, 1, True, True), (1, 1, 0.0, 0, False, False))


def test_each_attack_compiles_once_a_bucket(linear, softmax):
    shapes = []

    def counted(variables, x):
        if isinstance(x, jax.core.Tracer):  # a trace, not the uncompiled pass that checks the outputs
            shapes.append(len(x))
        return linear(variables, x)

    run(counted, softmax, count=80, batch_size=64)
    # All attacks share the trace of the model for a bucket, but for the buckets that one reaches first.
    assert set(shapes) <= {64, 32, 16}
    assert shapes.count(64) <= 6
    assert all(shapes.count(size) <= 5 for size in (32, 16))
    seen = collections.Counter(shapes)
    run(counted, softmax, count=80, batch_size=64, eps=0.05)
    run(counted, softmax, count=70, batch_size=64)
    # Another eps or number of images may reach a bucket for the first time, but compiles none again.
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
    check_consistent(cut, net, result, norm, eps, 60)


def test_a_list_runs_pgd_with_restarts_on_survivors_and_other_configs(linear, softmax):
    attacks = [PGD(steps=5, step_size=0.03, restarts=3), APGD(steps=10, loss="cw"), Square(queries=20), "fab"]
    result = run(linear, softmax, version=attacks)
    assert [stage.name for stage in result.stages] == ["pgd", "apgd", "square", "fab"]
    assert result.stages[0].broken > 0
    check_consistent(linear, softmax, result, "linf", 0.08, 60)


def test_nan_logits_do_not_count_as_misclassified(linear, softmax):
    def nan_off_grid(variables, x):
        """NaN, whose argmax is 0, for all but the grey values of the clean images."""
        on_grid = jnp.all(x * 32 == jnp.round(x * 32), axis=(1, 2, 3))
        return jnp.where(on_grid[:, None], linear(variables, x), jnp.nan)

    result = run(nan_off_grid, softmax, version=["apgd-ce"])
    correct = np.argmax(linear(softmax.variables, softmax.images[:60]), axis=1) == softmax.labels[:60]
    assert result.robust_accuracy == result.clean_accuracy == pytest.approx(correct.mean())
    assert result.stages[0].unconfirmed == 0
    assert f"non-finite losses or gradients on {correct.sum()} of {correct.sum()} images" in result.warnings[0]


def test_infinite_gradients_do_not_overstate_robustness_and_are_reported(key):
    """A power below one has an infinite slope at black pixels; the other model is bounded away from them."""
    random = np.random.default_rng(1)
    weights = jnp.asarray(random.normal(size=(64, 3)), jnp.float32)

    def gamma(v, x):
        return (x.reshape(len(x), -1) ** (1 / 2.2)) @ v

    def bounded(v, x):
        return gamma(v, jnp.maximum(x, 1e-4))

    x = (random.random((16, 8, 8, 1)) * (random.random((16, 8, 8, 1)) > 0.5)).astype(np.float32)
    y = np.asarray(gamma(weights, x)).argmax(1)
    for norm, eps in (("l2", 0.5), ("linf", 0.05)):
        options = {"norm": norm, "eps": eps, "version": ["apgd-ce", "fab"], "budget": QUICK}
        found, right = (autoattack(f, weights, x, y, key, **options) for f in (gamma, bounded))
        assert found.robust_accuracy <= right.robust_accuracy + 0.25
        assert "apgd-ce found non-finite losses or gradients" in found.warnings[0]


def test_images_that_only_square_breaks_are_reported(linear, softmax):
    def quantised(variables, x):
        return linear(variables, jnp.round(x * 8) / 8)

    result = run(quantised, softmax, version=["apgd-ce", "square"], budget=Budget(apgd_steps=3, square_queries=100))
    assert result.stages[1].broken > 0
    assert any("zero gradients" in warning for warning in result.warnings)
    assert any(f"broke {result.stages[1].broken} images that survived" in warning for warning in result.warnings)
    assert run(linear, softmax, version=["apgd-ce"]).warnings == ()


def test_double_precision_weights_attack_single_precision_images(linear, softmax):
    with jax.enable_x64(True):
        net = softmax._replace(
            variables=jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), softmax.variables)
        )
        result = run(linear, net, count=20, version=["apgd-ce", "apgd-t", "fab-t", "fab", "square"])
    single = run(linear, softmax, count=20, version=["apgd-ce", "apgd-t", "fab-t", "fab", "square"])
    assert result.images.dtype == np.float32
    assert result.robust_accuracy == single.robust_accuracy


@pytest.mark.parametrize(("norm", "reach"), [("linf", 1.0), ("l2", 192**0.5)])
def test_only_an_image_within_eps_up_to_rounding_breaks_one(norm, reach):
    @dataclasses.dataclass(frozen=True)
    class Shift(Attack):
        """Moves every image by a share of eps and claims success."""

        steps: int = 1
        share: float = 1.0

        def initial_state(self, problem, words):
            point = problem.clean + self.share * self.eps / (reach if self.norm == "l2" else 1)
            return Outcome(point, jnp.ones(len(point), bool))

        def step(self, problem, state, i, words):
            return state

        def outcome(self, state):
            return state

    def by_brightness(variables, x):
        mean = jnp.mean(x - variables, axis=(1, 2, 3))
        return jnp.stack([jnp.zeros_like(mean), 1e4 * (mean - 1e-6), jnp.full_like(mean, -9.0)], axis=1)

    images = np.random.default_rng(0).uniform(0.6, 0.9, (20, 8, 8, 3)).astype(np.float32)
    key, labels = jax.random.key(0), np.zeros(20, int)
    for share, broken in ((1.0, 20), (1.01, 0)):
        eps = 1e-4 * reach
        # The model subtracts the clean images, so each batch must hold all of them in order.
        net = jnp.asarray(np.concatenate([images, np.repeat(images[-1:], 12, axis=0)]))
        result = autoattack(
            by_brightness, net, images, labels, key, norm=norm, eps=eps, version=[Shift(share=share)], batch_size=32
        )
        assert result.stages[0].broken == broken
        assert result.stages[0].unconfirmed == 20 - broken


def test_rand_confirms_the_last_misclassified_iterate_of_the_whole_attack():
    """Class 1 leads by 4 s - 1/2 plus unit noise, s the mean shift: wrong in 31 % clean, in 90 % at the best shift."""

    def noisy(variables, x, key):
        lead = variables * jnp.sum(x - 0.5, axis=(1, 2, 3)) - 0.5 + jax.random.normal(key, (len(x),))
        return jnp.stack([jnp.zeros(len(x)), lead, jnp.full(len(x), -10.0)], axis=1)

    images, labels = np.full((1000, 2, 2, 1), 0.5, np.float32), np.zeros(1000, int)
    result = autoattack(
        noisy, jnp.float32(1.7816 / 0.4), images, labels, jax.random.key(2), eps=0.1, version="rand",
        budget=Budget(apgd_steps=15, eot_draws=1), batch_size=1024,
    )  # fmt: skip
    first = result.stages[0]
    assert result.clean_accuracy == pytest.approx(0.69, abs=0.05)
    # If images were dropped when first misclassified, two in five would not be confirmed.
    assert first.robust_accuracy / result.clean_accuracy == pytest.approx(0.1, abs=0.04)
    assert first.attacked == first.broken + round(1000 * first.robust_accuracy)
    # Few are last misclassified on the way to the best shift.
    assert np.mean(np.isclose(result.perturbation_norm[result.broken_by == 0], 0.1, rtol=1e-5)) > 0.99


def test_apgd_averages_gradient_and_loss_over_draws_with_different_keys(linear, softmax):
    def noisy(variables, x, key):
        return linear(variables, x * jax.random.uniform(key, x.shape, minval=0.5, maxval=1.5))

    images, labels = jnp.asarray(softmax.images[:4]), jnp.asarray(softmax.labels[:4])
    batch, key = Batch(images, labels, None, jnp.zeros_like(labels)), jax.random.key(5)

    @jax.jit
    def loss(x, draw):
        return cross_entropy(noisy(softmax.variables, x, jax.random.fold_in(key, draw)), labels)

    config = APGD(eps=0.1, eot_draws=3)
    problem = problem_of(config, Model(noisy), softmax.variables, key, batch)
    state = state_at(images, 0.1)
    for i in (0, 1):
        point = state.point
        state = config.step(problem, state, jnp.int32(i), None)
        losses = np.stack([loss(point, draw) for draw in range(3 * i, 3 * i + 3)])
        assert np.abs(losses[0] - losses[1]).max() > 0.01
        np.testing.assert_allclose(state.last_loss, losses.mean(axis=0), rtol=1e-5)
        if i == 0:
            slopes = [jax.grad(lambda x, draw=draw: loss(x, draw).sum())(point) for draw in range(3)]
            np.testing.assert_allclose(state.best_gradient, np.mean(slopes, axis=0), atol=1e-5)


@pytest.mark.parametrize("wrapped", [False, True])
def test_apgd_counts_the_iterates_that_raise_the_loss(linear, softmax, wrapped):
    """The margin of a correct image is negative, so the official indexing error misses the first rise."""
    images, labels = jnp.asarray(softmax.images[:20]), jnp.asarray(softmax.labels[:20])
    config = APGD(eps=0.01, loss="cw", steps=40, wrapped_first_check=wrapped)
    batch = Batch(images, labels, None, jnp.zeros_like(labels))
    problem = problem_of(config, Model(linear), softmax.variables, None, batch)
    state, history = state_at(images, 0.01), []
    for i in range(6):
        state = config.step(problem, state, jnp.int32(i), None)
        history.append(np.asarray(state.last_loss))
    before = [np.zeros(20) if wrapped else history[0], *history[1:-1]]
    expected = np.sum([after > earlier for after, earlier in zip(history[1:], before, strict=True)], axis=0)
    assert (history[1] < 0).any()
    np.testing.assert_array_equal(state.increases, expected)


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
    with pytest.raises(InputError, match=r"apgd averages over 2 draws.* version='rand' with Budget\(eot_draws=2\)"):
        run(linear, softmax, version=[APGD(eot_draws=2)])
    few = softmax.variables, softmax.images[:20], softmax.labels[:20], jax.random.key(0)
    with pytest.raises(InputError, match=r"\(variables, x, key\) for a random model, which eot_draws > 1 needs"):
        apgd(linear, *few, config=APGD(steps=2, eot_draws=2))
    single = apgd(noisy, *few, config=APGD(eps=0.08, steps=5))
    assert float(single.success.mean()) == pytest.approx(float(plain.success[:20].mean()), abs=0.1)


def test_the_default_step_of_a_configuration_follows_the_norm_and_radius_of_the_evaluation():
    def steps(norm, eps):
        configs = [PGD(norm="l2"), PGD(norm="l2", step_size=0.05), "pgd"]
        return [config.step_size for _, config in plan(configs, norm, eps, QUICK, 10, (8, 8, 3))]

    assert steps("l2", 0.02) == [0.005, 0.05, 0.005]
    assert steps("linf", 0.1) == [2 / 255, 0.05, 2 / 255]


def test_plan_raises_the_errors_of_an_evaluation_without_running_it():
    def planned(version="standard", norm="linf", eps=0.1, budget=QUICK, num_classes=10, image_shape=(8, 8, 3)):
        return plan(version, norm, eps, budget, num_classes, image_shape)

    assert [name for name, _ in planned()] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert dict(planned(num_classes=4, budget=Budget()))["apgd-t"] == APGD(eps=0.1, loss="dlr", targets=3)
    assert dict(planned("plus", "l2", image_shape=(5, 7, 1)))["square"] == Square("l2", 0.1, queries=30)
    for expected, call in {
        "at least 4 classes, but the model has 3": lambda: planned(num_classes=3),
        "at least 3 classes, but the model has 2": lambda: planned("rand", num_classes=2),
        "Invalid eps 0.0: expected a positive number": lambda: planned(eps=0.0),
        "5 x 5 pixels; got 4 x 9": lambda: planned(norm="l2", image_shape=(4, 9, 1)),
        "linf, l2, l1": lambda: planned(norm="l3"),
        "pgd does not support the loss 'kl'": lambda: planned([PGD(loss="kl")]),
    }.items():
        with pytest.raises(InputError, match=expected):
            call()


def test_too_few_classes_and_other_bad_input_raise_a_clear_error(linear, softmax):
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

    def drawn_by_python(variables, x):
        return linear(variables, x) + noise.normal(size=(len(x), 10)).astype(np.float32)

    def half_probabilities(variables, x):
        return jax.nn.softmax(linear(variables, x).astype(jnp.bfloat16))

    for expected, call in {
        r"probabilities \(rows": lambda: run(half_probabilities, softmax),
        "not deterministic": lambda: run(unsteady, softmax),
        "deterministic: logits of the same images differ": lambda: run(drawn_by_python, softmax),
        "probabilities": lambda: run(lambda v, x: jax.nn.softmax(linear(v, x)), softmax),
        "NaN logits": lambda: run(lambda v, x: linear(v, x) * jnp.nan, softmax),
        "Invalid eps 0.0: expected a positive number": lambda: run(linear, softmax, eps=0.0),
        "standard, plus, rand": lambda: run(linear, softmax, version="best"),
        "no attack 'apgd'; choose from .*apgd-ce, apgd-dlr": lambda: run(linear, softmax, version=["apgd"]),
        "list of attacks is empty": lambda: run(linear, softmax, version=[]),
        "power of two": lambda: run(linear, softmax, batch_size=100),
        "linf, l2, l1": lambda: run(linear, softmax, norm="l3"),
        "only 9 wrong classes": lambda: run(linear, softmax, version=[APGD(loss="dlr", targets=12)]),
        "cannot be traced": lambda: jax.jit(lambda v: run(linear, softmax._replace(variables=v)).images)(
            softmax.variables
        ),
    }.items():
        with pytest.raises(InputError, match=expected):
            call()
    for attack, config in ((apgd, APGD(eps=0.0)), (fab, FAB(eps=0.0)), (square, Square(eps=0.0))):
        with pytest.raises(InputError, match=r"Invalid eps 0.0: expected a positive number"):
            attack(linear, softmax.variables, softmax.images, softmax.labels, jax.random.key(0), config=config)
    with pytest.raises(InputError, match="Invalid square_queries 0: expected a whole number of at least 1"):
        Budget(square_queries=0)


def test_the_same_call_resumes_from_its_state_file_and_a_finished_one_attacks_nothing(
    linear, softmax, tmp_path, monkeypatch
):
    path, calls = tmp_path / "state.npz", []

    def interrupt(progress):
        calls.append(progress)
        if progress.stage == "apgd-t" and 0.3 < progress.fraction < 1:
            raise Interrupted

    whole = run(linear, softmax, batch_size=32)
    with pytest.raises(Interrupted):
        run(linear, softmax, batch_size=32, progress=interrupt, state_path=path)
    assert EvaluationState.load(path).stage == 1
    assert all(0 < progress.seconds_left < np.inf for progress in calls)
    rest = run(linear, softmax, batch_size=32, progress=calls.append, state_path=path)
    assert calls[-1].seconds_left == 0
    np.testing.assert_array_equal(rest.images, whole.images)
    monkeypatch.setattr(sys.modules["mi_jax.attacks.autoattack"], "attack_rows", None)
    again = run(linear, softmax, batch_size=32, state_path=path)
    np.testing.assert_array_equal(again.broken_by, whole.broken_by)
    assert again.stages == rest.stages
    with pytest.raises(InputError, match=r"state.npz belongs to other images"):
        run(linear, softmax, eps=0.07, state_path=path)


def test_each_image_is_attacked_within_its_own_radius(linear, softmax):
    radii = np.where(np.arange(60) < 30, 1e-4, 0.2)
    result = run(linear, softmax, eps=radii, version=["apgd-ce", PGD(steps=3)])
    assert np.all(result.perturbation_norm <= radii * (1 + 1e-5))
    assert result.success[30:].mean() > result.success[:30].mean() + 0.3
    same = run(linear, softmax, eps=np.full(60, 0.08), version=["apgd-ce"])
    np.testing.assert_array_equal(same.images, run(linear, softmax, version=["apgd-ce"]).images)
    with pytest.raises(InputError, match="eps has 3 values for 60 images"):
        run(linear, softmax, eps=np.full(3, 0.1))


def test_a_saved_evaluation_is_not_resumed_with_another_function_or_another_closed_over_model(softmax, tmp_path):
    x, y, held = softmax.images[:20], softmax.labels[:20], dict(softmax.variables)

    def closed(variables, images):
        return (images.reshape(len(images), -1) @ held["w"] + held["b"][None]) ** power

    def evaluate():
        options = {"eps": 0.05, "version": ["apgd-ce"], "budget": Budget(apgd_steps=1), "batch_size": 32}
        return autoattack(closed, None, x, y, 0, state_path=tmp_path / "new" / "state.npz", **options)

    power = 1
    first = evaluate()
    assert evaluate().stages == first.stages
    power = 3
    with pytest.raises(InputError, match="or to another model"):
        evaluate()
    power, held["w"] = 1, held["w"] * (1 + 1e-6)
    with pytest.raises(InputError, match="or to another model"):
        evaluate()


@pytest.mark.parametrize(
    ("expected", "options"),
    [
        ("Invalid batch_size 64.0: expected a whole number", {"batch_size": 64.0}),
        ("Invalid batch_size True", {"batch_size": True}),
        ("mesh must be a jax.sharding.Mesh or None, not 'auto'", {"mesh": "auto"}),
        ("budget must be mi_jax.attacks.Budget, not dict", {"budget": {"apgd_steps": 1}}),
        ("Invalid version None", {"version": None}),
        ("state must be mi_jax.attacks.EvaluationState, not int", {"state": 3}),
        ("state_path '3' cannot be written", {"state_path": 3}),
        (r"state_path '\.' is a directory; give the path of a file", {"state_path": Path(".")}),
    ],
)
def test_options_of_another_type_raise_a_clear_error(linear, softmax, expected, options, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it would refuse them first
    with pytest.raises(InputError, match=expected):
        run(linear, softmax, **options)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_apgd_starts_on_the_surface_of_the_ball_in_a_direction_of_no_preferred_sign(linear, softmax, norm):
    grey = jnp.full((64, 8, 8, 3), 0.5)
    config, labels = APGD(norm=norm, eps=0.1), jnp.zeros(64, jnp.int32)
    problem = problem_of(config, Model(linear), softmax.variables, None, Batch(grey, labels, None, labels))
    words = jax.random.bits(jax.random.key(0), (64, config.start_words((8, 8, 3))))
    start = config.initial_state(problem, words).point
    np.testing.assert_allclose(problem.threat.distance(start, grey), 0.1, rtol=1e-5)
    moved = np.asarray(start - grey)
    assert abs(moved.mean()) < 5 * moved.std() / moved.size**0.5
