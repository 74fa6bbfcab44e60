"""AutoAttack as a study: its rows add up, and a model that hides its gradients is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax import models
from mi_jax.attacks import Budget
from mi_jax.studies.autoattack import self_checks, under_autoattack
from mi_jax.training import evaluate

QUICK = Budget(apgd_steps=5, square_queries=20)


@pytest.fixture(scope="module")
def network():
    return models.create("mlp", num_classes=4, input_shape=(6, 6, 1), width=1.0)


@pytest.fixture(scope="module")
def case(network):
    variables = network.init(jax.random.key(3))
    images = jax.random.uniform(jax.random.key(4), (24, 6, 6, 1))
    return variables, images, jnp.argmax(network.logits(variables, images), axis=1).astype(jnp.int32)


def test_what_the_stages_broke_is_what_the_robust_accuracy_lacks(network, case):
    variables, images, labels = case
    rows = under_autoattack(
        network, variables, images, labels, jax.random.key(0), norm="linf", eps=0.1, version="apgd-ce,square",
        budget=QUICK,
    )  # fmt: skip
    (robust,) = [row for row in rows if row.quantity == "accuracy"]
    broken = {row.estimator: row.value for row in rows if row.quantity == "autoattack_broken"}
    assert list(broken) == ["apgd-ce", "square"]
    clean = evaluate(network, variables, images, labels)[1]
    assert robust.value == pytest.approx(clean - sum(broken.values()), abs=1e-6)
    assert 0 < robust.value < 1
    assert robust.note == "final reduced-autoattack linf eps=25.5/255 (apgd-ce 5 steps, square 20 queries)"


def test_a_sane_network_has_no_sign_and_an_overconfident_one_is_named(network, case):
    variables, images, labels = case
    sane = self_checks(network, variables, images, labels, jax.random.key(0), norm="linf", eps=0.05)
    assert [row.value for row in sane if row.quantity == "attack_checks"] == [0.0]
    head = variables["params"]["head"]
    sharp = {**variables, "params": {**variables["params"], "head": jax.tree.map(lambda a: 1e4 * a, head)}}
    rows = self_checks(network, sharp, images, labels, jax.random.key(0), norm="linf", eps=0.05)
    signs = {row.subset: row.note for row in rows if row.quantity == "attack_sign"}
    assert "overconfident" in signs
    assert signs["overconfident"].startswith("warning: Cross-entropy has no gradient")
    assert np.isclose(next(row.value for row in rows if row.quantity == "attack_checks"), len(signs))
