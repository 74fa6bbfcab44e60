"""One run from configuration to report, resumable at any moment; the only writer of a run directory.

A run is a list of units (train these seeds, judge that network, write the report). The records of a unit that a kill
left unfinished are cut off at the byte where the newest checkpoint, or the last finished unit, stood.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax import config as configs
from mi_jax import data, early_stopping, models, parallel, provenance, report, studies
from mi_jax.errors import InputError
from mi_jax.progress import Reporter, Status
from mi_jax.report import examples
from mi_jax.run_config import RunConfig
from mi_jax.storage import records
from mi_jax.storage.checkpoints import Checkpoints
from mi_jax.storage.records import Record
from mi_jax.storage.run_dir import RunDir, disk_errors_explained, open_run, read_json, write_arrays, write_json
from mi_jax.studies.information_plane import Rulers, frozen_rulers, information_plane
from mi_jax.studies.robustness import adversarial_twins, describe, performance, robustness
from mi_jax.studies.sample import fixed_sample
from mi_jax.training import (
    OBJECTIVES,
    Diverged,
    Interrupted,
    Moment,
    Trainer,
    Watch,
    fit,
    held_out_attack,
    held_out_rows,
    predictions,
    set_apart,
)
from mi_jax.typing import Variables

_SAVE_SECONDS = 30.0
_EXAMPLES = 8
_VMAPPED_ON_ACCELERATORS = ("mlp", "lenet", "cnn", "wrn-10-1")


def run(
    config: RunConfig,
    *,
    run_dir: Path,
    data_dir: str | None = None,
    overwrite: bool = False,
    command: str = "",
    reporter: Reporter,
    stop_asked: Callable[[], bool] = lambda: False,
) -> Path:
    """Trains, measures, judges and reports; goes on where an earlier call on the same directory stopped.

    Args:
        config: what to do.
        run_dir: where everything is written.
        data_dir: where TFDS data sets are.
        overwrite: start anew in a directory that holds a run.
        command: the command line, for the provenance.
        reporter: told how things stand.
        stop_asked: asked between compiled chunks and between units.

    Returns:
        The path of the report.

    Raises:
        InputError: whatever a user can mend, before anything is written where that can be known before.
        Interrupted: when `stop_asked` said so; everything done so far is saved.
    """
    network, dataset = _prepare(config, data_dir)
    with disk_errors_explained(run_dir):
        directory = open_run(run_dir, configs.to_dict(config), overwrite=overwrite)
        try:
            if directory.is_complete("report"):
                reporter.say(f"{run_dir} holds this very run, finished; --overwrite runs it again.")
                return run_dir / "report.html"
            _note_start(directory, command=command, data_dir=data_dir)
            return _Run(config, network, dataset, directory, reporter, stop_asked).to_the_end()
        finally:
            directory.close()


def study(name: str, *, run_dir: Path, data_dir: str | None = None, samples: int = 500, reporter: Reporter) -> Path:
    """Runs one study on the final network of every training and seed of a finished run, and rebuilds its report.

    A study that was run before is run again; its old records are superseded by the new ones.

    Args:
        name: of the study.
        run_dir: of the run.
        data_dir: where TFDS data sets are.
        samples: test images the study looks at.
        reporter: told how things stand.

    Returns:
        The path of the report.

    Raises:
        InputError: when there is no such study, it does not apply to the data set, or the run is not finished.
    """
    chosen = studies.find(name)
    config = configs.from_dict(RunConfig, read_json(run_dir / "config.json"), where=str(run_dir / "config.json"))
    network, dataset = _prepare(config, data_dir)
    refusal = chosen.refusal(dataset)
    if refusal:
        raise InputError(f"The study {name} does not apply to {dataset.name}: {refusal}.")
    with disk_errors_explained(run_dir):
        directory = open_run(run_dir, configs.to_dict(config), overwrite=False)
        try:
            if not directory.is_complete("report"):
                raise InputError(f"{run_dir} is not finished; give the command that started it once more, then this.")
            records.truncate(run_dir, directory.records_bytes)
            _Run(config, network, dataset, directory, reporter, lambda: False).study(chosen, samples)
            directory.complete(f"study/{name}")
            return report.build(run_dir)
        finally:
            directory.close()


def _prepare(config: RunConfig, data_dir: str | None) -> tuple[models.Network, data.Dataset]:
    models.create(config.arch, num_classes=2, input_shape=(96, 96, 3), width=config.width)
    parallel.make_mesh(config.mesh)
    dataset = data.load(config.dataset, data_dir=data_dir, limit=config.limit)
    held_out_rows(dataset.train.labels, config.held_out)  # refuses a share that leaves nothing
    network = models.create(
        config.arch,
        num_classes=dataset.num_classes,
        input_shape=dataset.input_shape,
        width=config.width,
        dtype=config.dtype,
    )
    return network, dataset


def _note_start(directory: RunDir, *, command: str, data_dir: str | None) -> None:
    path = directory.path / "provenance.json"
    if path.exists():
        old = read_json(path)
        write_json(path, {**old, "resumed": [*old["resumed"], provenance.now()]})
    else:
        write_json(path, provenance.collect(command=command, data_dir=data_dir))


class _Run:
    """The state of one call of `run`."""

    def __init__(self, config, network, dataset, directory, reporter, stop_asked):
        self.config: RunConfig = config
        self.network: models.Network = network
        self.directory: RunDir = directory
        self.reporter: Reporter = reporter
        self.stop_asked: Callable[[], bool] = stop_asked
        self.name = directory.path.name
        self.mesh = parallel.make_mesh(config.mesh)
        train, self.held_out = set_apart(dataset.train, config.held_out)
        self.dataset: data.Dataset = dataclasses.replace(dataset, train=train)
        self.images = parallel.replicated(self.mesh, train.images)
        self.labels = parallel.replicated(self.mesh, train.labels)
        self.sample = fixed_sample(dataset.test.images, dataset.test.labels, config.probe.samples)
        self.probe_epochs = config.probe.schedule(config.epochs)
        self.rulers = functools.cache(self._rulers)
        self.robust_accuracy: float | None = None
        self.work_done, self.work = 0.0, float(sum(map(self._work, config.trainings)) * config.seeds)

    def to_the_end(self) -> Path:
        """Does every unit that is not done yet."""
        groups = self._groups()
        self.reporter.start_from(0.0)
        for training in self.config.trainings:
            for seeds in groups:
                self._unit(f"train/{training}/{_spell(seeds)}", functools.partial(self._train, training, seeds))
                self.work_done += self._work(training) * len(seeds)
        for training in self.config.trainings:
            for seed in range(self.config.seeds):
                self._unit(f"judge/{training}/{seed}", functools.partial(self._judge, training, seed))
        self._unit("examples", self._examples)
        self._unit("report", self._report)
        return self.directory.path / "report.html"

    def _unit(self, name: str, work: Callable[[], None]) -> None:
        if self.stop_asked():
            raise Interrupted
        if not self.directory.is_complete(name):
            work()
            self.directory.complete(name)

    # Training

    def _train(self, training: str, seeds: tuple[int, ...]) -> None:
        trainer = self._trainer(training, seeds)
        state = parallel.replicated(self.mesh, trainer.init(self.images))
        step, stores = 0, {seed: self._store(training, seed) for seed in seeds}
        watch = (
            Watch(trainer, self.held_out.images, self.held_out.labels, self.config.attack) if self.held_out else None
        )
        try:
            saved = self._restore(trainer, state, stores, watch)
            if saved is None:
                records.truncate(self.directory.path, self.directory.records_bytes)
                self._probe(trainer, state, 0)
                self._save(trainer, state, stores, watch, 0)
            else:
                step, state = saved
            self._fit(trainer, state, stores, watch, step)
            if watch:
                self._conclude(trainer, watch)
        finally:
            for store in stores.values():
                store.close()

    def _fit(
        self, trainer: Trainer, state: Any, stores: dict[int, Checkpoints], watch: Watch | None, first_step: int
    ) -> None:
        last_save = time.monotonic()

        def after_chunk(state: Any, moment: Moment) -> None:
            nonlocal last_save
            self._tell(trainer, moment)
            probe_due, improved = False, []
            if moment.ends_epoch:
                probe_due = round(moment.epoch) in self.probe_epochs
                self._append(trainer, moment.step, self._training_records(trainer, moment))
                self._probe(trainer, state, moment.step, information=probe_due)
                if watch:
                    improved = self._look(trainer, state, moment, stores, watch)
            ends = watch is not None and watch.collapsed()
            if probe_due or improved or ends or self.stop_asked() or time.monotonic() - last_save > _SAVE_SECONDS:
                self._save(trainer, state, stores, watch, moment.step)
                last_save = time.monotonic()
            if watch:
                self._name_best(trainer, stores, watch, improved)

        try:
            fit(
                trainer,
                state,
                self.images,
                self.labels,
                first_step=first_step,
                after_chunk=after_chunk,
                stop_asked=self.stop_asked,
                enough=watch.collapsed if watch else lambda: False,
            )
        except Diverged as error:
            raise InputError(
                f"Training {trainer.objective} diverged: {error}; lower --optimizer.learning-rate."
            ) from None

    def _restore(
        self, trainer: Trainer, like: Any, stores: dict[int, Checkpoints], watch: Watch | None
    ) -> tuple[int, Any] | None:
        """The newest step that is intact for every seed, with its state; the records are cut back to it."""
        newest = [store.restore() for store in stores.values()]
        if any(saved is None for saved in newest):
            return None
        step = min(saved.step for saved in newest if saved)
        states = []
        for (seed, member), store in zip(trainer.members(like), stores.values(), strict=True):
            saved = store.restore(step)
            assert saved is not None
            for reason in next(s for s in newest if s and s.step >= step).passed_over:
                self.reporter.say(f"seed {seed}: {reason}; going on from update {step}.")
            store.discard_after(step)
            states.append(_restored(member, saved.state))
            records.truncate(self.directory.path, saved.metadata["records_bytes"])
            if watch:
                watch.resume(seed, saved.metadata["held_out"], store.steps())
        if watch:
            self._keep_best(trainer, stores, watch, trainer.seeds)
            self._name_best(trainer, stores, watch, trainer.seeds)
        return step, parallel.replicated(self.mesh, trainer.join(states))

    def _save(
        self, trainer: Trainer, state: Any, stores: dict[int, Checkpoints], watch: Watch | None, step: int
    ) -> None:
        metadata = {
            "records_bytes": records.size(self.directory.path),
            "epoch": step / trainer.steps_per_epoch,
            "network": configs.to_dict(self.network),
        }
        for seed, member in trainer.members(state):
            history = {"held_out": watch.to_json(seed)} if watch else {}
            stores[seed].save(step, _to_save(member), {**metadata, **history})
        if self.stop_asked():
            for store in stores.values():
                store.wait()

    def _look(
        self, trainer: Trainer, state: Any, moment: Moment, stores: dict[int, Checkpoints], watch: Watch
    ) -> list[int]:
        """Measures and records held-out accuracy at the end of an epoch; the seeds that were never better."""
        watch.measure(state, moment)
        for seed in trainer.seeds:
            self._append(trainer, moment.step, early_stopping.rows_of_epoch(watch, seed), seed=seed)
        self._keep_best(trainer, stores, watch, watch.improved())
        return watch.improved()

    def _keep_best(self, trainer: Trainer, stores: dict[int, Checkpoints], watch: Watch, seeds: Sequence[int]) -> None:
        """Sees to it that the best steps of these seeds outlive the saves to come."""
        for seed in seeds:
            stores[seed].close()
            stores[seed] = self._store(trainer.objective, seed, keep=watch.kept(seed))

    def _name_best(self, trainer: Trainer, stores: dict[int, Checkpoints], watch: Watch, seeds: Sequence[int]) -> None:
        for seed in seeds:
            directory = self.directory.checkpoints(trainer.objective, seed)
            early_stopping.name_best(directory, stores[seed], watch, seed)

    def _conclude(self, trainer: Trainer, watch: Watch) -> None:
        """Records which epoch was best, and why a training ended early if it did."""
        for seed in trainer.seeds:
            rows = early_stopping.rows_at_the_end(watch, trainer, seed)
            for row in rows[1:]:
                self.reporter.say(f"{trainer.objective} seed {seed}: {row.note}.")
            self._append(trainer, watch.histories[seed][-1].step, rows, seed=seed)

    # Measuring

    def _probe(self, trainer: Trainer, state: Any, step: int, *, information: bool = True) -> None:
        images, labels = self.sample
        for seed, member in trainer.members(state):
            variables = trainer.evaluated(member)
            rows = performance(self.network, variables, images, labels, inputs="clean")
            if information:
                attack, probe = self.config.attack, self.config.probe
                twins = adversarial_twins(self.network, variables, images, labels, attack=attack)
                under_attack = performance(
                    self.network, variables, twins, labels, inputs="adversarial", note=describe(attack)
                )
                self.robust_accuracy = under_attack[-1].value
                rows += under_attack
                rows += information_plane(
                    self.network, variables, images, twins, labels, rulers=self.rulers(seed), config=probe
                )
            self._append(trainer, step, rows, seed=seed)

    def _rulers(self, seed: int) -> Rulers:
        trainer = self._trainer(self.config.trainings[0], (seed,))
        variables = trainer.init(self.images)["variables"]
        return frozen_rulers(self.network, variables, self.sample[0], config=self.config.probe)

    def _training_records(self, trainer: Trainer, moment: Moment) -> list[Record]:
        inputs = OBJECTIVES[trainer.objective].inputs
        n = trainer.steps_per_epoch * trainer.batch_size
        common = {"inputs": inputs, "subset": "train", "n": n, "note": "mean over the epoch's updates"}
        rows = []
        for seed, loss, accuracy in zip(trainer.seeds, moment.loss, moment.accuracy, strict=True):
            rows.append(Record(quantity="loss", value=loss, unit="nats", seed=seed, **common))
            rows.append(Record(quantity="accuracy", value=accuracy, unit="1", seed=seed, **common))
        return rows

    def _judge(self, training: str, seed: int) -> None:
        records.truncate(self.directory.path, self.directory.records_bytes)
        self.reporter.update(Status(f"{training} seed {seed}: strong attack", self._done()))
        trainer, variables, step = self._finished(training, seed)
        images, labels = fixed_sample(
            self.dataset.test.images, self.dataset.test.labels, self.config.evaluation.samples
        )
        key = jax.random.fold_in(jax.random.key(seed), 1)
        rows = robustness(self.network, variables, images, labels, key, attack=self.config.final_attack)
        self._append(trainer, step, rows, seed=seed)

    def study(self, chosen: studies.Study, samples: int) -> None:
        """Runs a study on the final network of every training and seed."""
        arrays: dict[str, np.ndarray] = {}
        for training in self.config.trainings:
            for seed in range(self.config.seeds):
                self.reporter.update(Status(f"{chosen.name}: {training} seed {seed}", self._done()))
                trainer, variables, step = self._finished(training, seed)
                subject = studies.Subject(
                    network=self.network,
                    variables=variables,
                    dataset=self.dataset,
                    attack=self.config.attack,
                    samples=samples,
                    key=jax.random.fold_in(jax.random.key(seed), 2),
                )
                found = chosen.run(subject)
                self._append(trainer, step, found.records, seed=seed)
                arrays |= {f"{name}.{training}.{seed}": value for name, value in found.arrays.items()}
        if arrays:
            write_arrays(self.directory.path / f"{chosen.name}.npz", arrays)

    def _examples(self) -> None:
        """A few test images, their twins for every training of the first seed, and what the networks say."""
        images, labels = (part[:_EXAMPLES] for part in self.sample)
        adversarial, predicted_clean, predicted_adversarial = {}, {}, {}
        for training in self.config.trainings:
            _, variables, _ = self._finished(training, 0)
            twins = adversarial_twins(self.network, variables, images, labels, attack=self.config.attack)
            adversarial[training] = twins
            predicted_clean[training] = jnp.argmax(predictions(self.network, variables, images), -1)
            predicted_adversarial[training] = jnp.argmax(predictions(self.network, variables, twins), -1)
        examples.save(
            self.directory.path,
            images=images,
            labels=labels,
            class_names=self.dataset.class_names,
            adversarial=adversarial,
            predicted_clean=predicted_clean,
            predicted_adversarial=predicted_adversarial,
            attack=describe(self.config.attack),
        )

    def _report(self) -> None:
        self.reporter.update(Status("figures and report", self._done()))
        path = self.directory.path / "provenance.json"
        write_json(path, {**read_json(path), "end": provenance.now()})
        report.build(self.directory.path)

    # What the units share

    def _trainer(self, training: str, seeds: tuple[int, ...]) -> Trainer:
        c = self.config
        return Trainer(
            network=self.network,
            objective=training,
            adversary=c.adversary,
            optimizer=c.optimizer,
            augmentation=data.augmentation_for(c.dataset),
            epochs=c.epochs,
            batch_size=c.batch_size,
            examples=len(self.dataset.train),
            seeds=seeds,
            mesh=self.mesh,
            awp=c.awp,
            average=c.average,
        )

    def _groups(self) -> list[tuple[int, ...]]:
        """Which seeds are trained in one compiled call."""
        seeds = tuple(range(self.config.seeds))
        side_by_side = self.config.population == "vmap" or (
            self.config.population == "auto"
            and jax.default_backend() != "cpu"
            and self.network.arch in _VMAPPED_ON_ACCELERATORS
        )
        return [seeds] if side_by_side else [(seed,) for seed in seeds]

    def _store(self, training: str, seed: int, *, keep: Sequence[int] = ()) -> Checkpoints:
        per_epoch = self._trainer(training, (seed,)).steps_per_epoch
        probed = [epoch * per_epoch for epoch in self.probe_epochs]
        return Checkpoints(self.directory.checkpoints(training, seed), keep=[*probed, *keep])

    def _finished(self, training: str, seed: int) -> tuple[Trainer, Variables, int]:
        """The network that stands for a training, and its step: the best one if images were held out, else the last."""
        store = self._store(training, seed)
        trainer = self._trainer(training, (seed,))
        step = trainer.total_steps
        if self.held_out:
            step = early_stopping.best_step(self.directory.checkpoints(training, seed))
        saved = store.restore(step)
        store.close()
        assert saved is not None
        return trainer, jax.device_put(_whole(saved.state["variables"])), step

    def _append(self, trainer: Trainer, step: int, rows: list[Record], *, seed: int | None = None) -> None:
        common: dict[str, Any] = {
            "run": self.name,
            "arch": self.network.arch,
            "dataset": self.config.dataset,
            "training": trainer.objective,
            "step": step,
            "epoch": step / trainer.steps_per_epoch,
        }
        if seed is not None:
            common["seed"] = seed
        records.append(self.directory.path, [dataclasses.replace(row, **common) for row in rows])

    def _tell(self, trainer: Trainer, moment: Moment) -> None:
        within = self._work(trainer.objective) * len(trainer.seeds) * moment.step / trainer.total_steps
        self.reporter.update(
            Status(
                f"{trainer.objective} seed {_spell(trainer.seeds)}",
                (self.work_done + within) / self.work * 0.97,
                epoch=moment.epoch,
                epochs=trainer.epochs,
                loss=float(np.mean(moment.loss)),
                accuracy=float(np.mean(moment.accuracy)),
                robust_accuracy=self.robust_accuracy,
                images_per_second=moment.images / moment.seconds,
            )
        )

    def _done(self) -> float:
        return self.work_done / self.work * 0.97

    def _work(self, training: str) -> float:
        """Forward passes of one training of one seed: updates and probes."""
        c, steps = self.config, self.config.attack.steps
        forwards = OBJECTIVES[training].forwards(steps) + (3 if c.awp and OBJECTIVES[training].adversarial else 0)
        updates = c.epochs * len(self.dataset.train) * forwards
        if self.held_out:
            updates += c.epochs * len(self.held_out) * (2 * held_out_attack(c.attack).steps + 2)
        return float(updates + len(self.probe_epochs) * len(self.sample[1]) * (2 * steps + 3))


def _spell(seeds: tuple[int, ...]) -> str:
    return ",".join(map(str, seeds))


def _to_save(member: Any) -> dict[str, Any]:
    """String keys only, so that a restored state needs no example of its structure.

    `variables` are those to evaluate; where they are an average, `trained` are those that go on training.
    """
    optimizer = {
        jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(member["optimizer"])
    }
    saved = {"variables": member["variables"], "optimizer": optimizer, "totals": member["totals"]}
    if "average" in member:
        saved |= {"variables": member["average"], "trained": member["variables"]}
    return saved


def _restored(like: Any, saved: dict[str, Any]) -> Any:
    """The inverse of `_to_save`, in the structure of `like`."""
    optimizer = jax.tree_util.tree_map_with_path(
        lambda path, _: jnp.asarray(saved["optimizer"][jax.tree_util.keystr(path)]), like["optimizer"]
    )
    restored = {
        "variables": jax.device_put(_whole(saved["variables"])),
        "optimizer": optimizer,
        "totals": jax.device_put(saved["totals"]),
    }
    if "average" in like:
        restored |= {"variables": jax.device_put(_whole(saved["trained"])), "average": restored["variables"]}
    return restored


def _whole(saved: dict[str, Any]) -> Variables:
    # Orbax leaves empty dicts out.
    return {"batch_stats": {}, **saved}
