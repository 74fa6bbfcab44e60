"""Display names shared by figures, tables and captions: trainings, attacks, noise rules and quantities."""

from collections.abc import Mapping
from typing import Any

NOISE_RULES = ("fixed", "trace", "scale_free")
"""The noise rules under which claims are evaluated, where they were measured.

`fixed` is one noise variance for all layers. `trace` scales with the layer's variance before training (a run's
default). `scale_free` is the trace rule on the measured activations themselves, so rescaling a layer changes nothing.
"""
NOISE_RULE_NAMES = {
    "fixed": "fixed noise rule",
    "trace": "trace noise rule",
    "scale_free": "scale-free noise rule",
    "layer": "layer-variance noise rule",
    "median": "median-distance noise rule",
}
MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
INPUTS = ("clean", "adversarial")
"""The kinds of input that figures compare, in their order."""
INFORMATION = {"i_tx": "I(X;T)", "i_ty": "I(T;Y)"}
LABEL_FREE_ATTACKS = ("pgd-prediction", "pgd-random-target")
"""Attacks that do not know the label: away from the network's own prediction, and towards a class drawn at random."""
LABEL_LEAK = (
    "I(T;Y) on adversarial inputs is not information about the clean image: an attack that knows the label y writes y "
    "into the image, where any network, even an untrained one, can read it."
)
_TRAININGS = {"fast": "Fast AT", "noise": "Gaussian noise"}
# Of a sweep; a matched network is NT at the epoch at which it is as accurate on clean images as AT.
_TRAININGS |= {"untrained": "untrained", "at-linf": "AT (Linf)", "at-l2": "AT (L2)"}
_TRAININGS |= {"matched-linf": "NT matched to AT (Linf)", "matched-l2": "NT matched to AT (L2)"}
_ATTACKS = {"pgd": "PGD", "fgsm": "FGSM", "autoattack-standard": "AutoAttack", "autoattack-plus": "AutoAttack+"}
_ATTACKS |= dict.fromkeys(LABEL_FREE_ATTACKS, "PGD")
_ATTACKS |= {"autoattack-rand": "AutoAttack (rand)", "autoattack-custom": "AutoAttack (custom)"}
_AIMS = {"pgd-prediction": "on the prediction", "pgd-random-target": "towards a random class"}


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "layer"), counted(3, "layer")
    ('1 layer', '3 layers')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def name_of(training: str) -> str:
    """How a training is written in text: `nt` is NT, `trades` is TRADES.

    Examples:
        >>> name_of("trades"), name_of("noise")
        ('TRADES', 'Gaussian noise')
    """
    return _TRAININGS.get(training, training.upper())


def attack_label(row: Any) -> str:
    """The attack of a record, a table row or any mapping with the attack columns; `adversarial` where it has none.

    Examples:
        >>> attack_label({"attack": "pgd", "norm": "linf", "eps": 8 / 255, "attack_steps": 20, "restarts": 5})
        'PGD-20 (5 restarts) Linf 8/255'
        >>> attack_label({"attack": "autoattack-standard", "norm": "l2", "eps": 0.5, "reduced": True})
        'AutoAttack L2 0.5 (reduced)'
        >>> attack_label({"attack": "pgd-random-target", "norm": "linf", "eps": 8 / 255, "attack_steps": 3})
        'PGD-3 Linf 8/255 towards a random class'
    """
    attack, norm, eps, steps, restarts, reduced = (
        _cell(row, name) for name in ("attack", "norm", "eps", "attack_steps", "restarts", "reduced")
    )
    if attack is None:
        return "adversarial"
    name: str = _ATTACKS.get(attack, str(attack).upper())
    if name == "PGD" and steps is not None:
        name += f"-{int(steps)}"
    if (restarts or 1) > 1:
        name += f" ({int(restarts)} restarts)"
    radius = None if eps is None else radius_label(norm, eps)
    parts = [name, norm.capitalize() if norm else None, radius, _AIMS.get(attack)]
    return " ".join(part for part in parts if part) + (" (reduced)" if reduced else "")


def attack_labels(rows: Any) -> str:
    """The different attacks of the rows of a table, separated by commas."""
    columns = ["attack", "norm", "eps", "attack_steps", "restarts", "reduced"]
    found = rows.loc[rows["attack"].notna(), columns].drop_duplicates().to_dict("records")
    return ", ".join(attack_label(row) for row in found)


def radius_label(norm: str | None, eps: float) -> str:
    """The radius of a threat model, in 255ths of the pixel range under Linf.

    Examples:
        >>> radius_label("linf", 8 / 255), radius_label("l2", 0.5)
        ('8/255', '0.5')
    """
    return f"{eps * 255:.4g}/255" if norm == "linf" else f"{eps:.4g}"


def _cell(row: Any, name: str) -> Any:
    """A value of a row; None where the table has NaN or NA."""
    value = row.get(name) if isinstance(row, Mapping) or hasattr(row, "get") else getattr(row, name, None)
    return None if value is None or value != value or str(value) == "<NA>" else value
