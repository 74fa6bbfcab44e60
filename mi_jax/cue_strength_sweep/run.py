"""Networks trained over a grid of cue strengths: does adversarial training prefer shape, or the more robust cue?

A sweep is a resumable job with one stage per cell (`config.Cell`). The figure is drawn from the records only.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from mi_jax import records
from mi_jax.cue_strength_sweep.cell import measure_cell, network_of
from mi_jax.cue_strength_sweep.config import Cell, Sweep
from mi_jax.cue_strength_sweep.figure import FIGURE
from mi_jax.errors import InputError
from mi_jax.models import Network
from mi_jax.plotting import figures
from mi_jax.records.run_records import read
from mi_jax.records.table import Record
from mi_jax.runs import json_codec
from mi_jax.runs.directory import RunDir, begun_by_this_job
from mi_jax.runs.opening import differences, open_run
from mi_jax.runs.progress import Reporter, Status
from mi_jax.runs.run_files import check_records, completed_stages, saved_config
from mi_jax.training import TrainingProgress

__all__ = ["Cell", "Sweep", "draw", "measure_cell", "network_of", "run"]


def run(
    sweep: Sweep,
    *,
    run_dir: Path,
    cells_from: Sequence[Path] = (),
    overwrite: bool = False,
    command: str = "",
    reporter: Reporter,
    stop_asked: Callable[[], bool] = lambda: False,
) -> Path:
    """Trains and measures every cell that is not done yet, redraws the figure after each, and returns its path.

    Args:
        sweep: the grid and its sizes.
        run_dir: where records and the figure are written.
        cells_from: directories of sweeps that differ from this one only in their grid; cells that they have finished
            are taken from the first that has them.
        overwrite: deletes a sweep in the directory first, unless this very batch job began it, see `mi_jax.runs.run`.
        command: the command line, for the provenance.
        reporter: shows progress.
        stop_asked: called between compiled chunks; a cell that was interrupted is done again.

    Raises:
        InputError: for a directory of another sweep or of something else, here or in `cells_from`, and for errors of
            the file system.
        Interrupted: when `stop_asked` returned true; finished cells stay.
    """
    network = network_of(sweep)
    finished = _finished_cells(sweep, cells_from)
    overwrite = overwrite and not begun_by_this_job(run_dir)
    with open_run(run_dir, sweep, overwrite=overwrite, say=reporter.say) as directory:
        cells = sweep.cells
        done = [directory.is_complete(cell.name) for cell in cells]
        if all(done):
            reporter.say(f"{run_dir} holds this sweep, complete; overwrite it to run it again.")
            return draw(run_dir)
        directory.note_start(command=command, data_dir=None, say=reporter.say)
        reporter.start_from(sum(done) / len(cells))
        for number, cell in enumerate(cells):
            if done[number]:
                continue
            if cell.name in finished:
                work = functools.partial(_take_cell, *finished[cell.name], directory, reporter)
            else:
                work = functools.partial(_do_cell, sweep, cell, network, number, directory, reporter, stop_asked)
            directory.stage(cell.name, work)
            if FIGURE.needs(read(run_dir)):
                draw(run_dir)
        directory.note_end()
        return draw(run_dir)


def _do_cell(
    sweep: Sweep,
    cell: Cell,
    network: Network,
    number: int,
    directory: RunDir,
    reporter: Reporter,
    stop_asked: Callable[[], bool],
) -> None:
    cells = sweep.cells
    stage = f"cell {number + 1}/{len(cells)} {cell.name}"
    report_progress = functools.partial(_report_progress, reporter, stage, number, cells)
    found = list(measure_cell(sweep, cell, network, report_progress=report_progress, stop_asked=stop_asked))
    _write(directory, found)
    reporter.say(_summary(cell, found))


def _take_cell(place: Path, cell: pd.DataFrame, directory: RunDir, reporter: Reporter) -> None:
    columns = {field.name: field.name.rstrip("_") for field in dataclasses.fields(Record)}
    rows = cell.astype(object).where(cell.notna(), None)
    _write(directory, [Record(**{f: row[c] for f, c in columns.items()}) for row in rows.to_dict("records")])
    reporter.say(f"{rows['cell'].iloc[0]}: taken from {place}")


def _write(directory: RunDir, found: list[Record]) -> None:
    directory.drop_unfinished()
    records.append(directory.path, [replace(row, run=directory.name) for row in found])


def _finished_cells(sweep: Sweep, places: Sequence[Path]) -> dict[str, tuple[Path, pd.DataFrame]]:
    """Where each cell of the grid was finished before, and its records."""
    found: dict[str, tuple[Path, pd.DataFrame]] = {}
    for place in places:
        saved = json_codec.from_dict(Sweep, saved_config(place), where=str(place))
        same_grid = replace(saved, rho_shape=sweep.rho_shape, rho_texture=sweep.rho_texture, coarse=sweep.coarse)
        unlike = list(differences(json_codec.to_dict(same_grid), json_codec.to_dict(sweep)))
        if unlike:
            raise InputError(
                f"{place} holds cells with other settings ({'; '.join(unlike[:3])}); expected a sweep that differs "
                "from this one only in its grid."
            )
        completed = completed_stages(place)
        if completed is None:
            raise InputError(
                f"{place / 'progress.json'} is missing or damaged, so which cells are finished is not known; repeat "
                "the command of that sweep, or leave it out of cells_from."
            )
        done = set(completed)
        wanted = [cell.name for cell in sweep.cells if cell.name in done and cell.name not in found]
        check_records(place)
        rows = dict(tuple(records.load(place).groupby("cell"))) if wanted else {}
        lost = [name for name in wanted if name not in rows]
        if lost:
            raise InputError(
                f"{place} counts the cell {lost[0]} as finished, but holds no record of it; restore its records from a "
                "copy, or leave it out of cells_from."
            )
        found |= {name: (place, rows[name]) for name in wanted}
    return found


def draw(run_dir: Path) -> Path:
    """Draws the summary figure from the records and returns its path.

    Raises:
        InputError: when no training that could be compared reached its end.
    """
    found = read(run_dir)
    if not FIGURE.needs(found):
        raise InputError(
            f"{run_dir} has nothing to compare: every adversarial training of its cells diverged. Sweep again, into "
            "another directory, with a lower learning_rate."
        )
    folder = run_dir / "figures"
    folder.mkdir(exist_ok=True)
    return figures.save(FIGURE, found, folder)


def _report_progress(
    reporter: Reporter,
    cell: str,
    number: int,
    cells: tuple[Cell, ...],
    training: str,
    share: float,
    progress: TrainingProgress | None = None,
    epochs: int | None = None,
) -> None:
    status = Status(f"{cell}: {training}", (number + share) / len(cells))
    if progress is not None:
        status = replace(
            status,
            epoch=progress.epoch,
            epochs=epochs,
            loss=float(np.mean(progress.loss)),
            accuracy=float(np.mean(progress.accuracy)),
            images_per_second=progress.images / progress.seconds,
        )
    reporter.update(status)


def _summary(cell: Cell, found: list[Record]) -> str:
    """Mean shape bias of every training of a cell in one line."""
    biases: dict[str, list[float]] = {}
    for row in found:
        if (row.quantity, row.image_set, row.factor) == ("shape_bias", "conflict", None) and row.value is not None:
            biases.setdefault(row.training or "", []).append(row.value)
    words = ", ".join(f"{name} {np.mean(values):.2f}" for name, values in biases.items())
    return f"{cell.name}: shape bias {words}"
