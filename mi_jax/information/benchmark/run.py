"""One validation from a plan to tables and figures in a directory; a second command goes on where the first stopped.

It decides no numbers: `scores` and `coverage` measure, `drawing` draws.
"""

import csv
import dataclasses
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from mi_jax.errors import InputError
from mi_jax.information.benchmark import coverage, figure, scores
from mi_jax.information.benchmark.coverage import CoveragePlan
from mi_jax.information.benchmark.scores import Plan
from mi_jax.plotting.style import RC

SCORES, SUMMARY, COVERAGE = "scores.csv", "summary.csv", "coverage.csv"
Table = Any
ReportProgress = Callable[[float, str], None]


@dataclasses.dataclass(frozen=True)
class Validation:
    """What is validated.

    Attributes:
        plan: estimators on tasks.
        coverage: intervals of Monte Carlo.
    """

    plan: Plan = Plan()
    coverage: CoveragePlan = CoveragePlan()


FULL = Validation(
    plan=Plan(sizes=(128, 512, 2048, 8192), dimensions=(1, 4, 16, 64, 256), repeats=100, slow_repeats=10),
    coverage=CoveragePlan(sizes=(32, 128, 512, 2048), dimensions=(1, 8, 64, 512), classes=(2, 10, 30), repeats=500),
)
"""The larger grid: hours on two cores."""


def run(validation: Validation, *, folder: Path, report_progress: ReportProgress = lambda *_: None) -> Table:
    """Measure what a directory lacks of a validation, draw its figures, and return the summary of the scores.

    Writes scores.csv, coverage.csv and summary.csv as it goes, and the figures at the end. Raises InputError when the
    directory cannot be written, or holds tables of other columns.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made a directory: {error.strerror}.") from error
    done = _done(folder / SCORES, scores.KEYS)
    found = scores.score(
        validation.plan, done=done, report_progress=lambda share, where: report_progress(0.7 * share, where)
    )
    _append(folder / SCORES, ([row] for row in found))
    done = _done(folder / COVERAGE, coverage.KEYS)
    rest = coverage.measure_coverage(
        validation.coverage, done=done, report_progress=lambda share, where: report_progress(0.7 + 0.3 * share, where)
    )
    _append(folder / COVERAGE, rest)
    report_progress(1.0, "figures")
    table = _read(folder / SCORES)
    short = scores.summary(table)
    short.to_csv(folder / SUMMARY, index=False)
    draw(folder)
    return short


def draw(folder: Path) -> list[Path]:
    """Draw the figures of a directory's tables anew and return their paths."""
    table, intervals = _read(folder / SCORES), pd.read_csv(folder / COVERAGE)
    with matplotlib.rc_context(RC):
        figures: dict[str, Figure] = {
            f"validation_{target}": figure.draw_grid(table, target) for target in table["target"].unique()
        }
        if (table["suite"] == "tasks").any():
            figures["validation_tasks"] = figure.draw_tasks(table)
        figures["monte_carlo_coverage"] = figure.draw_coverage(intervals)
        for name, drawn in figures.items():
            drawn.savefig(folder / f"{name}.png", dpi=160)
    return [folder / f"{name}.png" for name in figures]


def _append(path: Path, groups: Iterable[list[dict[str, Any]]]) -> None:
    """Add rows to a CSV file group by group, so that what was measured survives an interruption."""
    for rows in groups:
        begin = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            if begin:
                writer.writeheader()
            writer.writerows(rows)


def _read(path: Path) -> Any:
    """Scores with `held` as 1, 0 or missing."""
    table = pd.read_csv(path)
    table["held"] = [{"True": 1.0, "False": 0.0}.get(str(value), math.nan) for value in table["held"]]
    return table


def _done(path: Path, keys: tuple[str, ...]) -> set[tuple[Any, ...]]:
    if not path.exists():
        return set()
    table = pd.read_csv(path)
    if missing := [key for key in keys if key not in table]:
        raise InputError(f"{path} has no column {missing[0]!r}: another version wrote it; choose a new directory.")
    return set(table[list(keys)].itertuples(index=False, name=None))
