"""The registry of claims, and their evaluation for one pair of trainings."""

from collections.abc import Callable

from mi_jax.claims.paired import Pair
from mi_jax.claims.verdicts import Claim
from mi_jax.records.run_records import RunRecords
from mi_jax.registry import Registry

CLAIMS: Registry[Callable[[RunRecords, Pair], Claim]] = Registry("claim", package="mi_jax.claims")
"""Every claim by name: a function of a run's records and the names of the baseline and the compared training."""


def evaluate(run_records: RunRecords, *, baseline: str = "nt", treated: str = "at") -> tuple[Claim, ...]:
    """Evaluates every claim for one pair of trainings.

    A statistic whose records are missing, or that has fewer than two paired seeds, is undecided and says why.

    Args:
        run_records: the records of a run.
        baseline: the training to compare with.
        treated: the training that the claims are about.

    Returns:
        The claims in the order of their numbers.
    """
    return tuple(sorted((test(run_records, (baseline, treated)) for test in CLAIMS.values()), key=lambda c: c.number))
