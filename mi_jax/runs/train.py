"""The stage that trains: from the newest intact checkpoint to the end, measuring and saving on the way."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mi_jax import processes, records
from mi_jax.errors import InputError
from mi_jax.measure.accuracy import accuracy_row, attack_columns
from mi_jax.records.table import Record
from mi_jax.runs import json_codec
from mi_jax.runs.checkpoints import Checkpoints, restore_together, restored, to_save
from mi_jax.runs.context import RunContext
from mi_jax.runs.evaluate import measure
from mi_jax.runs.stages import join_seeds
from mi_jax.statistics.jackknife import BLOCKS
from mi_jax.training import OBJECTIVES, Diverged, EarlyStopping, Interrupted, Trainer, TrainingProgress, fit

_SAVE_SECONDS = 30.0


def train(context: RunContext, training: str, seeds: tuple[int, ...]) -> None:
    """Trains these seeds by one objective to the end, from the newest checkpoint that is intact for every seed."""
    _Training(context, training, seeds).run()


class _Training:
    """One objective on some seeds."""

    def __init__(self, context: RunContext, training: str, seeds: tuple[int, ...]):
        self.context = context
        self.trainer = context.trainer(training, seeds)
        self.stores = {seed: context.store(training, seed) for seed in seeds}
        out = context.held_out
        self.early_stopping = (
            EarlyStopping(self.trainer, out.images, out.labels, context.config.attack) if out else None
        )

    def run(self) -> None:
        """Trains to the end."""
        context = self.context
        context.robust_accuracy = None
        state = self.trainer.place(self.trainer.init(context.images))
        context.compiler.begin()
        with self._closing_stores():
            saved = self._restore(state)
            if saved is None:
                context.directory.drop_unfinished()
                compiling = context.compiler.is_busy_with(self.trainer.objective)
                context.report_stage(f"{self._name}: {'compiling (once)' if compiling else 'untrained network'}")
                self._measure_untrained(state)
                self._save(state, 0)
                saved = 0, state
            context.wait_for_compiled(self.trainer.objective, self._name)
            self._fit(*saved)
            if self.early_stopping:
                self._conclude(self.early_stopping)

    @property
    def _name(self) -> str:
        return f"{self.trainer.objective} seed {join_seeds(self.trainer.seeds)}"

    @contextmanager
    def _closing_stores(self) -> Iterator[None]:
        """Closes every store; raises what fails in that, unless another exception is being raised."""
        try:
            yield
        except Interrupted:
            for failure in _close(self.stores.values()):
                self.context.reporter.say(f"The newest state could not be saved ({failure}); the previous one is kept.")
            raise
        except BaseException:
            _close(self.stores.values())
            raise
        for failure in _close(self.stores.values()):
            raise failure

    def _fit(self, first_step: int, state: Any) -> None:
        context, stopping, last_save = self.context, self.early_stopping, time.monotonic()

        def after_chunk(state: Any, progress: TrainingProgress) -> None:
            nonlocal last_save
            context.report_progress(self.trainer, progress)
            due, improved = False, []
            if progress.ends_epoch:
                due = round(progress.epoch) in context.measured_epochs
                self._record_epoch(progress)
                self._measure(state, progress.step, information=due)
                if stopping:
                    improved = self._measure_held_out(stopping, state, progress)
            ends = stopping is not None and stopping.collapsed()
            long_ago = processes.agree(time.monotonic() - last_save > _SAVE_SECONDS)
            if due or improved or ends or progress.stopping or long_ago:
                self._save(state, progress.step)
                last_save = time.monotonic()
            if stopping:
                self._name_best(stopping, improved)

        try:
            fit(
                self.trainer,
                state,
                context.images,
                context.labels,
                first_step=first_step,
                after_chunk=after_chunk,
                stop_asked=context.stop_asked,
                enough=stopping.collapsed if stopping else lambda: False,
            )
        except Diverged as error:
            raise InputError(
                f"Training {self.trainer.objective} diverged: {error}; lower optimizer.learning_rate."
            ) from None

    # Saving

    def _restore(self, like: Any) -> tuple[int, Any] | None:
        """The newest step that is intact for every seed, with its state; the records are cut back to it.

        None where there is no such step; all others are then deleted.
        """
        context, stopping, stores = self.context, self.early_stopping, list(self.stores.values())
        found, damaged = restore_together(stores)
        step = found[0].step if found else None
        for reason in damaged:
            context.reporter.say(
                f"{reason}; {'training starts from the beginning' if step is None else f'resuming from update {step}'}."
            )
        for store in stores:
            store.discard_after(-1 if step is None else step)
        if step is None:
            return None
        states = []
        for (seed, member), store, saved in zip(self.trainer.members(like), stores, found, strict=True):
            states.append(restored(member, saved.state))
            if stopping:
                stopping.resume(seed, saved.metadata["held_out"], store.steps())
        # Rows of a training that is done again precede those of later stages: they stay, and the new ones count.
        length = max(found[0].metadata["records_bytes"], context.directory.records_bytes)
        processes.on_first(lambda: records.truncate(context.directory.path, length))
        if stopping:
            self._keep_best(stopping, self.trainer.seeds)
            self._name_best(stopping, self.trainer.seeds)
        return step, self.trainer.join(states)

    def _save(self, state: Any, step: int) -> None:
        metadata = {
            "records_bytes": processes.on_first(lambda: records.size(self.context.directory.path)),
            "epoch": step / self.trainer.steps_per_epoch,
            "network": json_codec.to_dict(self.context.network),
        }
        # Before the first save, so that a kill finds the stores at most one step apart: they have a common one.
        for store in self.stores.values():
            store.wait()
        for seed, member in self.trainer.members(state):
            history = {"held_out": self.early_stopping.to_json(seed)} if self.early_stopping else {}
            self.stores[seed].save(step, to_save(member), {**metadata, **history})

    # Early stopping

    def _measure_held_out(self, stopping: EarlyStopping, state: Any, progress: TrainingProgress) -> list[int]:
        """Measures and records held-out accuracy at the end of an epoch. Returns the seeds whose best epoch this is."""
        stopping.measure(state, progress)
        for seed in self.trainer.seeds:
            self.context.append(self.trainer, progress.step, _rows_of_epoch(stopping, seed), seed=seed)
        self._keep_best(stopping, stopping.improved())
        return stopping.improved()

    def _keep_best(self, stopping: EarlyStopping, seeds: Sequence[int]) -> None:
        """Protects the best steps of these seeds from the saves to come."""
        for seed in seeds:
            self.stores[seed].close()
            self.stores[seed] = self.context.store(self.trainer.objective, seed, keep=stopping.kept(seed))

    def _name_best(self, stopping: EarlyStopping, seeds: Sequence[int]) -> None:
        for seed in seeds:
            if stopping.histories[seed]:
                self.stores[seed].name_best(stopping.best(seed))

    def _conclude(self, stopping: EarlyStopping) -> None:
        """Records which epoch was best, and why a training ended early if it did."""
        for seed in self.trainer.seeds:
            rows = _final_rows(stopping, self.trainer, seed)
            for row in rows[1:]:
                self.context.reporter.say(f"{self.trainer.objective} seed {seed}: {row.note}.")
            self.context.append(self.trainer, stopping.histories[seed][-1].step, rows, seed=seed)

    # Measuring

    def _measure_untrained(self, state: Any) -> None:
        """Measures every seed once, as all its trainings start from the same network; the label leak of the first."""
        known, wanted = self.context.untrained_rows, self.context.config.information.label_free == "finished"
        for seed, member in self.trainer.members(state):
            if seed not in known:
                variables = self.trainer.evaluated(member)
                known[seed] = measure(self.context, seed, variables, label_free=wanted and seed == 0)
            self.context.append(self.trainer, 0, known[seed], seed=seed)

    def _measure(self, state: Any, step: int, *, information: bool = True) -> None:
        may_be_final = step == self.trainer.total_steps or self.early_stopping is not None
        blocks = BLOCKS if may_be_final else 0  # the claims need errors over images of finished networks alone
        for seed, member in self.trainer.members(state):
            variables = self.trainer.evaluated(member)
            rows = measure(self.context, seed, variables, information=information, blocks=blocks)
            self.context.append(self.trainer, step, rows, seed=seed)

    def _record_epoch(self, progress: TrainingProgress) -> None:
        """Cross-entropy and accuracy on the images trained on, means over the epoch's updates."""
        trainer = self.trainer
        n = trainer.steps_per_epoch * trainer.batch_size
        common: dict[str, Any] = {"inputs": OBJECTIVES[trainer.objective].inputs, "image_set": "train", "n": n}
        rows = []
        for seed, loss, accuracy in zip(trainer.seeds, progress.cross_entropy, progress.accuracy, strict=True):
            rows.append(Record(quantity="loss", value=loss, unit="nats", seed=seed, **common))
            rows.append(Record(quantity="accuracy", value=accuracy, unit="1", seed=seed, **common))
        self.context.append(trainer, progress.step, rows)


def _rows_of_epoch(stopping: EarlyStopping, seed: int) -> list[Record]:
    """Clean and robust held-out accuracy at the end of the newest epoch."""
    end, n = stopping.histories[seed][-1], stopping.count
    attack = attack_columns(stopping.attack)
    return [
        accuracy_row(end.clean, n, image_set="held_out", inputs="clean"),
        accuracy_row(end.robust, n, image_set="held_out", inputs="adversarial", **attack),
    ]


def _final_rows(stopping: EarlyStopping, trainer: Trainer, seed: int) -> list[Record]:
    """Which epoch was best, and which one the training was stopped after, if it was, and why."""
    best, last = stopping.best(seed), stopping.histories[seed][-1]
    shared: dict[str, Any] = {"unit": "1", "image_set": "held_out", "n": stopping.count}
    note = f"held-out accuracy there: clean {best.clean:.1%}, robust {best.robust:.1%}"
    rows = [Record(quantity="best_epoch", value=best.epoch, note=note, **shared)]
    if stopping.collapsed():
        note = (
            f"catastrophic overfitting: stopped after epoch {last.epoch} of {trainer.epochs}, where held-out robust "
            f"accuracy is {last.robust:.1%}; it was {best.robust:.1%} after epoch {best.epoch}, which is kept, "
            f"while accuracy in training rose from {best.trained:.1%} to {last.trained:.1%}"
        )
        rows.append(Record(quantity="stopped_epoch", value=last.epoch, note=note, **shared))
    return rows


def _close(stores: Iterable[Checkpoints]) -> list[OSError]:
    """Closes all of the stores, and returns what failed."""
    failures = []
    for store in stores:
        try:
            store.close()
        except OSError as error:
            failures.append(error)
    return failures
