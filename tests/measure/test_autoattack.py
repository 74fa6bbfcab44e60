"""AutoAttack as a study: its rows add up, and a model that hides its gradients is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax import models
from mi_jax.attacks import Budget
from mi_jax.measure.autoattack import describe, self_checks, under_autoattack
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


@pytest.mark.parametrize(
    ("version", "budget", "said"),
    [
        ("standard", Budget(targets=3), "reduced-autoattack l2 eps=0.5 (3 targets)"),
        ("standard", Budget(restarts=1, eot_draws=1), "autoattack l2 eps=0.5"),
        ("standard", Budget(apgd_steps=200, restarts=3), "autoattack l2 eps=0.5 (apgd 200 steps, 3 restarts)"),
        ("plus", Budget(restarts=5), "autoattack-plus l2 eps=0.5"),
        ("plus", Budget(restarts=1), "reduced-autoattack-plus l2 eps=0.5 (1 restarts)"),
        (
            "standard",
            Budget(apgd_steps=200, fab_steps=50, square_queries=9000),
            "reduced-autoattack l2 eps=0.5 (apgd 200 steps, fab 50 steps, square 9000 queries)",
        ),
        (
            "apgd-t,apgd-ce,fab-t,square",
            Budget(square_queries=9000),
            "autoattack l2 eps=0.5 (apgd-t 100 steps, apgd-ce 100 steps, fab-t 100 steps, square 9000 queries)",
        ),
        (
            "apgd-t,fab",
            Budget(targets=5, restarts=2, square_queries=9),
            "reduced-autoattack l2 eps=0.5 (apgd-t 100 steps, fab 100 steps, 5 targets, 2 restarts)",
        ),
    ],
)
def test_a_description_says_all_that_is_unusual_and_reduced_only_of_less(version, budget, said):
    assert describe("l2", 0.5, version, budget) == said


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
