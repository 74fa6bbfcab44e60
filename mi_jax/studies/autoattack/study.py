"""Accuracy under AutoAttack at the radius of the run's attack and under APGD and FAB at others, with sanity checks."""

import dataclasses

from mi_jax.attacks import Budget, robust_accuracy_curve
from mi_jax.attacks.threat_model import diameter
from mi_jax.data.sample import fixed_sample
from mi_jax.measure.accuracy import accuracy_row
from mi_jax.measure.autoattack import autoattack_columns, sanity_checks, under_autoattack
from mi_jax.records.table import Record
from mi_jax.studies.registry import StudyInput, StudyResult
from mi_jax.typing import Images, Labels

_CHECKED, _ON_CURVE = 100, 200
"""Images used by the sanity checks, and by the curve."""
_RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
"""Radii of the curve, in units of that of the run's attack."""
_ATTACKS, _BUDGET = ("apgd-ce", "fab-t"), Budget(targets=3)


def measure(study_input: StudyInput) -> StudyResult:
    """AutoAttack `standard` on the sample, and on random images of it the curve over eps and the sanity checks.

    Where the run's evaluation measured accuracy under AutoAttack `standard` on as many images or more, its rows stand.
    """
    test, attack, key = study_input.dataset.test, study_input.attack, study_input.key
    network, variables = study_input.network, study_input.variables
    images, labels = fixed_sample(test.images, test.labels, study_input.samples)
    rows = []
    if study_input.autoattacked < len(labels):
        rows += under_autoattack(network, variables, images, labels, key, norm=attack.norm, eps=attack.eps)
    few, on_curve = (fixed_sample(test.images, test.labels, min(n, len(labels))) for n in (_CHECKED, _ON_CURVE))
    rows += sanity_checks(network, variables, *few, key, norm=attack.norm, eps=attack.eps)
    return StudyResult(rows + _curve(study_input, *on_curve))


def _curve(study_input: StudyInput, images: Images, labels: Labels) -> list[Record]:
    """Rows `robust_accuracy` at each radius `eps`, where 0 is the clean accuracy."""
    norm, key = study_input.attack.norm, study_input.key
    reach = diameter(norm, images.shape)
    found = robust_accuracy_curve(
        study_input.network.logits, study_input.variables, images, labels, key, norm=norm,
        eps=[min(reach, scale * study_input.attack.eps) for scale in _RADII], version=_ATTACKS, budget=_BUDGET,
    )  # fmt: skip
    rows = []
    for eps, accuracy in zip(found.eps, found.accuracy, strict=True):
        columns = autoattack_columns(norm, float(eps), ",".join(_ATTACKS), _BUDGET)
        row = accuracy_row(float(accuracy), len(labels), inputs="adversarial", **columns)
        rows.append(dataclasses.replace(row, quantity="robust_accuracy"))
    return rows
