"""The unit that trains: from the newest intact checkpoint to the end, measuring and saving on the way."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mi_jax.runs import json_codec as configs
from mi_jax import parallel
from mi_jax.errors import InputError
from mi_jax.runs import early_stopping
from mi_jax.runs.measure import probe
from mi_jax.runs.checkpoint_format import restored, to_save
from mi_jax.runs.context import RunContext
from mi_jax import records
from mi_jax.runs.checkpoints import Checkpoints, restore_together
from mi_jax.records.table import Record
from mi_jax.training import OBJECTIVES, Diverged, Interrupted, TrainingProgress, EarlyStopping, fit

_SAVE_SECONDS = 30.0


class Training:
    """One objective on some seeds, resumable after any kill."""

    def __init__(self, context: RunContext, training: str, seeds: tuple[int, ...]):
        self.context = context
        self.trainer = context.trainer(training, seeds)
        self.stores = {seed: context.store(training, seed) for seed in seeds}
        held_out = context.held_out
        self.watch = EarlyStopping(self.trainer, held_out.images, held_out.labels, context.config.attack) if held_out else None

    def run(self) -> None:
        """Trains to the end, from the newest checkpoint that is intact for every seed."""
        context = self.context
        state = parallel.replicated(context.mesh, self.trainer.init(context.images))
        context.compiler.begin()
        with self._closing_stores():
            saved = self._restore(state)
            if saved is None:
                records.truncate(context.directory.path, context.directory.records_bytes)
                self._probe(state, 0)
                self._save(state, 0)
                saved = 0, state
            context.compiler.wait_for(self.trainer.objective)
            self._fit(*saved)
            if self.watch:
                self._conclude(self.watch)

    @contextmanager
    def _closing_stores(self) -> Iterator[None]:
        """Closes every store; what fails in that is raised, unless something else is on its way."""
        try:
            yield
        except Interrupted:
            for failure in _close(self.stores.values()):
                self.context.reporter.say(f"The newest state could not be saved ({failure}); the one before it is.")
            raise
        except BaseException:
            _close(self.stores.values())
            raise
        for failure in _close(self.stores.values()):
            raise failure

    def _fit(self, first_step: int, state: Any) -> None:
        context, watch, last_save = self.context, self.watch, time.monotonic()

        def after_chunk(state: Any, progress: TrainingProgress) -> None:
            nonlocal last_save
            context.report_progress(self.trainer, progress)
            probe_due, improved = False, []
            if progress.ends_epoch:
                probe_due = round(progress.epoch) in context.probe_epochs
                self._record_epoch(progress)
                self._probe(state, progress.step, information=probe_due)
                if watch:
                    improved = self._look(watch, state, progress)
            ends = watch is not None and watch.collapsed()
            if probe_due or improved or ends or progress.stopping or time.monotonic() - last_save > _SAVE_SECONDS:
                self._save(state, progress.step)
                last_save = time.monotonic()
            if watch:
                self._name_best(watch, improved)

        try:
            fit(
                self.trainer,
                state,
                context.images,
                context.labels,
                first_step=first_step,
                after_chunk=after_chunk,
                stop_asked=context.stop_asked,
                enough=watch.collapsed if watch else lambda: False,
            )
        except Diverged as error:
            raise InputError(
                f"Training {self.trainer.objective} diverged: {error}; lower --optimizer.learning-rate."
            ) from None

    # Saving

    def _restore(self, like: Any) -> tuple[int, Any] | None:
        """The newest step that is intact for every seed, with its state; the records are cut back to it.

        None where there is no such step: nothing is left of the others then.
        """
        context, watch, stores = self.context, self.watch, list(self.stores.values())
        found, damaged = restore_together(stores)
        step = found[0].step if found else None
        for reason in damaged:
            context.reporter.say(f"{reason}; {'starting anew' if step is None else f'going on from update {step}'}.")
        for store in stores:
            store.discard_after(-1 if step is None else step)
        if step is None:
            return None
        states = []
        for (seed, member), store, saved in zip(self.trainer.members(like), stores, found, strict=True):
            states.append(restored(member, saved.state))
            if watch:
                watch.resume(seed, saved.metadata["held_out"], store.steps())
        # Rows of a training that is done again lie before those of later units: they stay, and the new ones count.
        records.truncate(context.directory.path, max(found[0].metadata["records_bytes"], context.directory.records_bytes))
        if watch:
            self._keep_best(watch, self.trainer.seeds)
            self._name_best(watch, self.trainer.seeds)
        return step, parallel.replicated(context.mesh, self.trainer.join(states))

    def _save(self, state: Any, step: int) -> None:
        metadata = {
            "records_bytes": records.size(self.context.directory.path),
            "epoch": step / self.trainer.steps_per_epoch,
            "network": configs.to_dict(self.context.network),
        }
        for seed, member in self.trainer.members(state):
            history = {"held_out": self.watch.to_json(seed)} if self.watch else {}
            self.stores[seed].save(step, to_save(member), {**metadata, **history})

    # Early stopping

    def _look(self, watch: EarlyStopping, state: Any, progress: TrainingProgress) -> list[int]:
        """Measures and records held-out accuracy at the end of an epoch; the seeds that were never better."""
        watch.measure(state, progress)
        for seed in self.trainer.seeds:
            rows = early_stopping.rows_of_epoch(watch, seed)
            self.context.append(self.trainer, progress.step, rows, seed=seed)
        self._keep_best(watch, watch.improved())
        return watch.improved()

    def _keep_best(self, watch: EarlyStopping, seeds: Sequence[int]) -> None:
        """Sees to it that the best steps of these seeds outlive the saves to come."""
        for seed in seeds:
            self.stores[seed].close()
            self.stores[seed] = self.context.store(self.trainer.objective, seed, keep=watch.kept(seed))

    def _name_best(self, watch: EarlyStopping, seeds: Sequence[int]) -> None:
        for seed in seeds:
            directory = self.context.directory.checkpoints(self.trainer.objective, seed)
            early_stopping.name_best(directory, self.stores[seed], watch, seed)

    def _conclude(self, watch: EarlyStopping) -> None:
        """Records which epoch was best, and why a training ended early if it did."""
        for seed in self.trainer.seeds:
            rows = early_stopping.rows_at_the_end(watch, self.trainer, seed)
            for row in rows[1:]:
                self.context.reporter.say(f"{self.trainer.objective} seed {seed}: {row.note}.")
            self.context.append(self.trainer, watch.histories[seed][-1].step, rows, seed=seed)

    # Measuring

    def _probe(self, state: Any, step: int, *, information: bool = True) -> None:
        for seed, member in self.trainer.members(state):
            rows = probe(self.context, seed, self.trainer.evaluated(member), information=information)
            self.context.append(self.trainer, step, rows, seed=seed)

    def _record_epoch(self, progress: TrainingProgress) -> None:
        """Cross-entropy and accuracy on the images trained on."""
        trainer = self.trainer
        inputs = OBJECTIVES[trainer.objective].inputs
        n = trainer.steps_per_epoch * trainer.batch_size
        common = {"inputs": inputs, "image_set": "train", "n": n, "note": "mean over the epoch's updates"}
        rows = []
        for seed, loss, accuracy in zip(trainer.seeds, progress.cross_entropy, progress.accuracy, strict=True):
            rows.append(Record(quantity="loss", value=loss, unit="nats", seed=seed, **common))
            rows.append(Record(quantity="accuracy", value=accuracy, unit="1", seed=seed, **common))
        self.context.append(trainer, progress.step, rows)


def _close(stores: Iterable[Checkpoints]) -> list[OSError]:
    """Closes all of the stores, and returns what failed."""
    failures = []
    for store in stores:
        try:
            store.close()
        except OSError as error:
            failures.append(error)
    return failures
