"""Other estimates for each layer: unbiased values under every noise rule, and a panel that uses no noise."""

from mi_jax.studies.estimators.figure import FIGURES
from mi_jax.studies.estimators.study import measure
from mi_jax.studies.registry import Study, register

STUDY = register(
    Study(
        "estimators",
        title="Further estimators: Monte Carlo values under every noise rule, and estimators without noise",
        measure=measure,
        figures=FIGURES,
    )
)
