"""Early stopping as a run directory shows it: rows of held-out accuracy, and the best step named beside the others.

What is best, and when to stop, is decided in `training.held_out`.
"""

import dataclasses
from pathlib import Path
from typing import Any

from mi_jax.runs.checkpoints import Checkpoints
from mi_jax.records.table import Record
from mi_jax.runs.directory import read_json, write_json
from mi_jax.measure.accuracy import accuracy_row, attack_columns
from mi_jax.training import Trainer, EarlyStopping

_BEST = "best.json"


def rows_of_epoch(watch: EarlyStopping, seed: int) -> list[Record]:
    """Clean and robust held-out accuracy at the end of the newest epoch."""
    end = watch.histories[seed][-1]
    return [
        accuracy_row(end.clean, watch.count, image_set="held_out", inputs="clean"),
        accuracy_row(end.robust, watch.count, image_set="held_out", inputs="adversarial", **attack_columns(watch.attack)),
    ]


def rows_at_the_end(watch: EarlyStopping, trainer: Trainer, seed: int) -> list[Record]:
    """Which epoch was best, and which one the training was stopped after, if it was, and why."""
    best, last = watch.best(seed), watch.histories[seed][-1]
    shared: dict[str, Any] = {"unit": "1", "image_set": "held_out", "n": watch.count}
    told = f"held-out accuracy there: clean {best.clean:.1%}, robust {best.robust:.1%}"
    rows = [Record(quantity="best_epoch", value=best.epoch, note=told, **shared)]
    if watch.collapsed():
        told = (
            f"catastrophic overfitting: stopped after epoch {last.epoch} of {trainer.epochs}, where held-out robust "
            f"accuracy is {last.robust:.1%}; it was {best.robust:.1%} after epoch {best.epoch}, which is kept, "
            f"while accuracy in training rose from {best.trained:.1%} to {last.trained:.1%}"
        )
        rows.append(Record(quantity="stopped_epoch", value=last.epoch, note=told, **shared))
    return rows


def name_best(directory: Path, store: Checkpoints, watch: EarlyStopping, seed: int) -> None:
    """Writes `best.json` into the directory of the steps, once the step it names is on disk."""
    if watch.histories[seed]:
        store.wait()
        write_json(directory / _BEST, dataclasses.asdict(watch.best(seed)))


def best_step(directory: Path) -> int:
    """The step that `best.json` names. Raises `InputError` where there is none."""
    return read_json(directory / _BEST)["step"]

