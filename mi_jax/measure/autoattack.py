"""Accuracy of a network under AutoAttack, and sanity checks of attacks on it, as records."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mi_jax import attacks
from mi_jax.attacks import Budget
from mi_jax.attacks.autoattack_plan import VERSIONS
from mi_jax.measure.accuracy import accuracy_row
from mi_jax.models import Network
from mi_jax.options import split_commas
from mi_jax.parallel import Mesh
from mi_jax.records.table import Record
from mi_jax.typing import Images, Key, Labels, Variables

_DEFAULT = Budget()


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
    budget: Budget = _DEFAULT,
    progress: Callable[[attacks.Progress], None] | None = None,
    mesh: Mesh | None = None,
    state_path: Path | None = None,
) -> list[Record]:
    """Accuracy under AutoAttack, and the share of images broken by each of its attacks, as records.

    Args:
        network: the network to attack.
        variables: its variables.
        images: test images in [0, 1], `[n h w c]`.
        labels: int `[n]`.
        key: for the random numbers.
        norm, eps: the threat model; `eps` in pixel units of [0, 1].
        version: `standard`, `plus`, or names of attacks, separated by commas.
        budget: steps, queries, targets and restarts.
        progress: called between compiled chunks.
        mesh, state_path: as for `mi_jax.attacks.autoattack`.
    """
    result = attacks.autoattack(
        network.logits, variables, images, labels, key,
        norm=norm, eps=eps, version=stages(version), budget=budget, progress=progress,
        mesh=mesh, state_path=state_path,
    )  # fmt: skip
    columns = {"inputs": "adversarial", **autoattack_columns(norm, eps, version, budget)}
    note = budget_in_words(version, budget, norm)
    rows = [accuracy_row(result.robust_accuracy, len(labels), note=note, **columns)]
    for stage in result.stages:
        row = accuracy_row(stage.broken / len(labels), len(labels), estimator=stage.name, **columns)
        note = f"{stage.broken} of {stage.attacked} images that the previous attacks left unbroken"
        rows.append(dataclasses.replace(row, quantity="autoattack_broken", stderr=None, note=note))
    return rows


def sanity_checks(
    network: Network, variables: Variables, images: Images, labels: Labels, key: Key, *, norm: str, eps: float
) -> list[Record]:
    """Signs that attacks on this network may be unreliable (`mi_jax.attacks.check`), as records.

    `sanity_check_warnings` counts the findings that are warnings or errors; a `sanity_check` row per finding has the
    finding's name as `estimator` and its message as `note`.
    """
    found = attacks.check(network.logits, variables, images, labels, key, norm=norm, eps=eps).findings
    warnings = sum(finding.severity != "info" for finding in found)
    columns = {"image_set": "test", "inputs": "adversarial", "unit": "1", "n": len(labels)}
    rows = [Record(quantity="sanity_check_warnings", value=warnings, **columns)]
    for finding in found:
        note = f"{finding.severity}: {finding.message}"
        rows.append(Record(quantity="sanity_check", value=finding.value, estimator=finding.name, note=note, **columns))
    return rows


def stages(version: str) -> str | list[str]:
    """The argument `version` of `mi_jax.attacks.autoattack`: a name, or a list of names of attacks.

    Examples:
        >>> stages("Standard"), stages("APGD-CE, square")
        ('standard', ['apgd-ce', 'square'])
    """
    name = version.strip().lower()
    return name if name in VERSIONS else list(map(attacks.ATTACKS.resolve, split_commas(version)))


def autoattack_columns(norm: str, eps: float, version: str, budget: Budget) -> dict[str, Any]:
    """The columns of a record that identify AutoAttack as the attack behind adversarial inputs.

    `reduced` is true where the budget is below the default, or where an attack of `standard` is missing.

    Examples:
        >>> autoattack_columns("linf", 0.1, "standard", Budget(apgd_steps=200))
        {'attack': 'autoattack-standard', 'norm': 'linf', 'eps': 0.1, 'reduced': False}
        >>> autoattack_columns("l2", 0.5, "apgd-t,square", Budget())
        {'attack': 'autoattack-custom', 'norm': 'l2', 'eps': 0.5, 'reduced': True}
    """
    chosen, names = stages(version), _names(version)
    usual = _values(version, names, _DEFAULT, norm)
    changed = _changed(version, names, budget, norm)
    missing = chosen != "rand" and not set(names).issuperset(VERSIONS["standard"])
    return {
        "attack": f"autoattack-{chosen if isinstance(chosen, str) else 'custom'}",
        "norm": norm,
        "eps": eps,
        "reduced": missing or any(value < usual[field] for field, value in changed.items()),
    }


def budget_in_words(version: str, budget: Budget, norm: str = "linf") -> str | None:
    """Description of what differs from the default version and budget; None where nothing does.

    Examples:
        >>> budget_in_words("plus", Budget(fab_steps=200, targets=3))
        'fab steps 200, targets 3'
        >>> budget_in_words("apgd-t,square", Budget())
        'apgd-t, square'
    """
    names = _names(version)
    changed = _changed(version, names, budget, norm)
    parts = [
        *(names if not isinstance(stages(version), str) else ()),
        *(f"{k.replace('_', ' ')} {v}" for k, v in changed.items()),
    ]
    return ", ".join(parts) or None


def _names(version: str) -> Sequence[str]:
    chosen = stages(version)
    return VERSIONS[chosen] if isinstance(chosen, str) else chosen


def _changed(version: str, names: Sequence[str], budget: Budget, norm: str) -> dict[str, int]:
    """The fields of the budget that differ from the usual values, in the order of `Budget`."""
    usual = _values(version, names, _DEFAULT, norm)
    return {field: value for field, value in _values(version, names, budget, norm).items() if value != usual[field]}


def _values(version: str, names: Sequence[str], given: Budget, norm: str) -> dict[str, int]:
    """Each field of a budget that the named attacks use, as they use it; `eot_draws` only for the version `rand`."""
    chosen = stages(version)
    values: dict[str, int] = {}
    for attack in map(attacks.ATTACKS.__getitem__, names):
        budget = given.of(chosen, attack, norm)
        for field in attack.budget_fields.values():
            values[field] = max(values.get(field, 0), getattr(budget, field))
    if chosen != "rand":
        values.pop("eot_draws", None)
    return values
