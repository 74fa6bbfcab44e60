"""A class masked by a logit of minus infinity is attacked, checked and evaluated as one masked by a large number."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax.attacks import APGD, FAB, FMN, PGD, Budget, Square, autoattack, check, run
from mi_jax.attacks.losses import kl
from mi_jax.errors import InputError


@pytest.fixture(scope="module")
def masked(linear_model, batch):
    """A model whose fifth class has the logit `value`, its images and labels."""
    logits_fn, weights = linear_model
    x, _ = batch

    def model(value, x):
        return jnp.where((jnp.arange(5) < 4)[None], logits_fn(weights, x), value)

    return model, x, jnp.argmax(logits_fn(weights, x)[:, :4], axis=1)


@pytest.mark.parametrize(
    "config",
    [
        *(PGD(eps=0.1, step_size=0.02, loss=loss) for loss in ("ce", "dlr", "cw", "kl")),
        FMN(eps=0.1, steps=10),
        Square(queries=20),
    ],
    ids=lambda config: config.loss,
)
def test_attacks_return_the_same_images(masked, config):
    model, x, y = masked
    infinite, finite = (run(model, value, x, y, 0, config=config) for value in (-jnp.inf, -1e4))
    np.testing.assert_array_equal(infinite.images, finite.images)
    np.testing.assert_array_equal(infinite.loss, finite.loss)
    assert infinite.warnings == ()


def test_targeted_attacks_and_autoattack_do_not_aim_at_a_masked_class(masked):
    model, x, y = masked
    result = run(model, -jnp.inf, x, y, 0, config=FAB(eps=0.1, steps=5, targets=4))
    assert result.success.all()
    assert result.warnings == ()
    evaluate = functools.partial(autoattack, model, x=x, y=y, key=0, eps=0.02, budget=Budget(5, 5, 10, 4))
    stages = [APGD(steps=5, loss="dlr", targets=4)]
    infinite, finite = (evaluate(variables=value, version=stages) for value in (-jnp.inf, -1e4))
    np.testing.assert_array_equal(infinite.success, finite.success)
    assert infinite.warnings == ()


@pytest.mark.parametrize(("classes", "config"), [(2, PGD(eps=0.1, loss="dlr")), (3, APGD(loss="dlr", targets=2))])
def test_a_dlr_loss_that_masks_make_constant_is_refused(linear_model, batch, classes, config):
    logits_fn, weights = linear_model
    x, _ = batch

    def model(value, x):
        return jnp.where((jnp.arange(5) < classes)[None], logits_fn(weights, x), value)

    y = jnp.argmax(logits_fn(weights, x)[:, :classes], axis=1)
    message = rf"'dlr' needs at least {classes + 1} classes that no logit of -inf masks, but an image has {classes}"
    with pytest.raises(InputError, match=message):
        run(model, -jnp.inf, x, y, 0, config=config)
    with pytest.raises(InputError, match=message):
        autoattack(model, -jnp.inf, x, y, 0, eps=0.02, version=[config])
    assert run(model, -jnp.inf, x, y, 0, config=PGD(eps=0.3)).success.any()


def test_the_sanity_checks_find_nothing_wrong_with_it(masked):
    model, x, y = masked
    assert check(model, -jnp.inf, x, y, 0, eps=0.1, steps=10, queries=20).findings == ()


def test_divergence_of_masked_logits_is_that_of_the_other_classes():
    z, reference = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    padding = ((0, 0), (0, 1))
    padded = (jnp.pad(part, padding, constant_values=-jnp.inf) for part in (z, reference))
    np.testing.assert_allclose(kl(*padded), kl(jnp.asarray(z), jnp.asarray(reference)), rtol=1e-6)


@pytest.mark.parametrize("loss", ["ce", "cw"])
def test_an_image_counts_as_broken_by_whichever_restart_reaches_where_its_label_is_masked(loss):
    direction = jnp.asarray(np.random.default_rng(0).standard_normal((1, 6, 6, 3)), jnp.float32)

    def model(variables, x):
        label = jnp.where(jnp.sum((x - 0.5) * direction, axis=(1, 2, 3)) > 0, -jnp.inf, 5.0)
        return jnp.stack([label, jnp.zeros_like(label)], axis=1)

    x, y = jnp.full((64, 6, 6, 3), 0.5), jnp.zeros(64, jnp.int32)
    config = functools.partial(PGD, eps=0.1, steps=1, step_size=1e-6, keep="best", loss=loss)
    broken = [run(model, (), x, y, 0, config=config(restarts=n)).success for n in (1, 2, 6)]
    assert [float(b.mean()) for b in broken] == pytest.approx([0.5, 0.75, 1.0], abs=0.15)
    assert (broken[0] <= broken[1]).all()
    assert (broken[1] <= broken[2]).all()
