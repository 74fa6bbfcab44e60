"""Attacks on any JAX function `logits_fn(variables, x)` that gives logits for images in [0, 1].

No models, data or training here; the loop for adversarial training is `perturb` (or `ascend` for another loss).
"""

from mi_jax.attacks.pgd import PGD, ascend, fgsm, perturb, pgd
from mi_jax.attacks.results import AttackResult

__all__ = ["PGD", "AttackResult", "ascend", "fgsm", "perturb", "pgd"]
