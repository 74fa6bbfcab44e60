"""What AutoAttack consists of: which attacks each version runs, in which order and with how many steps.

Plans only; `autoattack` carries them out.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from mi_jax.attacks.apgd import APGD
from mi_jax.attacks.apgd import ATTACK_STEP as APGD_PROCEDURE
from mi_jax.attacks.engine.input_checks import check_count, check_eps
from mi_jax.attacks.engine.run import AttackStep
from mi_jax.attacks.fab import ATTACK_STEP as FAB_PROCEDURE
from mi_jax.attacks.fab import FAB
from mi_jax.attacks.pgd import PGD
from mi_jax.attacks.pgd_rows import ATTACK_STEP as PGD_PROCEDURE
from mi_jax.attacks.square import ATTACK_STEP as SQUARE_PROCEDURE
from mi_jax.attacks.square import Square
from mi_jax.attacks.square_proposals import tile_side
from mi_jax.attacks.threat_model import check_norm
from mi_jax.errors import InputError

VERSIONS = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
NAMES = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square")
ATTACK_STEPS = {
    PGD: PGD_PROCEDURE,
    APGD: APGD_PROCEDURE,
    FAB: FAB_PROCEDURE,
    Square: SQUARE_PROCEDURE,
}
Attack = PGD | APGD | FAB | Square


@dataclasses.dataclass(frozen=True)
class Budget:
    """How hard each attack of AutoAttack tries; the defaults are those of Croce and Hein (2020).

    Smaller numbers make a quick but weaker attack: say so wherever its robust accuracy is shown.
    Raises `InputError` for counts below one.

    Attributes:
        apgd_steps: gradient steps of APGD.
        fab_steps: iterations of FAB.
        square_queries: queries of Square.
        targets: target classes of the targeted attacks; at most all other classes are used.
        restarts: of the untargeted attacks; None for 1, and 5 in `plus`.
        eot_draws: of the noise of a random model, averaged for each gradient in `rand`.
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
                check_count(field.name, getattr(self, field.name), 1)


def plan(
    version: str | Sequence[Any],
    norm: str,
    eps: float,
    budget: Budget,
    num_classes: int,
    image_shape: tuple[int, int, int],
) -> tuple[tuple[str, Attack], ...]:
    """The named attacks of a version, or of a list of names and configs, in order, for images [h w c].

    Runs nothing, so that a caller may learn early what `autoattack` would refuse: `InputError` for an unknown norm,
    version or name, an eps that is not positive, too few classes, images too small for the L2 Square attack, the loss
    `kl`, and `eot_draws` outside of `rand`.
    """
    check_norm(norm)
    check_eps(eps, norm, least="positive")
    if isinstance(version, str) and version not in VERSIONS:
        raise InputError(
            f"Version {version!r} is unknown; use one of {', '.join(VERSIONS)}, or a list of {', '.join(NAMES)}."
        )
    parts = VERSIONS[version] if isinstance(version, str) else tuple(version)
    if not parts:
        raise InputError(f"The list of attacks is empty; choose from {', '.join(NAMES)}.")
    restarts = budget.restarts or (5 if version == "plus" else 1)
    draws = budget.eot_draws if version == "rand" else 1
    named = [_named(part, norm, eps, budget, num_classes, restarts, draws) for part in parts]
    for name, config in named:
        _check_classes(name, config, num_classes)
        if isinstance(config, Square) and norm == "l2":
            tile_side(*image_shape[:2])
        if getattr(config, "loss", "") == "kl":
            raise InputError(f"{name} needs a loss that ranks by label: use 'ce', 'dlr' or 'cw', not 'kl'.")
        if version != "rand" and isinstance(config, APGD) and config.eot_draws > 1:
            raise InputError(
                f"{name} averages over {config.eot_draws} draws of a random model's noise; that is version='rand' "
                f"with Budget(eot_draws={config.eot_draws})."
            )
    return tuple(named)


def _named(part: Any, norm: str, eps: float, budget: Budget, classes: int, restarts: int, draws: int):
    targets = min(budget.targets, classes - 1)
    same = {"norm": norm, "eps": eps}
    if isinstance(part, Attack):
        return type(part).__name__.lower(), dataclasses.replace(part, norm=norm, eps=eps)
    if part in ("apgd-ce", "apgd-dlr"):
        loss = part.removeprefix("apgd-")
        return part, APGD(**same, steps=budget.apgd_steps, loss=loss, restarts=restarts, eot_draws=draws)
    if part == "apgd-t":
        return part, APGD(**same, steps=budget.apgd_steps, loss="dlr", targets=targets)
    if part == "fab":
        return part, FAB(**same, steps=budget.fab_steps, restarts=restarts)
    if part == "fab-t":
        return part, FAB(**same, steps=budget.fab_steps, targets=targets)
    if part == "square":
        return part, Square(**same, queries=budget.square_queries)
    raise InputError(
        f"Attack {part!r} is unknown; use one of {', '.join(NAMES)}, or a config of PGD, APGD, FAB, Square."
    )


def _check_classes(name: str, config: Attack, classes: int) -> None:
    targets = getattr(config, "targets", 0)
    needed = {True: 4, False: 3}[targets > 0] if getattr(config, "loss", "") == "dlr" else 2
    if classes < needed:
        few = "'apgd-ce', 'fab', 'square'" if classes < 3 else "'apgd-ce', 'apgd-dlr', 'fab', 'square'"
        raise InputError(
            f"{name} uses a DLR loss that needs at least {needed} classes, but the model has {classes}; "
            f"run version=[{few}] instead."
        )
    if targets > classes - 1:
        raise InputError(f"{name} has {targets} targets, but there are only {classes - 1} wrong classes.")


def procedure_of(config: Attack) -> AttackStep:
    """The procedure that carries out a config."""
    return ATTACK_STEPS[type(config)]
