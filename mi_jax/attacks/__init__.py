"""Attacks on any JAX function `logits_fn(variables, x)` that gives logits for images in [0, 1].

No models, data or training here; the loop for adversarial training is `perturb` (or `ascend` for another loss).
"""

from mi_jax.attacks.apgd import APGD, apgd
from mi_jax.attacks.autoattack import AutoAttackResult, Progress, autoattack
from mi_jax.attacks.autoattack_plan import NAMES, Budget, plan
from mi_jax.attacks.engine.saved_evaluation import EvaluationState, StageReport
from mi_jax.attacks.fab import FAB, fab
from mi_jax.attacks.pgd import PGD, ascend, fgsm, perturb, pgd
from mi_jax.attacks.results import AttackResult
from mi_jax.attacks.sanity_checks import CheckResult, Finding, check
from mi_jax.attacks.square import Square, square

__all__ = [
    "APGD",
    "FAB",
    "NAMES",
    "PGD",
    "AttackResult",
    "AutoAttackResult",
    "Budget",
    "CheckResult",
    "EvaluationState",
    "Finding",
    "Progress",
    "Square",
    "StageReport",
    "apgd",
    "ascend",
    "autoattack",
    "check",
    "fab",
    "fgsm",
    "perturb",
    "pgd",
    "plan",
    "square",
]
