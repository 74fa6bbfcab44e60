"""How good the estimators of information are: errors on tasks of known information, and coverage of intervals.

It judges estimators on sampled tasks; no trained network is measured here.
"""

from mi_jax.information.benchmark.coverage import CoveragePlan, measure_coverage
from mi_jax.information.benchmark.figure import draw_coverage, draw_grid, draw_tasks
from mi_jax.information.benchmark.run import Validation, run
from mi_jax.information.benchmark.scores import Plan, known_tasks, score, summary

__all__ = [
    "CoveragePlan",
    "Plan",
    "Validation",
    "draw_coverage",
    "draw_grid",
    "draw_tasks",
    "known_tasks",
    "measure_coverage",
    "run",
    "score",
    "summary",
]
