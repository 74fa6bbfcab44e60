"""The claims of Zhang et al. (2022) as statistics of a run's records, each with an interval and a verdict.

A claim is one module of this package: a function from records and a pair of trainings to a `Claim`, registered in
`CLAIMS`.
"""

from mi_jax.claims.registry import CLAIMS, evaluate
from mi_jax.claims.verdicts import Claim, ClaimStatistic, Verdict

__all__ = ["CLAIMS", "Claim", "ClaimStatistic", "Verdict", "evaluate"]
