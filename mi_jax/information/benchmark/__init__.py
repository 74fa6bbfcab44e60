"""Benchmark of the estimators of information: errors on tasks of known information, and coverage of intervals."""

from mi_jax.information.benchmark.coverage import CoveragePlan, measure_coverage
from mi_jax.information.benchmark.figure import draw_coverage, draw_grid, draw_tasks
from mi_jax.information.benchmark.run import FULL, BenchmarkConfig, run
from mi_jax.information.benchmark.scores import ScoresPlan, known_tasks, score, summary
from mi_jax.information.benchmark.trust import trust, trust_page

__all__ = [
    "FULL",
    "BenchmarkConfig",
    "CoveragePlan",
    "ScoresPlan",
    "draw_coverage",
    "draw_grid",
    "draw_tasks",
    "known_tasks",
    "measure_coverage",
    "run",
    "score",
    "summary",
    "trust",
    "trust_page",
]
