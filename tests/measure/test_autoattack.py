"""AutoAttack records: shares that add up, reduced budgets, and sanity checks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax import models
from mi_jax.attacks import Budget
from mi_jax.measure.autoattack import autoattack_columns, budget_in_words, sanity_checks, under_autoattack
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


def test_robust_accuracy_is_clean_accuracy_minus_the_shares_broken_by_the_stages(network, case):
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
    assert (robust.attack, robust.norm, robust.eps, robust.reduced) == ("autoattack-custom", "linf", 0.1, True)
    assert robust.note == "apgd-ce, square, apgd steps 5, square queries 20"


@pytest.mark.parametrize(
    ("version", "budget", "name", "reduced", "words"),
    [
        ("standard", Budget(), "autoattack-standard", False, None),
        ("standard", Budget(targets=3), "autoattack-standard", True, "targets 3"),
        ("standard", Budget(restarts=1, eot_draws=1), "autoattack-standard", False, None),
        ("standard", Budget(apgd_steps=200, restarts=3), "autoattack-standard", False, "apgd steps 200, restarts 3"),
        ("plus", Budget(restarts=5), "autoattack-plus", False, None),
        ("plus", Budget(restarts=1), "autoattack-plus", True, "restarts 1"),
        ("Plus", Budget(restarts=2), "autoattack-plus", True, "restarts 2"),
        ("standard", Budget(apgd_steps=200, fab_steps=50), "autoattack-standard", True, "apgd steps 200, fab steps 50"),
        ("apgd-t,apgd-ce,fab-t,square", Budget(), "autoattack-custom", False, "apgd-t, apgd-ce, fab-t, square"),
        ("apgd-t,fab", Budget(square_queries=9), "autoattack-custom", True, "apgd-t, fab"),
        ("mi-fgsm", Budget(), "autoattack-custom", True, "mi-fgsm"),
    ],
)
def test_reduced_marks_smaller_budgets_only_and_the_description_lists_every_change(
    version, budget, name, reduced, words
):
    expected = {"attack": name, "norm": "l2", "eps": 0.5, "reduced": reduced}
    assert autoattack_columns("l2", 0.5, version, budget) == expected
    assert budget_in_words(version, budget) == words


def test_the_fewer_targets_of_apgd_t_in_l1_are_its_usual_ones():
    assert budget_in_words("apgd-t", Budget(), "l1") == "apgd-t"
    assert budget_in_words("apgd-t", Budget(targets=3), "l1") == "apgd-t, targets 3"


def test_sanity_checks_report_an_overconfident_network_only(network, case):
    variables, images, labels = case
    sane = sanity_checks(network, variables, images, labels, jax.random.key(0), norm="linf", eps=0.05)
    assert [row.value for row in sane if row.quantity == "sanity_check_warnings"] == [0.0]
    head = variables["params"]["head"]
    sharp = {**variables, "params": {**variables["params"], "head": jax.tree.map(lambda a: 1e4 * a, head)}}
    rows = sanity_checks(network, sharp, images, labels, jax.random.key(0), norm="linf", eps=0.05)
    signs = {row.estimator: row.note for row in rows if row.quantity == "sanity_check"}
    assert "overconfident" in signs
    assert signs["overconfident"].startswith("warning: The gradient of the cross-entropy is zero")
    assert np.isclose(next(row.value for row in rows if row.quantity == "sanity_check_warnings"), len(signs))
