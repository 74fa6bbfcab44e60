"""PGD and FGSM against closed forms on a linear model, and against bad input."""

import dataclasses
from functools import partial

import flax.linen
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import torch

import mi_jax as mj
from mi_jax.attacks import PGD, ThreatModel, ascend, fgsm, perturb, pgd
from mi_jax.attacks.attack import check_config
from mi_jax.attacks.engine.input_checks import Model, check_batch
from mi_jax.attacks.engine.randomness import row_keys
from mi_jax.attacks.engine.run import start_bits
from mi_jax.attacks.losses import loss_of
from mi_jax.errors import InputError


def margin_gradient(variables, y, target):
    w = np.asarray(variables["w"]).T
    return w[np.asarray(target)] - w[np.asarray(y)]


def test_linf_targeted_margin_on_a_linear_model_ends_in_the_optimal_corner(linear_model, batch):
    logits_fn, variables = linear_model
    x, y = batch
    target = (y + 1) % 5
    config = PGD(eps=0.1, steps=10, step_size=0.05, loss="cw")
    result = pgd(logits_fn, variables, x, y, jax.random.key(3), config=config, targets=target)
    corner = 0.1 * np.sign(margin_gradient(variables, y, target)).reshape(x.shape)
    np.testing.assert_allclose(result.images - x, corner, atol=1e-6)
    np.testing.assert_allclose(result.perturbation_norm, 0.1, rtol=1e-5)


def test_l2_targeted_margin_on_a_linear_model_goes_along_the_gradient(linear_model, batch):
    logits_fn, variables = linear_model
    x, y = batch
    target = (y + 1) % 5
    config = PGD(norm="l2", eps=0.2, steps=200, step_size=0.1, loss="cw")
    result = pgd(logits_fn, variables, x, y, jax.random.key(3), config=config, targets=target)
    g = margin_gradient(variables, y, target)
    best = 0.2 * g / np.linalg.norm(g, axis=1, keepdims=True)
    np.testing.assert_allclose((result.images - x).reshape(len(x), -1), best, atol=2e-4)


def test_fgsm_is_one_signed_step(linear_model, batch):
    logits_fn, variables = linear_model
    x, y = batch
    gradient = jax.grad(lambda v: -jnp.sum(jax.nn.log_softmax(logits_fn(variables, v))[jnp.arange(9), y]))(x)
    np.testing.assert_allclose(
        fgsm(logits_fn, variables, x, y, eps=0.05).images, x + 0.05 * jnp.sign(gradient), atol=1e-6
    )
    step = fgsm(logits_fn, variables, x, y, eps=0.05, norm="l2").images - x
    unit = gradient / jnp.sqrt(jnp.sum(gradient**2, axis=(1, 2, 3), keepdims=True))
    np.testing.assert_allclose(step, 0.05 * unit, atol=1e-6)


def test_no_steps_means_the_images_themselves(linear_model, batch):
    logits_fn, variables = linear_model
    x, y = batch
    result = pgd(logits_fn, variables, x, y, config=PGD(steps=0))
    np.testing.assert_array_equal(result.images, x)
    assert not result.success.any()
    assert perturb(logits_fn, variables, x, y, config=PGD(steps=0)) is x


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["ce", "dlr", "cw", "kl"])
def test_result_is_in_the_ball_and_agrees_with_the_model(linear_model, batch, norm, loss):
    logits_fn, variables = linear_model
    x, y = batch
    config = PGD(norm=norm, eps=0.15, steps=4, step_size=0.1, loss=loss, restarts=4, keep="best")
    result = pgd(logits_fn, variables, x, y, jax.random.key(3), config=config)
    logits = logits_fn(variables, result.images)
    np.testing.assert_allclose(result.logits, logits, atol=1e-4)
    np.testing.assert_array_equal(result.success, jnp.argmax(logits, axis=1) != y)
    np.testing.assert_array_equal(result.predictions, jnp.argmax(logits, axis=1))
    assert result.step_loss.shape == (5, 9)
    assert float(result.perturbation_norm.max()) <= 0.15 + 1e-6
    assert float(result.images.min()) >= 0
    assert float(result.images.max()) <= 1


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_given_start_is_projected_into_the_ball(linear_model, batch, norm):
    logits_fn, variables = linear_model
    x, y = batch
    away = x + 0.25
    start = x + (0.1 if norm == "linf" else 0.1 / np.sqrt(24))
    still = pgd(logits_fn, variables, x, y, config=PGD(norm=norm, eps=0.1, steps=0), start=away)
    np.testing.assert_allclose(still.images, start, atol=1e-6)
    # The start maximises the loss, so it is the best iterate.
    away = x + 0.25 * jnp.sign(margin_gradient(variables, y, (y + 1) % 5).reshape(x.shape))
    config = PGD(norm=norm, eps=0.1, steps=2, step_size=0.01, keep="best")
    best = pgd(logits_fn, variables, x, y, config=config, start=away)
    np.testing.assert_allclose(best.perturbation_norm, 0.1, rtol=1e-5)
    flat = PGD(norm=norm, eps=0.1, steps=1, step_size=0.01)
    last, _ = ascend(lambda images, state: (0 * images.sum((1, 2, 3)), state), x, config=flat, start=x + 0.25)
    np.testing.assert_allclose(last, start, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_gaussian_start_is_projected_into_a_small_ball(linear_model, batch, norm):
    x, y = batch
    config = PGD(norm=norm, eps=5e-4, init="gaussian", steps=1, step_size=1e-9)
    result = pgd(*linear_model, x, y, jax.random.key(0), config=config)
    np.testing.assert_allclose(result.perturbation_norm, 5e-4, rtol=1e-3)


def test_best_iterate_is_never_below_the_last(linear_model, batch):
    logits_fn, variables = linear_model
    x, y = batch
    # With a step longer than the radius, the loss of the iterates is not monotone.
    runs = {
        keep: pgd(
            logits_fn,
            variables,
            x,
            y,
            jax.random.key(3),
            config=PGD(norm="l2", eps=0.1, steps=5, step_size=0.3, keep=keep),
        )
        for keep in ("last", "best")
    }
    assert np.all(runs["best"].success >= runs["last"].success)
    same = np.asarray(runs["best"].success == runs["last"].success)
    assert np.all(np.asarray(runs["best"].loss >= runs["last"].loss)[same])
    np.testing.assert_allclose(runs["best"].step_loss, runs["last"].step_loss)


def test_restarts_keep_the_pointwise_worst_of_the_single_runs(linear_model, batch):
    logits_fn, variables = linear_model
    x, y = batch
    config = PGD(eps=0.15, steps=1, step_size=0.02, restarts=4)
    folded = pgd(logits_fn, variables, x, y, jax.random.key(3), config=config)
    keys = row_keys(jax.random.key(3), jnp.repeat(jnp.arange(9), 4), jnp.tile(jnp.arange(4), 9))
    words = np.asarray(start_bits(config, keys, x.shape[1:]))[:, 1:]
    delta = 0.15 * (2 * (words >> 8) * 2.0**-24 - 1).reshape(9, 4, 4, 3, 2).swapaxes(0, 1)
    single = [
        pgd(logits_fn, variables, x, y, start=x + d, config=PGD(eps=0.15, steps=1, step_size=0.02))
        for d in delta.astype(np.float32)
    ]
    wrong = np.stack([r.success for r in single])
    np.testing.assert_array_equal(folded.success, wrong.any(axis=0))
    losses = np.where(wrong | ~wrong.any(axis=0), np.stack([r.loss for r in single]), -np.inf)
    np.testing.assert_allclose(folded.loss, losses.max(axis=0), rtol=1e-5)


def test_sweep_over_eps_traces_the_model_once(linear_model, batch):
    _, variables = linear_model
    x, y = batch
    traces = []

    def counted(v, images):
        traces.append(1)
        return linear_model[0](v, images)

    def run(eps):
        return pgd(counted, variables, x, y, jax.random.key(3), config=PGD(eps=eps, step_size=eps / 4)).success.mean()

    accuracies = [float(run(eps)) for eps in (0.1, 0.2, 0.4)]
    once = len(traces)
    run(0.3)
    assert len(traces) == once
    swept = jax.vmap(
        lambda e: pgd(counted, variables, x, y, jax.random.key(3), config=PGD(), eps=e, step_size=e / 4).success.mean()
    )(jnp.array([0.1, 0.2, 0.4]))
    np.testing.assert_allclose(swept, accuracies)


def test_training_loop_takes_one_gradient_a_step_and_carries_state(linear_model, batch):
    logits_fn, variables = linear_model
    x, y = batch
    config = PGD(steps=3, random_start=False)

    def objective(images, count):
        return mj.attacks.losses.cross_entropy(logits_fn(variables, images), y), count + 1

    images, count = ascend(objective, x, config=config, state=0)
    assert int(count) == 3
    np.testing.assert_allclose(images, pgd(logits_fn, variables, x, y, config=config).images, atol=1e-7)
    np.testing.assert_array_equal(images, perturb(logits_fn, variables, x, y, config=config))


@pytest.mark.parametrize("init", ["uniform", "radius"])
def test_radius_of_the_l2_start_has_the_named_distribution(init):
    clean = jnp.full((4000, 1, 1, 3), 0.5)
    threat = ThreatModel("l2", 0.4)
    radius = np.sort(np.asarray(threat.distance(threat.random_start(jax.random.key(0), clean, init), clean)) / 0.4)
    power = 3 if init == "uniform" else 1
    np.testing.assert_allclose(radius**power, (np.arange(4000) + 0.5) / 4000, atol=0.04)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": -0.1}, r"Invalid eps -0.1: expected a number in \[0, 1\], such as 8/255"),
        ({"eps": 1.5}, r"Invalid eps 1.5: expected a number in \[0, 1\], such as 8/255"),
        ({"eps": -0.1, "norm": "l2"}, "Invalid eps -0.1: expected a number of at least 0, such as 0.5"),
        ({"eps": float("nan")}, "Invalid eps nan: expected a number in"),
        ({"steps": -1}, "Invalid steps -1: expected a whole number of at least 0"),
        ({"step_size": 0.0}, "Invalid step_size 0.0: expected a positive number, such as 2/255"),
        ({"step_size": 2.0}, r"Invalid step_size 2.0: expected a number in \[0, 1\], such as 2/255"),
        ({"step_size": 2.0, "norm": "l2"}, "Invalid step_size 2: it is 4 times the radius 0.5; take at most 3 radii"),
        ({"step_size": 8.0, "norm": "l1", "eps": 2.0}, "step_size 8: it is 4 times the radius 2"),
        ({"norm": "l3"}, "linf, l2, l1"),
        ({"loss": "hinge"}, "ce, dlr, cw, kl"),
        ({"loss": ""}, "Invalid loss '': expected one of ce, dlr, cw, kl"),
        ({"keep": "first"}, "last, best"),
        ({"restarts": 3, "random_start": False}, "repeat one attack"),
        ({"loss": "kl", "random_start": False}, "no gradient"),
    ],
)
def test_bad_settings_raise_a_clear_error(options, message):
    with pytest.raises(InputError, match=message):
        PGD(**options)


@pytest.mark.parametrize(
    "attack",
    [
        partial(pgd, config=PGD()),
        partial(mj.attacks.autoattack, eps=0.1),
        mj.attacks.minimal_norm,
        partial(mj.attacks.robust_accuracy_curve, eps=[0.1]),
    ],
)
def test_weights_of_pytorch_are_refused(linear_model, batch, attack):
    logits_fn, variables = linear_model
    of_torch = {name: torch.tensor(np.asarray(value)) for name, value in variables.items()}
    with pytest.raises(InputError, match="variables hold PyTorch tensors; import the network"):
        attack(logits_fn, of_torch, *batch, jax.random.key(0))


@pytest.mark.parametrize("value", ["yes", 1])
def test_a_random_start_that_is_neither_true_nor_false_is_refused(value):
    config = PGD().with_values(random_start=value)  # the constructor checks types in tests
    with pytest.raises(InputError, match=f"Invalid random_start {value!r}: expected True or False"):
        config.__post_init__()
    PGD().with_values(random_start=np.bool_(False)).__post_init__()


@pytest.mark.parametrize(
    ("norm", "init"), [("linf", "uniform"), ("l2", "radius"), ("l1", "uniform"), ("l2", "gaussian")]
)
def test_a_random_start_in_half_precision_is_that_of_float32_rounded(norm, init):
    half = jnp.full((4, 6, 6, 1), 0.5, jnp.bfloat16)
    threat, key = ThreatModel(norm, 0.25), jax.random.key(0)
    found = threat.random_start(key, half, init)
    wide = threat.random_start(key, half.astype(jnp.float32), init)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, wide.astype(jnp.bfloat16))


def test_a_step_of_zero_is_accepted_where_the_radius_is_zero(linear_model, batch):
    x, y = batch
    eps = np.where(np.arange(len(x)) == 3, 0, 0.1)
    np.testing.assert_array_equal(fgsm(*linear_model, x, y, eps=eps).images[3], x[3])


def test_a_step_of_many_radii_is_refused_at_every_entry(linear_model, batch):
    logits_fn, variables = linear_model
    x, y = batch
    config = PGD(norm="l2", eps=0.5, step_size=1.5, steps=1, random_start=False)  # 3 radii
    eps = np.full(9, 0.5)
    eps[4] = 0.1
    for options, given in (({"step_size": 1.6}, "1.6: it is 3.2"), ({"step_size": 1.0, "eps": eps}, "1: it is 10")):
        with pytest.raises(InputError, match=f"Invalid step_size {given} times the radius"):
            pgd(logits_fn, variables, x, y, config=config, **options)
    with pytest.raises(InputError, match="Invalid step_size 1: it is 10 times"):
        mj.attacks.Momentum(norm="l2", eps=0.1, step_size=1.0)
    PGD(eps=1e-4)  # in Linf every long step is the same
    PGD(norm="l2", eps=0.0, step_size=1.0)


def test_default_radius_and_step_depend_on_the_norm():
    assert PGD().eps == 8 / 255
    assert PGD().step_size == 2 / 255
    for config in (PGD(norm="l2"), mj.attacks.APGD(norm="l2"), mj.attacks.FAB(norm="l2"), mj.attacks.Square(norm="l2")):
        assert config.eps == 0.5
    assert PGD(norm="l2").step_size == 0.125
    assert PGD(norm="l2", eps=2.0).step_size == 0.5


def test_torch_tensors_integer_seeds_and_rounded_images_are_accepted(linear_model, batch):
    logits_fn, variables = linear_model
    x, y = batch
    config = PGD(eps=0.1, steps=1)
    expected = pgd(logits_fn, variables, x, y, jax.random.key(3), config=config)
    tensors = torch.tensor(np.asarray(x)), torch.tensor(np.asarray(y))
    np.testing.assert_array_equal(pgd(logits_fn, variables, *tensors, 3, config=config).images, expected.images)
    black = x.at[0].set(0.0)
    rounded = pgd(logits_fn, variables, black.at[0].set(-3e-8), y, 3, config=config)
    np.testing.assert_array_equal(rounded.images, pgd(logits_fn, variables, black, y, 3, config=config).images)


def prototypes(variables, x):
    """Minus the distance to each prototype: at a prototype the logits are finite and the gradient is NaN."""
    return -jnp.sqrt(jnp.sum((x.reshape(len(x), 1, -1) - variables[None]) ** 2, axis=-1))


@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_gradient_that_is_not_finite_changes_no_pixel_and_is_reported(keep):
    prototype = jnp.stack([jnp.zeros(4), jnp.ones(4)])
    x = jnp.stack([jnp.zeros((2, 2, 1)), jnp.full((2, 2, 1), 0.3), jnp.full((2, 2, 1), 0.6)])
    config = PGD(eps=0.3, steps=5, step_size=0.1, random_start=False, keep=keep)
    result = pgd(prototypes, prototype, x, jnp.array([0, 0, 1]), config=config)
    np.testing.assert_array_equal(result.success, [False, True, True])
    np.testing.assert_allclose(result.images[0], 0)
    np.testing.assert_allclose(result.images[1], 0.6, atol=1e-6)
    (warning,) = result.warnings  # none about zero gradients
    assert "non-finite losses or gradients on 1 of 3 images, at 33.3% of all steps" in warning


def test_zero_gradients_are_reported(linear_model, batch):
    def quantised(v, x):
        return linear_model[0](v, jnp.round(x))

    config = PGD(eps=0.1, steps=2, step_size=0.05, random_start=False)
    x = jnp.full_like(batch[0], 0.75)
    y = jnp.argmax(quantised(linear_model[1], x), axis=1)
    for found in (
        pgd(quantised, linear_model[1], x, y, config=config),
        fgsm(quantised, linear_model[1], x, y, eps=0.1),
    ):
        assert "zero gradients on correctly classified points on 9 of 9 images, at 100.0%" in found.warnings[0]
    assert pgd(*linear_model, *batch, config=config).warnings == ()


@pytest.mark.parametrize("bad_value", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("keep", ["last", "best"])
def test_images_with_nan_or_infinite_logits_are_not_adversarial(bad_value, keep):
    """Class 1 wins above 0.6; above 0.75 the logits are NaN or infinite."""

    def model(variables, x):
        mean = x.mean(axis=(1, 2, 3))
        logits = jnp.stack([0.6 - mean, mean - 0.6], axis=1)
        return jnp.where((mean > 0.75)[:, None], jnp.array([0.0, bad_value]), logits)

    x = jnp.full((1, 2, 2, 1), 0.5)
    config = PGD(eps=0.4, steps=5, step_size=0.08, random_start=False, keep=keep)
    result = pgd(model, None, x, jnp.array([0]), config=config)
    assert result.success[0]
    np.testing.assert_allclose(result.images, 0.74, atol=1e-6)
    # Robust up to 0.75: a single long step reaches NaN or infinite logits only.
    config = PGD(eps=0.4, steps=1, step_size=0.3, random_start=False, keep=keep)
    result = pgd(model, None, x, jnp.array([0]), config=config)
    assert not result.success[0]
    np.testing.assert_allclose(result.images, 0.5)


def test_an_l2_step_has_its_length_however_small_the_gradient():
    threat, gradient = ThreatModel("l2", 0.5), jax.random.normal(jax.random.key(0), (5, 4, 3, 2))
    expected = gradient / jnp.linalg.norm(gradient.reshape(5, -1), axis=1)[:, None, None, None]
    for scale in (1e-25, 1.0, 1e25):
        np.testing.assert_allclose(threat.steepest(scale * gradient), expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(threat.steepest(jnp.zeros_like(gradient)), 0)


def test_confident_logits_do_not_stop_an_l2_attack(linear_model, batch):
    logits_fn, variables = linear_model
    highest = jnp.sort(logits_fn(variables, batch[0]), axis=1)
    scale = 40 / (highest[:, -1] - highest[:, -2])  # gradients of exp(-40) = 4e-18

    def confident(v, x):
        return scale[:, None] * logits_fn(v, x)

    config = PGD(norm="l2", eps=0.2, steps=1, step_size=0.2, random_start=False)
    result = pgd(confident, variables, *batch, config=config)
    np.testing.assert_allclose(result.perturbation_norm, 0.2, rtol=1e-5)


def test_steps_that_cannot_reach_the_radius_are_said(linear_model, batch):
    logits_fn, variables = linear_model

    def warnings(**options):
        return pgd(logits_fn, variables, *batch, 0, config=PGD(**options)).warnings

    (said,) = warnings(eps=0.3)
    assert "10 steps of 0.007843 go 0.07843 and never reach the radius 0.3" in said
    assert warnings(eps=0.3, step_size=0.03) == warnings() == warnings(norm="l2") == warnings(steps=0) == ()
    assert pgd(logits_fn, variables, *batch, 0, config=PGD(), eps=jnp.full(9, 0.3)).warnings == ()


def test_fgsm_needs_a_radius(linear_model, batch, as_a_user):
    with pytest.raises(InputError, match="Invalid eps None: expected a number in"):
        fgsm(*linear_model, *batch, eps=None)


def test_fgsm_has_no_divergence_from_the_clean_image(linear_model, batch):
    with pytest.raises(InputError, match="Invalid loss 'kl': expected"):
        fgsm(*linear_model, *batch, eps=0.1, loss="kl")


def test_equal_networks_are_one_model_and_others_are_not():
    vgg = mj.models.create("vgg11", num_classes=10, input_shape=(32, 32, 3), width=0.125)
    models = [Model(network.logits) for network in (vgg, dataclasses.replace(vgg))]
    assert models[0] == models[1]
    assert hash(models[0]) == hash(models[1])
    assert models[0] != Model(dataclasses.replace(vgg, width=0.25).logits)


def test_weights_changed_in_a_closure_are_not_attacked_in_their_old_state(linear_model, batch):
    held = dict(linear_model[1])
    numpy_held = {name: np.array(value) for name, value in held.items()}
    functions = {
        "dict": lambda v, x: linear_model[0](held, x),
        "numpy": lambda v, x: linear_model[0](numpy_held, x),
    }
    config = PGD(eps=0.1, random_start=False)
    before = {name: pgd(f, None, *batch, config=config).images for name, f in functions.items()}
    held["w"] = -held["w"]
    numpy_held["w"] *= -1
    expected = pgd(linear_model[0], held, *batch, config=config).images
    for name, f in functions.items():
        np.testing.assert_allclose(pgd(f, None, *batch, config=config).images, expected, atol=1e-6)
        assert np.abs(before[name] - expected).max() > 0.1


def test_bad_images_labels_and_models_raise_a_clear_error(linear_model, batch):
    logits_fn, variables = linear_model
    x, y = batch

    def attack(f=logits_fn, images=x, labels=y, **options):
        return pgd(f, variables, images, labels, jax.random.key(0), config=PGD(steps=1, **options))

    for expected, call in {
        r"Images must lie in \[0, 1\]; got values from": lambda: attack(images=x * 255),
        "divide 8-bit pixels by 255": lambda: attack(images=(x * 255).astype(jnp.uint8)),
        r"shape \[b, h, w, c\]": lambda: attack(images=x[0]),
        "one per image": lambda: attack(labels=y[:3]),
        r"Labels must lie in 0\.\.4": lambda: attack(labels=y + 4),
        "probabilities": lambda: attack(f=lambda v, i: jax.nn.softmax(logits_fn(v, i))),
        "NaN logits for 9 of 9": lambda: attack(f=lambda v, i: logits_fn(v, i) * jnp.nan),
        "at least 3 classes": lambda: attack(f=lambda v, i: logits_fn(v, i)[:, :2], labels=y % 2, loss="dlr"),
        "must return logits of shape": lambda: attack(f=lambda v, i: logits_fn(v, i)[0]),
        "eps has 3 values for 9 images; give one number, or one per image.": lambda: pgd(
            logits_fn, variables, x, y, jax.random.key(0), config=PGD(), eps=np.array([0.1, 0.2, 0.3])
        ),
        "Invalid step_size -0.01: expected a number": lambda: pgd(
            logits_fn, variables, x, y, jax.random.key(0), config=PGD(), step_size=-0.01
        ),
        "Invalid step_size 0.0: expected a positive number, such as 2/255": lambda: pgd(
            logits_fn, variables, x, y, jax.random.key(0), config=PGD(), step_size=0
        ),
        "Invalid step_size 0.0: expected a positive number, such as 0.5": lambda: pgd(
            logits_fn, variables, x, y, 0, config=PGD("l2"), step_size=np.where(np.arange(len(x)) == 3, 0, 0.1)
        ),
        r"start must lie in \[0, 1\]; got values from 5": lambda: pgd(
            logits_fn, variables, x, y, config=PGD(), start=x + 5
        ),
        r"Map \[-1, 1\] to": lambda: attack(images=2 * x - 1),
        r"looks like \[b, c, h, w\]": lambda: attack(images=jnp.full((9, 3, 8, 8), 0.5)),
        "9 of 9 targets equal the label": lambda: pgd(logits_fn, variables, x, y, 0, config=PGD(), targets=y),
        "Invalid eps 128: images": lambda: attack(norm="l2", eps=128.0, step_size=1.0),
        "Invalid step_size 20: it is 40 times the radius": lambda: attack(norm="l2", step_size=20.0),
        "infinite logits for 9 of 9": lambda: attack(f=lambda v, i: logits_fn(v, i).at[:, 0].set(jnp.inf)),
        r"config must be mi_jax\.attacks\.PGD, not APGD": lambda: check_config(mj.attacks.APGD(), PGD),
        "into NumPy or Python": lambda: attack(f=lambda v, i: np.asarray(i).reshape(9, -1) @ np.ones((24, 5))),
        "torch module": lambda: Model(torch.nn.Linear(2, 2)),
        "give its method `apply`": lambda: Model(flax.linen.Dense(5)),
        r"Targets must lie in 0\.\.4": lambda: pgd(
            logits_fn, variables, x, y, jax.random.key(0), config=PGD(), targets=y + 4
        ),
        "targets is 5, but a model of 5 classes has 4": lambda: mj.attacks.apgd(
            logits_fn, variables, x, y, jax.random.key(0), config=mj.attacks.APGD(steps=1, targets=5)
        ),
        "Invalid key None: expected a JAX random key or an integer seed": lambda: pgd(
            logits_fn, variables, x, y, config=PGD()
        ),
        "must be a function": lambda: Model("model"),
        "Images must be an array": lambda: check_batch(None, y),
        "must be float32 or float64 for an attack": lambda: check_batch(x.astype(jnp.bfloat16), y),
    }.items():
        with pytest.raises(InputError, match=expected):
            call()


def test_labels_of_a_narrow_type_do_not_narrow_the_targets(key):
    """A model of 300 classes: the second and third highest are beyond what uint8 labels can hold."""
    x, y = jnp.full((2, 2, 2, 1), 0.5), np.array([3, 4], np.uint8)
    variables = {
        "w": jax.random.normal(key, (4, 300)) / 10,
        "b": jnp.zeros(300).at[jnp.array([3, 4])].set(3.0).at[290].set(2.8).at[280].set(2.6),
    }

    def model(v, images):
        return images.reshape(len(images), -1) @ v["w"] + v["b"][None]

    config = mj.attacks.APGD(eps=0.4, steps=5, loss="dlr", targets=2)
    wide, narrow = (
        mj.attacks.apgd(model, variables, x, labels, key, config=config) for labels in (y.astype(np.int32), y)
    )
    np.testing.assert_array_equal(narrow.images, wide.images)
    assert set(np.asarray(wide.logits).argmax(axis=1)) <= {3, 4, 290, 280}


_HELD = {"w": np.ones((24, 5), np.float32)}


def _rows(x):
    return x.reshape(len(x), -1)


class _Slots:
    __slots__ = ("w",)


def test_a_model_is_another_one_when_an_array_or_function_that_it_reaches_is_replaced(monkeypatch):
    slots = _Slots()
    slots.w = np.ones((24, 5), np.float32)
    functions = {
        "a global of an inner function": lambda v, x: jax.vmap(lambda row: row.ravel() @ _HELD["w"])(x),
        "a function that it calls": lambda v, x: _rows(x) @ v,
        "a slot": lambda v, x: _rows(x) @ slots.w,
    }
    before = {name: Model(f) for name, f in functions.items()}
    assert all(Model(f) == before[name] for name, f in functions.items())
    monkeypatch.setitem(_HELD, "w", -_HELD["w"])
    slots.w = -slots.w
    monkeypatch.setitem(globals(), "_rows", lambda x: 1 - x.reshape(len(x), -1))
    assert all(Model(f) != before[name] for name, f in functions.items())


def test_starts_and_numbers_of_images_that_do_not_fit_raise_a_clear_error(linear_model, batch, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it would refuse them first
    for expected, options in {
        "start must be floating": {"start": np.zeros(batch[0].shape, np.uint8)},
        "start holds NaN": {"start": np.full(batch[0].shape, np.nan, np.float32)},
        r"index must be integers of shape \[9\]": {"index": np.arange(3)},
        r"eps has shape \(9, 1, 1, 1\) for 9 images": {"eps": np.full((9, 1, 1, 1), 0.1)},
        r"Invalid eps \[\[0.1\], \[0.1, 0.2\]\]": {"eps": [[0.1], [0.1, 0.2]]},
    }.items():
        with pytest.raises(InputError, match=expected):
            pgd(*linear_model, *batch, 0, config=PGD(), **options)


def test_the_norm_of_a_threat_model_is_understood_in_any_case():
    assert mj.attacks.ThreatModel("Linf", 0.1) == mj.attacks.ThreatModel("linf", 0.1)


@pytest.mark.parametrize("loss", ["ce", "cw"])
def test_a_targeted_loss_grows_towards_the_target(key, loss):
    z = 3 * jax.random.normal(key, (6, 5))
    y, t, rows = jnp.arange(6) % 5, (jnp.arange(6) + 2) % 5, jnp.arange(6)
    expected = jax.nn.log_softmax(z)[rows, t] if loss == "ce" else z[rows, t] - z[rows, y]
    np.testing.assert_allclose(loss_of(loss, y, targets=t)(z), expected, atol=1e-5)


def test_the_start_of_random_radius_fills_each_image_up_to_its_own():
    clean = jnp.full((4000, 1, 1, 8), 0.5)
    start = ThreatModel("linf", 0.4).random_start(jax.random.key(0), clean, "radius")
    largest = np.sort(np.abs(np.asarray(start - clean)).max((1, 2, 3))) / 0.4
    assert largest.mean() == pytest.approx(8 / 9 / 2, abs=0.02)  # the largest of 8 uniform, times a uniform radius
