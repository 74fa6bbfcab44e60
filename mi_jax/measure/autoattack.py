"""AutoAttack on a trained network, and signs that no such number could be trusted. It trains nothing."""

from collections.abc import Callable, Sequence

from mi_jax import attacks
from mi_jax.attacks import Budget
from mi_jax.attacks.autoattack_plan import VERSIONS
from mi_jax.data.sample import fixed_sample
from mi_jax.measure.accuracy import accuracy_row, radius
from mi_jax.models import Network
from mi_jax.records.table import Record
from mi_jax.studies.registry import Study, StudyInput, StudyResult, register
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
        budget: steps, queries, targets and restarts.
        progress: told between compiled chunks.
        state: of the same evaluation, interrupted, to go on from.
    """
    result = attacks.autoattack(
        network.logits, variables, images, labels, key,
        norm=norm, eps=eps, version=stages(version), budget=budget, progress=progress, state=state,
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


def stages(version: str) -> str | list[str]:
    """What `mi_jax.attacks.autoattack` and `plan` take for a version: `standard`, `plus`, or names of attacks."""
    return version if version in _NAMES else version.split(",")


def describe(norm: str, eps: float, version: str, budget: Budget) -> str:
    """AutoAttack in a few words: all that is unusual, and `reduced` where it tries less than it would by default.

    Names of attacks come with how long each tries; they are reduced, too, where one of `standard` is missing.

    Examples:
        >>> describe("linf", 8 / 255, "standard", Budget())
        'autoattack linf eps=8/255'
        >>> describe("linf", 8 / 255, "standard", Budget(apgd_steps=200))
        'autoattack linf eps=8/255 (apgd 200 steps)'
        >>> describe("linf", 8 / 255, "plus", Budget(fab_steps=200, targets=3))
        'reduced-autoattack-plus linf eps=8/255 (fab 200 steps, 3 targets)'
        >>> describe("linf", 8 / 255, "apgd-t,square", Budget(apgd_steps=20, square_queries=500))
        'reduced-autoattack linf eps=8/255 (apgd-t 20 steps, square 500 queries)'
    """
    names = VERSIONS[version] if version in _NAMES else version.split(",")
    usual = _usual(version, names)
    unusual = {field: value for field in usual if (value := getattr(budget, field)) not in (None, usual[field])}
    if version in _NAMES:
        efforts = [field.split("_") for field in unusual if "_" in field]
        said = [f"{kind} {unusual[f'{kind}_{unit}']} {unit}" for kind, unit in efforts]
    else:
        said = [f"{name} {_effort(name, budget)} {attacks.ATTACKS[name].effort}" for name in names]
    said += [f"{unusual[field]} {field}" for field in ("targets", "restarts") if field in unusual]
    less = not set(names).issuperset(VERSIONS["standard"]) or any(unusual[field] < usual[field] for field in unusual)
    name = f"{'reduced-' if less else ''}autoattack{'-plus' if version == 'plus' else ''}"
    return f"{name} {norm} eps={radius(norm, eps)}" + (f" ({', '.join(said)})" if said else "")


def _effort(name: str, budget: Budget) -> int:
    """Steps or queries of the named attack."""
    attack = attacks.ATTACKS[name]
    field = attack.budget_fields.get(attack.effort)
    return getattr(budget if field else attack, field or attack.effort)


def _usual(version: str, names: Sequence[str]) -> dict[str, int]:
    """The default of each field of the budget that the named attacks use, but for the draws of `rand`."""
    fields = [field for name in names for field in attacks.ATTACKS[name].budget_fields.values() if field != "eot_draws"]
    return {field: getattr(_FULL.of(version), field) for field in dict.fromkeys(fields)}


def autoattack(study_input: StudyInput) -> StudyResult:
    """AutoAttack `standard` at the radius of the run's attack on the sample, and the self-checks on part of it."""
    images, labels = fixed_sample(study_input.dataset.test.images, study_input.dataset.test.labels, study_input.samples)
    norm, eps = study_input.attack.norm, study_input.attack.eps
    arguments = (study_input.network, study_input.variables)
    rows = under_autoattack(*arguments, images, labels, study_input.key, norm=norm, eps=eps)
    few = (images[:_CHECKED], labels[:_CHECKED])
    return StudyResult(rows + self_checks(*arguments, *few, study_input.key, norm=norm, eps=eps))


STUDY = register(
    Study(name="autoattack", title="What is left under AutoAttack, and whether that can be trusted", run=autoattack)
)
