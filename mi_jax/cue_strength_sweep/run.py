"""Does adversarial training prefer shape, or the robust cue? Networks trained over a grid of cue margins.

A sweep is a list of cells, each one pair of margins (`studies.cue_margins`); it goes on at the first that is not done.
The figure is drawn from the records alone.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax import models, records
from mi_jax.cue_strength_sweep.cell import Cell, Norm, Sweep, cell_sets, measure, pixels
from mi_jax.data import Augmentation, Split
from mi_jax.data.shapetex import SHAPES
from mi_jax.models import Network
from mi_jax.records.run_records import read
from mi_jax.records.table import Record
from mi_jax.report import figures
from mi_jax.runs import json_codec as configs
from mi_jax.runs import provenance
from mi_jax.runs.directory import RunDir, disk_errors_explained, open_run, read_json, write_json
from mi_jax.runs.progress import Reporter, Status
from mi_jax.training import Diverged, ObjectiveConfig, Optimizer, Trainer, TrainingProgress, evaluate, fit
from mi_jax.typing import Variables

__all__ = ["Cell", "Sweep", "draw", "measure_cell", "network_of", "run"]

_FIGURE = "margin_sweep"
_GROWTH = 1.25
"""Ratio of successive moments in the clean epochs."""
_GREY, _SPREAD = 0.5, 0.1
"""Every image is grey plus cues of at most a few tenths, which the networks meet in units of a tenth."""


def run(
    sweep: Sweep,
    *,
    run_dir: Path,
    overwrite: bool = False,
    command: str = "",
    reporter: Reporter,
    stop_asked: Callable[[], bool] = lambda: False,
) -> Path:
    """Trains and measures every cell that is not done yet, redraws the figure after each, and returns its path.

    Args:
        sweep: what to do.
        run_dir: where records and the figure are written.
        overwrite: start anew in a directory that holds a sweep.
        command: the command line, for the provenance.
        reporter: told how things stand.
        stop_asked: asked between compiled chunks; a cell that was cut off is done again.

    Raises:
        InputError: for a directory of another sweep or of something else, and whatever the disk refuses.
        Interrupted: when `stop_asked` said so; finished cells stay.
    """
    network = network_of(sweep)
    with disk_errors_explained(run_dir):
        directory = open_run(run_dir, configs.to_dict(sweep), overwrite=overwrite)
        try:
            _note(directory, command=command)
            cells = sweep.cells
            done = sum(directory.is_complete(cell.name) for cell in cells)
            reporter.start_from(done / len(cells))
            for number, cell in enumerate(cells):
                if directory.is_complete(cell.name):
                    continue
                records.truncate(run_dir, directory.records_bytes)
                report_progress = functools.partial(
                    _tell, reporter, f"cell {number + 1}/{len(cells)} {cell.name}", number, cells
                )
                found = list(measure_cell(sweep, cell, network, report_progress=report_progress, stop_asked=stop_asked))
                records.append(run_dir, found)
                directory.complete(cell.name)
                reporter.say(_summary(cell, found))
                draw(run_dir)
            _note(directory, ended=True)
            return draw(run_dir)
        finally:
            directory.close()


def network_of(sweep: Sweep) -> Network:
    """The network that is trained in every cell."""
    return models.create(
        sweep.arch, num_classes=len(SHAPES), input_shape=(32, 32, 3), width=sweep.width, mean=_GREY, std=_SPREAD
    )


def draw(run_dir: Path) -> Path:
    """Draws the summary figure from the records and returns its path."""
    run_records = read(run_dir)
    folder = run_dir / "figures"
    folder.mkdir(exist_ok=True)
    (spec,) = [spec for spec in figures.available(run_records) if spec.name == _FIGURE]
    return figures.save(spec, run_records, folder)


def measure_cell(
    sweep: Sweep,
    cell: Cell,
    network: Network,
    *,
    report_progress: Callable[..., None] = lambda *_, **__: None,
    stop_asked: Callable[[], bool] = lambda: False,
) -> Iterator[Record]:
    """Trains every training and seed of a cell, and gives the records of each with its controls.

    Trainings are `nt`, `noise`, `at-linf`, `at-l2`; controls `untrained`, and for each norm `matched-linf`, ...: the
    normally trained network at the moment when its clean accuracy was nearest to the adversarially trained one's.
    All trainings of a seed share its first `clean_epochs`.
    """
    train, sets = cell_sets(sweep, cell)
    images, labels = jnp.asarray(train.images), jnp.asarray(train.labels)
    history: dict[int, list[tuple[float, float, Variables]]] = {}
    begun: dict[tuple[int, ...], Any] = {}
    first = sweep.clean_epochs * (sweep.n_train // sweep.batch_size)
    count = len(sweep.trainings) * len(_populations(sweep))
    for i, ((name, objective, norm), seeds) in enumerate(itertools.product(sweep.trainings, _populations(sweep))):
        trainer = _trainer(sweep, network, objective, norm, seeds)
        keep = _Snapshots(trainer, sets["redundant"], wanted=name == "nt")

        def after(state: Any, progress: TrainingProgress, keep=keep, name=name, i=i) -> None:
            if progress.ends_epoch:
                keep(state, progress.epoch)
            report_progress(name, (i + progress.epoch / sweep.epochs * 0.7) / count, progress, sweep.epochs)

        if name == "nt":
            state = trainer.init(images)
            for seed, member in trainer.members(state):
                found = measure(sweep, network, member["variables"], sets, seed, ())
                yield from _named(found, cell, sweep, "untrained", seed, 0)
            begun[seeds] = _begin(trainer, state, images, labels, first, keep)
        state = jax.tree.map(jnp.copy, begun[seeds])  # training gives the memory of its state away
        try:
            state = fit(trainer, state, images, labels, first_step=first, after_chunk=after, stop_asked=stop_asked)
        except Diverged as error:
            where: dict[str, Any] = {"inputs": "clean", "image_set": "conflict", "note": str(error)}
            failed = [Record(quantity="shape_bias", value=None, ok=False, **where)]
            for seed in seeds:
                yield from _named(failed, cell, sweep, name, seed, sweep.epochs)
            continue
        history |= keep.history
        for seed, member in trainer.members(state):
            report_progress(f"{name} seed {seed}: strong attack", (i + 0.7) / count)
            norms = (norm,) if norm else sweep.norms
            found = measure(sweep, network, member["variables"], sets, seed, norms)
            yield from _named(found, cell, sweep, name, seed, sweep.epochs)
            if norm and history.get(seed):
                accuracy = next(r.value for r in found if r.quantity == "accuracy" and r.inputs == "clean")
                epoch, _, matched = min(history[seed], key=lambda progress: abs(progress[1] - (accuracy or 0.0)))
                found = measure(sweep, network, matched, sets, seed, ())
                yield from _named(found, cell, sweep, f"matched-{norm}", seed, epoch)


class _Snapshots:
    """The variables of normally trained networks on their way: epoch, clean accuracy, variables of each seed."""

    def __init__(self, trainer: Trainer, split: Split, *, wanted: bool):
        self.history: dict[int, list[tuple[float, float, Variables]]] = {}
        self._trainer, self._wanted = trainer, wanted
        self._images, self._labels = pixels(split), split.labels

    def __call__(self, state: Any, epoch: float) -> None:
        for seed, member in self._trainer.members(state) if self._wanted else ():
            variables = jax.device_get(member["variables"])
            accuracy = evaluate(self._trainer.network, variables, self._images, self._labels)[1]
            self.history.setdefault(seed, []).append((epoch, accuracy, variables))


def _begin(trainer: Trainer, state: Any, images: Any, labels: Any, first: int, keep: _Snapshots) -> Any:
    """The state after the first updates, trained in strides that grow.

    Accuracy rises fast there, so the ends of epochs are too few moments to match; the pauses of `fit` are more, but
    where they lie depends on the clock.
    """
    keep(state, 0.0)
    step, per_epoch = 0, trainer.steps_per_epoch
    while step < first:
        last = min(max(step + 1, int(_GROWTH * step)), (step // per_epoch + 1) * per_epoch)
        state = trainer.advance(state, images, labels, step, last)
        keep(state, last / per_epoch)
        step = last
    return state


def _named(found: list[Record], cell: Cell, sweep: Sweep, training: str, seed: int, epoch: int | float) -> list[Record]:
    during = epoch < sweep.epochs  # the controls: untrained, and matched in clean accuracy
    where = {"checkpoint": "epoch" if during else "last", "cell": cell.name, "arch": sweep.arch, "dataset": "shapetex"}
    return [replace(row, training=training, seed=seed, epoch=float(epoch), **where) for row in found]


def _trainer(sweep: Sweep, network: Network, objective: str, norm: Norm | None, seeds: tuple[int, ...]) -> Trainer:
    return Trainer(
        network=network,
        objective=objective,
        objective_config=ObjectiveConfig(attack=sweep.training_attack(norm or "linf"), noise=sweep.eps),
        optimizer=Optimizer(
            name="adam", learning_rate=sweep.learning_rate, weight_decay=1e-4, schedule="triangle", warmup=0.3
        ),
        augmentation=Augmentation(),
        epochs=sweep.epochs,
        batch_size=sweep.batch_size,
        examples=sweep.n_train,
        seeds=seeds,
    )


def _populations(sweep: Sweep) -> list[tuple[int, ...]]:
    everyone = tuple(range(sweep.seeds))
    together = sweep.population == "vmap" or (sweep.population == "auto" and jax.default_backend() != "cpu")
    return [everyone] if together else [(seed,) for seed in everyone]


def _tell(
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


def _note(directory: RunDir, *, command: str = "", ended: bool = False) -> None:
    path = directory.path / "provenance.json"
    if not path.exists():
        write_json(path, provenance.collect(command=command, data_dir=None))
    elif ended:
        write_json(path, {**read_json(path), "end": provenance.now()})
    else:
        old = read_json(path)
        write_json(path, {**old, "resumed": [*old["resumed"], provenance.now()]})
