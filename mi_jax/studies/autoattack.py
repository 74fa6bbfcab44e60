"""AutoAttack on a trained network, and signs that no such number could be trusted. It trains nothing."""

from collections.abc import Callable

from mi_jax import attacks
from mi_jax.attacks import Budget
from mi_jax.models import Network
from mi_jax.storage.records import Record
from mi_jax.studies.registry import Findings, Study, Subject, register
from mi_jax.studies.robustness import accuracy_row, radius
from mi_jax.studies.sample import fixed_sample
from mi_jax.typing import Images, Key, Labels, Variables

_CHECKED = 100
"""Images that the self-checks look at."""
_NAMES = ("standard", "plus")
_FULL = Budget()


def under_autoattack(
    network: Network,
    variables: Variables,
    images: Images,
    labels: Labels,
    key: Key,
    *,
    norm: str,
    eps: float,
    version: str = "standard",
    budget: Budget = _FULL,
    progress: Callable[[attacks.Progress], None] | None = None,
    state: attacks.EvaluationState | None = None,
) -> list[Record]:
    """Accuracy under AutoAttack, and what each of its stages broke, as records of the final network.

    Args:
        network: what is attacked.
        variables: its variables.
        images: test images in [0, 1], `[n h w c]`.
        labels: int `[n]`.
        key: of the random numbers.
        norm, eps: the threat model.
        version: `standard`, `plus`, or names of attacks, separated by commas.
        budget: steps and queries.
        progress: told between compiled chunks.
        state: of the same evaluation, interrupted, to go on from.
    """
    stages = version if version in _NAMES else version.split(",")
    result = attacks.autoattack(
        network.logits, variables, images, labels, key,
        norm=norm, eps=eps, version=stages, budget=budget, progress=progress, state=state,
    )  # fmt: skip
    note = f"final {describe(norm, eps, version, budget)}"
    rows = [accuracy_row(result.robust_accuracy, len(labels), inputs="adversarial", note=note)]
    for stage in result.stages:
        note = f"{stage.broken} of {stage.attacked} images that withstood the stages before"
        rows.append(
            Record(quantity="autoattack_broken", value=stage.broken / len(labels), estimator=stage.name,
                   inputs="adversarial", subset="test", unit="1", n=len(labels), note=note)
        )  # fmt: skip
    return rows


def self_checks(
    network: Network, variables: Variables, images: Images, labels: Labels, key: Key, *, norm: str, eps: float
) -> list[Record]:
    """Signs that attacks on this network mislead (`mi_jax.attacks.check`): a row a sign, and how many weigh.

    `attack_checks` counts warnings and errors; `attack_sign` rows carry the sentence in `note`, the name in `subset`.
    """
    found = attacks.check(network.logits, variables, images, labels, key, norm=norm, eps=eps).findings
    grave = [finding for finding in found if finding.severity != "info"]
    rows = [Record(quantity="attack_checks", value=len(grave), unit="1", n=len(labels), inputs="adversarial")]
    for finding in found:
        note = f"{finding.severity}: {finding.message}"
        rows.append(
            Record(quantity="attack_sign", value=finding.value, unit="1", n=len(labels), subset=finding.name, note=note)
        )
    return rows


def describe(norm: str, eps: float, version: str, budget: Budget) -> str:
    """AutoAttack in a few words; a reduced one says how it was reduced.

    Examples:
        >>> describe("linf", 8 / 255, "standard", Budget())
        'autoattack linf eps=8/255'
        >>> describe("linf", 8 / 255, "apgd-t,square", Budget(apgd_steps=20, square_queries=500))
        'reduced-autoattack linf eps=8/255 (apgd-t 20 steps, square 500 queries)'
    """
    where = f"{norm} eps={radius(norm, eps)}"
    if version in _NAMES and budget == _FULL:
        return f"autoattack{'' if version == 'standard' else '-' + version} {where}"
    parts = [_effort(name, budget) for name in (version.split(",") if version not in _NAMES else [version])]
    return f"reduced-autoattack {where} ({', '.join(parts)})"


def _effort(name: str, budget: Budget) -> str:
    if name == "square":
        return f"{name} {budget.square_queries} queries"
    if name.startswith("fab"):
        return f"{name} {budget.fab_steps} steps"
    if name.startswith("apgd"):
        return f"{name} {budget.apgd_steps} steps"
    steps = f"{budget.apgd_steps} and {budget.fab_steps} steps, {budget.square_queries} queries"
    return f"{name}, {steps}"


def autoattack(subject: Subject) -> Findings:
    """AutoAttack `standard` at the radius of the run's attack on the sample, and the self-checks on part of it."""
    images, labels = fixed_sample(subject.dataset.test.images, subject.dataset.test.labels, subject.samples)
    norm, eps = subject.attack.norm, subject.attack.eps
    arguments = (subject.network, subject.variables)
    rows = under_autoattack(*arguments, images, labels, subject.key, norm=norm, eps=eps)
    few = (images[:_CHECKED], labels[:_CHECKED])
    return Findings(rows + self_checks(*arguments, *few, subject.key, norm=norm, eps=eps))


STUDY = register(
    Study(name="autoattack", title="What is left under AutoAttack, and whether that can be trusted", run=autoattack)
)
