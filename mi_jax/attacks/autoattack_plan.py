"""Which attacks a version of AutoAttack runs, in which order and with how many steps."""

import dataclasses
from collections.abc import Sequence

from mi_jax import checks
from mi_jax.attacks.apgd import APGD
from mi_jax.attacks.attack import ATTACKS, Attack
from mi_jax.attacks.engine.input_checks import check_distance
from mi_jax.attacks.threat_model import check_norm, default_step_size
from mi_jax.errors import InputError

VERSIONS = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}


@dataclasses.dataclass(frozen=True)
class Budget:
    """Steps and queries of the attacks of AutoAttack; the defaults are those of Croce and Hein (2020).

    Smaller numbers make a faster but weaker attack: mention them wherever the robust accuracy is reported.

    Attributes:
        apgd_steps: gradient steps of APGD.
        fab_steps: iterations of FAB.
        square_queries: number of queries of Square.
        targets: target classes of the targeted attacks, or all wrong classes if there are fewer; of APGD-T in L1 at
            most 5, as it takes longer there.
        restarts: number of restarts of the untargeted attacks; None for 1, and 5 in `plus` and for APGD in L1.
        eot_draws: draws of the noise of a random model over which each gradient is averaged in `rand`.

    Raises:
        InputError: for counts below one.
    """

    apgd_steps: int = 100
    fab_steps: int = 100
    square_queries: int = 5000
    targets: int = 9
    restarts: int | None = None
    eot_draws: int = 20

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if getattr(self, field.name) is not None:
                checks.count(field.name, getattr(self, field.name))

    def of(self, version: str | Sequence[str | Attack], attack: Attack | None = None, norm: str = "linf") -> "Budget":
        """The budget of one attack of a version, with its restarts filled in, and draws of noise for `rand` only."""
        apgd_in_l1 = norm == "l1" and isinstance(attack, APGD)
        restarts = self.restarts or (5 if version == "plus" or apgd_in_l1 else 1)
        targets = min(self.targets, 5) if apgd_in_l1 else self.targets
        draws = self.eot_draws if version == "rand" else 1
        return dataclasses.replace(self, restarts=restarts, targets=targets, eot_draws=draws)


def plan(
    version: str | Sequence[str | Attack],
    norm: str,
    eps: float,
    budget: Budget,
    num_classes: int,
    image_shape: tuple[int, int, int],
) -> tuple[tuple[str, Attack], ...]:
    """The attacks that `autoattack` would run, in order, with their names; raises early what it would raise.

    Args:
        version, norm, eps, budget: as for `autoattack`.
        num_classes: number of classes of the model.
        image_shape: (h, w, c).

    Raises:
        InputError: for an unknown norm, version or name, an eps that is not positive, too few classes, images too small
            for the Square attack in L2 or L1, the loss `kl`, and `eot_draws` outside of `rand`.
    """
    norm = check_norm(norm)
    check_distance("eps", eps, norm, positive=True)
    if not isinstance(budget, Budget):
        raise InputError(f"budget must be mi_jax.attacks.Budget, not {type(budget).__name__}.")
    if not isinstance(version, Sequence):
        raise InputError(f"Invalid version {version!r}: expected one of {', '.join(VERSIONS)}, or a list of attacks.")
    version = version.lower() if isinstance(version, str) else version
    if isinstance(version, str) and version not in VERSIONS:
        raise InputError(
            f"Invalid version {version!r}: expected one of {', '.join(VERSIONS)}, or a list of {', '.join(ATTACKS)}."
        )
    parts = VERSIONS[version] if isinstance(version, str) else tuple(version)
    if not parts:
        raise InputError(f"The list of attacks is empty; choose from {', '.join(ATTACKS)}.")
    named = [_named(part, version, norm, eps, budget, num_classes) for part in parts]
    for name, config in named:
        _check_classes(name, config, num_classes)
        config.check_shape(image_shape)
        if config.loss == "kl":
            raise InputError(f"{name} does not support the loss 'kl' in AutoAttack; use 'ce', 'dlr' or 'cw'.")
        draws = getattr(config, "eot_draws", 1)
        if version != "rand" and draws > 1:
            raise InputError(
                f"{name} averages over {draws} draws of a random model's noise; that is version='rand' "
                f"with Budget(eot_draws={draws})."
            )
    return tuple(named)


def _named(part: str | Attack, version, norm: str, eps: float, budget: Budget, classes: int) -> tuple[str, Attack]:
    if isinstance(part, Attack):
        name, attack, values = type(part).__name__.lower(), part, {}
    else:
        name, attack = part, ATTACKS.get_or_explain(part)
        budget = budget.of(version, attack, norm)
        values = {setting: getattr(budget, field) for setting, field in attack.budget_fields.items()}
        if attack.targets:
            values["targets"] = min(values.get("targets", attack.targets), classes - 1)
    if attack.step_size == default_step_size(str(attack.norm), attack.eps):
        values["step_size"] = default_step_size(norm, eps)
    if hasattr(attack, "keep"):
        values["keep"] = "best"  # an evaluation counts every iterate
    return name, dataclasses.replace(attack, norm=norm, eps=eps, **values)


def _check_classes(name: str, config: Attack, classes: int) -> None:
    if classes < config.least_classes:
        few = "'apgd-ce', 'fab', 'square'" if classes < 3 else "'apgd-ce', 'apgd-dlr', 'fab', 'square'"
        raise InputError(
            f"{name} uses a DLR loss that needs at least {config.least_classes} classes, but the model has {classes}; "
            f"run version=[{few}] instead."
        )
    if config.targets > classes - 1:
        raise InputError(f"{name} has {config.targets} targets, but there are only {classes - 1} wrong classes.")
