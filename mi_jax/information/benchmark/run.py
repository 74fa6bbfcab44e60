"""The estimator benchmark as a resumable job in a directory: tables of scores and coverage, and their figures."""

import csv
import dataclasses
import io
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from mi_jax.errors import InputError
from mi_jax.files import replacing, write_text
from mi_jax.information.benchmark import coverage, figure, scores
from mi_jax.information.benchmark.coverage import CoveragePlan
from mi_jax.information.benchmark.scores import ScoresPlan
from mi_jax.information.benchmark.trust import trust, trust_page
from mi_jax.plotting.style import RC
from mi_jax.runs.opening import open_run
from mi_jax.training import Interrupted

SCORES, SUMMARY, COVERAGE, TRUST = "scores.csv", "summary.csv", "coverage.csv", "trust.md"
Table = Any
ReportProgress = Callable[[float, str], None]


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig:
    """What the benchmark measures.

    Attributes:
        scores: errors of all estimators on tasks of known information.
        coverage: coverage of the confidence intervals of Monte Carlo.
    """

    scores: ScoresPlan = ScoresPlan()
    coverage: CoveragePlan = CoveragePlan()


FULL = BenchmarkConfig(
    scores=ScoresPlan(sizes=(128, 512, 2048, 8192), dimensions=(1, 4, 16, 64, 256), repeats=100, slow_repeats=10),
    coverage=CoveragePlan(sizes=(32, 128, 512, 2048), dimensions=(1, 8, 64, 512), classes=(2, 10, 30), repeats=500),
)
"""The larger grid, which takes hours on two cores."""


def run(
    config: BenchmarkConfig,
    *,
    folder: Path,
    report_progress: ReportProgress = lambda *_: None,
    stop_asked: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda _: None,
    command: str = "",
) -> Table:
    """Run the benchmark in a directory, or the rest of it where the directory holds a part already.

    Adds rows to scores.csv and coverage.csv as they are measured; writes summary.csv, the figures and trust.md, which
    says which estimator to trust where, at the end.

    Args:
        config: what to measure.
        folder: the directory; created if absent.
        report_progress: called with the completed fraction and a description.
        stop_asked: called after every group of rows; true stops the benchmark.
        say: called with messages for the user.
        command: the command line, for the provenance.

    Returns:
        The `summary` of the scores.

    Raises:
        InputError: when the directory cannot be written, or holds another benchmark or other files.
        Interrupted: when `stop_asked` returned true; the same call resumes.
    """
    with open_run(folder, config, say=say) as directory:
        directory.note_start(command=command, data_dir=None, say=say)
        done = _done(folder / SCORES, scores.KEYS, newest="unreliable")
        found = scores.score(
            config.scores, done=done, report_progress=lambda fraction, stage: report_progress(0.7 * fraction, stage)
        )
        _append(folder / SCORES, ([row] for row in found), stop_asked)
        done = _done(folder / COVERAGE, coverage.KEYS, newest="flagged")
        rest = coverage.measure_coverage(
            config.coverage,
            done=done,
            report_progress=lambda fraction, stage: report_progress(0.7 + 0.3 * fraction, stage),
        )
        _append(folder / COVERAGE, rest, stop_asked)
        report_progress(1.0, "figures")
        short = scores.summary(_read(folder / SCORES))
        write_text(folder / SUMMARY, short.to_csv(index=False))
        write_text(folder / TRUST, trust_page(trust(_read(folder / SCORES))))
        draw(folder)
        directory.note_end()
    return short


def draw(folder: Path) -> list[Path]:
    """Draw the figures of the tables in a directory and return their paths."""
    table, intervals = _read(folder / SCORES), pd.read_csv(folder / COVERAGE)
    with matplotlib.rc_context(RC):
        figures: dict[str, Figure] = {
            f"estimator_benchmark_{target}": figure.draw_grid(table, target) for target in table["target"].unique()
        }
        if (table["suite"] == "tasks").any():
            figures["estimator_benchmark_tasks"] = figure.draw_tasks(table)
        figures["monte_carlo_coverage"] = figure.draw_coverage(intervals)
        for name, drawn in figures.items():
            with replacing(folder / f"{name}.png", durable=False) as file:
                drawn.savefig(file, dpi=160)
    return [folder / f"{name}.png" for name in figures]


def _append(path: Path, groups: Iterable[list[dict[str, Any]]], stop_asked: Callable[[], bool]) -> None:
    """Append rows to a CSV file group by group, so that an interruption loses one group at most."""
    for rows in groups:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, rows[0])
        if not path.exists():
            writer.writeheader()
        writer.writerows(rows)
        with path.open("a", newline="", encoding="utf-8") as file:
            file.write(text.getvalue())
            file.flush()
            os.fsync(file.fileno())
        if stop_asked():
            raise Interrupted


def _read(path: Path) -> Any:
    """Read a table of scores, with `held` as 1, 0 or NaN."""
    table = pd.read_csv(path)
    table["held"] = [{"True": 1.0, "False": 0.0}.get(str(value), math.nan) for value in table["held"]]
    return table


def _done(path: Path, keys: tuple[str, ...], *, newest: str) -> set[tuple[Any, ...]]:
    """Return the keys of the rows in a table, and remove an incomplete last line from it.

    `newest` is the column that tables of earlier versions lack.
    """
    if not path.exists():
        return set()
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if not whole:
        path.unlink()
        return set()
    if whole != content:
        with replacing(path) as file:
            file.write(whole)
    try:
        table = pd.read_csv(path)
    except ValueError as error:  # no text, no rows, or rows of different lengths
        raise InputError(f"{path} is damaged ({str(error).strip()}); restore it, or choose a new directory.") from error
    if missing := [key for key in (*keys, newest) if key not in table]:
        raise InputError(f"{path} has no column {missing[0]!r}, as another version wrote it; choose a new directory.")
    return set(table[list(keys)].itertuples(index=False, name=None))
