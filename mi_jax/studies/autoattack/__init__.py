"""Accuracy under AutoAttack at the radius of the run's attack, with sanity checks of that evaluation."""

from mi_jax.data.sample import fixed_sample
from mi_jax.measure.autoattack import sanity_checks, under_autoattack
from mi_jax.studies.registry import Study, StudyInput, StudyResult, register

_CHECKED = 100
"""Images used by the sanity checks."""


def measure(study_input: StudyInput) -> StudyResult:
    """AutoAttack `standard` on the sample, and the sanity checks on its first images."""
    test, attack, key = study_input.dataset.test, study_input.attack, study_input.key
    network, variables = study_input.network, study_input.variables
    images, labels = fixed_sample(test.images, test.labels, study_input.samples)
    rows = under_autoattack(network, variables, images, labels, key, norm=attack.norm, eps=attack.eps)
    few = (images[:_CHECKED], labels[:_CHECKED])
    return StudyResult(rows + sanity_checks(network, variables, *few, key, norm=attack.norm, eps=attack.eps))


STUDY = register(Study("autoattack", title="Accuracy under AutoAttack, with sanity checks", measure=measure))
