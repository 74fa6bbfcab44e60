"""Attacks on any JAX function `logits_fn(variables, x)` that returns logits for images in [0, 1].

A new attack is one file: a registered subclass of `Attack` (see `momentum`). Training calls `perturb`, or `ascend` for
any other loss.
"""

from mi_jax.attacks.adaptive_radius import DDN, FMN, ddn, fmn
from mi_jax.attacks.apgd import APGD, apgd
from mi_jax.attacks.attack import ATTACKS, Attack, AttackResult, Outcome, Problem, reach_warnings, register
from mi_jax.attacks.autoattack import AutoAttackResult, Progress, autoattack
from mi_jax.attacks.autoattack_plan import Budget, plan
from mi_jax.attacks.engine.run import run
from mi_jax.attacks.engine.saved_evaluation import EvaluationState, StageReport
from mi_jax.attacks.fab import FAB, fab
from mi_jax.attacks.minimal_norm import MinimalNorm, RobustAccuracyCurve, minimal_norm, robust_accuracy_curve
from mi_jax.attacks.momentum import Momentum
from mi_jax.attacks.pgd import PGD, ascend, fgsm, perturb, pgd
from mi_jax.attacks.sanity_checks import CheckResult, Finding, check
from mi_jax.attacks.sparse_rs import SparseRS, sparse_rs
from mi_jax.attacks.square import Square, square
from mi_jax.attacks.threat_model import ThreatModel

__all__ = [
    "APGD",
    "ATTACKS",
    "DDN",
    "FAB",
    "FMN",
    "PGD",
    "Attack",
    "AttackResult",
    "AutoAttackResult",
    "Budget",
    "CheckResult",
    "EvaluationState",
    "Finding",
    "MinimalNorm",
    "Momentum",
    "Outcome",
    "Problem",
    "Progress",
    "RobustAccuracyCurve",
    "SparseRS",
    "Square",
    "StageReport",
    "ThreatModel",
    "apgd",
    "ascend",
    "autoattack",
    "check",
    "ddn",
    "fab",
    "fgsm",
    "fmn",
    "minimal_norm",
    "perturb",
    "pgd",
    "plan",
    "reach_warnings",
    "register",
    "robust_accuracy_curve",
    "run",
    "sparse_rs",
    "square",
]
