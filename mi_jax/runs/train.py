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
from mi_jax.runs.context import Setup
from mi_jax import records
from mi_jax.runs.checkpoints import Checkpoints, restore_together
from mi_jax.records.table import Record
from mi_jax.training import OBJECTIVES, Diverged, Interrupted, Moment, Watch, fit

_SAVE_SECONDS = 30.0


class Training:
    """One objective on some seeds, resumable after any kill."""

    def __init__(self, setup: Setup, training: str, seeds: tuple[int, ...]):
        self.setup = setup
        self.trainer = setup.trainer(training, seeds)
        self.stores = {seed: setup.store(training, seed) for seed in seeds}
        held_out = setup.held_out
        self.watch = Watch(self.trainer, held_out.images, held_out.labels, setup.config.attack) if held_out else None

    def run(self) -> None:
        """Trains to the end, from the newest checkpoint that is intact for every seed."""
        setup = self.setup
        state = parallel.replicated(setup.mesh, self.trainer.init(setup.images))
        setup.rehearsals.begin()
        with self._closing_stores():
            saved = self._restore(state)
            if saved is None:
                records.truncate(setup.directory.path, setup.directory.records_bytes)
                self._probe(state, 0)
                self._save(state, 0)
                saved = 0, state
            setup.rehearsals.wait_for(self.trainer.objective)
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
                self.setup.reporter.say(f"The newest state could not be saved ({failure}); the one before it is.")
            raise
        except BaseException:
            _close(self.stores.values())
            raise
        for failure in _close(self.stores.values()):
            raise failure

    def _fit(self, first_step: int, state: Any) -> None:
        setup, watch, last_save = self.setup, self.watch, time.monotonic()

        def after_chunk(state: Any, moment: Moment) -> None:
            nonlocal last_save
            setup.tell(self.trainer, moment)
            probe_due, improved = False, []
            if moment.ends_epoch:
                probe_due = round(moment.epoch) in setup.probe_epochs
                self._record_epoch(moment)
                self._probe(state, moment.step, information=probe_due)
                if watch:
                    improved = self._look(watch, state, moment)
            ends = watch is not None and watch.collapsed()
            if probe_due or improved or ends or moment.stopping or time.monotonic() - last_save > _SAVE_SECONDS:
                self._save(state, moment.step)
                last_save = time.monotonic()
            if watch:
                self._name_best(watch, improved)

        try:
            fit(
                self.trainer,
                state,
                setup.images,
                setup.labels,
                first_step=first_step,
                after_chunk=after_chunk,
                stop_asked=setup.stop_asked,
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
        setup, watch, stores = self.setup, self.watch, list(self.stores.values())
        found, damaged = restore_together(stores)
        step = found[0].step if found else None
        for reason in damaged:
            setup.reporter.say(f"{reason}; {'starting anew' if step is None else f'going on from update {step}'}.")
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
        records.truncate(setup.directory.path, max(found[0].metadata["records_bytes"], setup.directory.records_bytes))
        if watch:
            self._keep_best(watch, self.trainer.seeds)
            self._name_best(watch, self.trainer.seeds)
        return step, parallel.replicated(setup.mesh, self.trainer.join(states))

    def _save(self, state: Any, step: int) -> None:
        metadata = {
            "records_bytes": records.size(self.setup.directory.path),
            "epoch": step / self.trainer.steps_per_epoch,
            "network": configs.to_dict(self.setup.network),
        }
        for seed, member in self.trainer.members(state):
            history = {"held_out": self.watch.to_json(seed)} if self.watch else {}
            self.stores[seed].save(step, to_save(member), {**metadata, **history})

    # Early stopping

    def _look(self, watch: Watch, state: Any, moment: Moment) -> list[int]:
        """Measures and records held-out accuracy at the end of an epoch; the seeds that were never better."""
        watch.measure(state, moment)
        for seed in self.trainer.seeds:
            rows = early_stopping.rows_of_epoch(watch, seed)
            self.setup.append(self.trainer, moment.step, rows, seed=seed)
        self._keep_best(watch, watch.improved())
        return watch.improved()

    def _keep_best(self, watch: Watch, seeds: Sequence[int]) -> None:
        """Sees to it that the best steps of these seeds outlive the saves to come."""
        for seed in seeds:
            self.stores[seed].close()
            self.stores[seed] = self.setup.store(self.trainer.objective, seed, keep=watch.kept(seed))

    def _name_best(self, watch: Watch, seeds: Sequence[int]) -> None:
        for seed in seeds:
            directory = self.setup.directory.checkpoints(self.trainer.objective, seed)
            early_stopping.name_best(directory, self.stores[seed], watch, seed)

    def _conclude(self, watch: Watch) -> None:
        """Records which epoch was best, and why a training ended early if it did."""
        for seed in self.trainer.seeds:
            rows = early_stopping.rows_at_the_end(watch, self.trainer, seed)
            for row in rows[1:]:
                self.setup.reporter.say(f"{self.trainer.objective} seed {seed}: {row.note}.")
            self.setup.append(self.trainer, watch.histories[seed][-1].step, rows, seed=seed)

    # Measuring

    def _probe(self, state: Any, step: int, *, information: bool = True) -> None:
        for seed, member in self.trainer.members(state):
            rows = probe(self.setup, seed, self.trainer.evaluated(member), information=information)
            self.setup.append(self.trainer, step, rows, seed=seed)

    def _record_epoch(self, moment: Moment) -> None:
        """Cross-entropy and accuracy on the images trained on."""
        trainer = self.trainer
        inputs = OBJECTIVES[trainer.objective].inputs
        n = trainer.steps_per_epoch * trainer.batch_size
        common = {"inputs": inputs, "subset": "train", "n": n, "note": "mean over the epoch's updates"}
        rows = []
        for seed, loss, accuracy in zip(trainer.seeds, moment.cross_entropy, moment.accuracy, strict=True):
            rows.append(Record(quantity="loss", value=loss, unit="nats", seed=seed, **common))
            rows.append(Record(quantity="accuracy", value=accuracy, unit="1", seed=seed, **common))
        self.setup.append(trainer, moment.step, rows)


def _close(stores: Iterable[Checkpoints]) -> list[OSError]:
    """Closes all of the stores, and returns what failed."""
    failures = []
    for store in stores:
        try:
            store.close()
        except OSError as error:
            failures.append(error)
    return failures
