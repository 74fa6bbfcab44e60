"""What every unit of a run works with: configuration, data, trainers, stores, records and the clock. Does no unit."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from mi_jax import data, models, parallel
from mi_jax.runs import early_stopping
from mi_jax.runs.precompile import BackgroundCompiler
from mi_jax.runs.checkpoint_format import whole
from mi_jax.runs.progress import Reporter, Status
from mi_jax.runs.config import RunConfig
from mi_jax import records
from mi_jax.runs.checkpoints import Checkpoints
from mi_jax.records.table import Record
from mi_jax.runs.directory import RunDir
from mi_jax.measure.information import NoiseVariances, frozen_noise_variances
from mi_jax.measure.accuracy import robustness
from mi_jax.data.sample import fixed_sample
from mi_jax.training import OBJECTIVES, TrainingProgress, Trainer, held_out_attack, split_held_out
from mi_jax.typing import Variables

_VMAPPED_ON_ACCELERATORS = ("mlp", "lenet", "cnn", "wrn-10-1")


class RunContext:
    """One call of `run` or `study`.

    Attributes:
        config, network, dataset, directory, reporter, stop_asked: as given, the held-out images taken from the data.
        held_out: those, or None.
        mesh: devices that share a batch, or None.
        images, labels: the training split on the device.
        sample: the fixed sample on which information is measured.
        probe_epochs: when it is measured.
        robust_accuracy: of the newest probe, for the progress line.
        rehearsals: programs that are compiled ahead; none where several devices must run them in one order.
        work_done: forward passes of the trainings that are finished.
    """

    def __init__(
        self,
        config: RunConfig,
        network: models.Network,
        dataset: data.Dataset,
        directory: RunDir,
        reporter: Reporter,
        stop_asked: Callable[[], bool] = lambda: False,
    ):
        self.config, self.network, self.directory = config, network, directory
        self.reporter, self.stop_asked = reporter, stop_asked
        self.mesh = parallel.make_mesh(config.mesh)
        train, self.held_out = split_held_out(dataset.train, config.held_out)
        self.dataset: data.Dataset = dataclasses.replace(dataset, train=train)
        self.images = parallel.replicated(self.mesh, train.images)
        self.labels = parallel.replicated(self.mesh, train.labels)
        self.sample = fixed_sample(dataset.test.images, dataset.test.labels, config.probe.samples)
        self.probe_epochs = config.probe.schedule(config.epochs)
        self.noise_variances = functools.cache(self._rulers)
        self.compiler = BackgroundCompiler({} if self.mesh else self._compiled_ahead())
        self.robust_accuracy: float | None = None
        self.work_done, self._work = 0.0, float(sum(map(self.work_of, config.trainings)) * config.seeds)

    def groups(self) -> list[tuple[int, ...]]:
        """Which seeds are trained in one compiled call."""
        seeds = tuple(range(self.config.seeds))
        side_by_side = self.config.population == "vmap" or (
            self.config.population == "auto"
            and jax.default_backend() != "cpu"
            and self.network.arch in _VMAPPED_ON_ACCELERATORS
        )
        return [seeds] if side_by_side else [(seed,) for seed in seeds]

    def trainer(self, training: str, seeds: tuple[int, ...]) -> Trainer:
        """What trains these seeds by this objective."""
        c = self.config
        return Trainer(
            network=self.network,
            objective=training,
            objective_config=c.objective_config,
            optimizer=c.optimizer,
            augmentation=data.augmentation_for(c.dataset),
            epochs=c.epochs,
            batch_size=c.batch_size,
            examples=len(self.dataset.train),
            seeds=seeds,
            mesh=self.mesh,
            awp=c.awp,
            average=c.average,
            attack_warmup=c.attack_warmup,
        )

    def _compiled_ahead(self) -> dict[str, Callable[[], object]]:
        """One update of every training that is still to be done, and the final attack on one batch."""
        groups = self.groups()
        trainers = {
            training: self.trainer(training, groups[0])
            for training in self.config.trainings
            if not all(self.directory.is_complete(unit_of(training, seeds)) for seeds in groups)
        }

        def update(trainer: Trainer) -> object:
            return trainer.advance(trainer.init(self.images), self.images, self.labels, 0, 1)

        def attack() -> object:
            variables = self.trainer(self.config.trainings[0], (0,)).init(self.images)["variables"]
            images, labels = (part[:1] for part in self.sample)
            key, strong = jax.random.key(0), self.config.final_attack
            return robustness(self.network, variables, images, labels, key, attack=strong)[0]

        updates = {training: functools.partial(update, trainer) for training, trainer in trainers.items()}
        return {**updates, "attack": attack}

    def store(self, training: str, seed: int, *, keep: Sequence[int] = ()) -> Checkpoints:
        """The checkpoints of one training and seed; probed epochs and the steps to `keep` outlive newer ones."""
        return Checkpoints(self.directory.checkpoints(training, seed), keep=[*self.probed_steps, *keep])

    @property
    def probed_steps(self) -> list[int]:
        """The steps at which information is measured through training, the same for all trainings."""
        per_epoch = self.trainer(self.config.trainings[0], (0,)).steps_per_epoch
        return [epoch * per_epoch for epoch in self.probe_epochs]

    def finished(self, training: str, seed: int) -> tuple[Trainer, Variables, int]:
        """The network that stands for a training, and its step: the best one if images were held out, else the last."""
        trainer, step = self.trainer(training, (seed,)), self.finished_step(training, seed)
        return trainer, self.variables_at(training, seed, step), step

    def finished_step(self, training: str, seed: int) -> int:
        """The step of the network that stands for a training."""
        if self.held_out:
            return early_stopping.best_step(self.directory.checkpoints(training, seed))
        return self.trainer(training, (seed,)).total_steps

    def damage(self, training: str, seed: int) -> str | None:
        """Why the network that stands for a finished training is lost, or None; a lost one is deleted, with all after.

        The training then goes on from an intact step before it, to the same network.
        """
        store, step = self.store(training, seed), self.finished_step(training, seed)
        found = store.read(step)
        if isinstance(found, str):
            store.discard_after(step - 1)
        store.close()
        return found if isinstance(found, str) else None

    def measured_steps(self, training: str, seed: int) -> list[int]:
        """The steps at which information was measured and the finished one, oldest first; a stopped one has fewer."""
        wanted = {*self.probed_steps, self.finished_step(training, seed)}
        store = self.store(training, seed)
        steps = [step for step in store.steps() if step in wanted]
        store.close()
        return steps

    def variables_at(self, training: str, seed: int, step: int) -> Variables:
        """The variables that a training had at a saved step."""
        store = self.store(training, seed)
        saved = store.restore(step)
        store.close()
        assert saved is not None
        return jax.device_put(whole(saved.state["variables"]))

    def append(
        self, trainer: Trainer, step: int, rows: list[Record], *, seed: int | None = None, finished: bool = False
    ) -> None:
        """Appends rows to the records, with the columns that identify the run and the network.

        Args:
            trainer: what trained the network.
            step: updates that it had.
            rows: what was measured.
            seed: of the training; None if the rows have it.
            finished: whether the rows are of the finished network, rather than measured during training.
        """
        common: dict[str, Any] = {
            "run": self.directory.path.name,
            "arch": self.network.arch,
            "dataset": self.config.dataset,
            "training": trainer.objective,
            "step": step,
            "epoch": step / trainer.steps_per_epoch,
            "checkpoint": ("best" if self.held_out else "last") if finished else "epoch",
        }
        if seed is not None:
            common["seed"] = seed
        records.append(self.directory.path, [dataclasses.replace(row, **common) for row in rows])

    def _rulers(self, seed: int) -> NoiseVariances:
        trainer = self.trainer(self.config.trainings[0], (seed,))
        variables = trainer.init(self.images)["variables"]
        return frozen_noise_variances(self.network, variables, self.sample[0], config=self.config.probe)

    def report_progress(self, trainer: Trainer, progress: TrainingProgress) -> None:
        """Shows where a training stands."""
        within = self.work_of(trainer.objective) * len(trainer.seeds) * progress.step / trainer.total_steps
        self.reporter.update(
            Status(
                f"{trainer.objective} seed {join_seeds(trainer.seeds)}",
                (self.work_done + within) / self._work * 0.97,
                epoch=progress.epoch,
                epochs=trainer.epochs,
                loss=float(np.mean(progress.loss)),
                accuracy=float(np.mean(progress.accuracy)),
                robust_accuracy=self.robust_accuracy,
                images_per_second=progress.images / progress.seconds,
            )
        )

    def done(self) -> float:
        """Share of the run's work that is done, for the units that do not count theirs."""
        return self.work_done / self._work * 0.97

    def done_before(self) -> float:
        """Share of the run's work that earlier commands did: finished trainings, and the saved steps of the others."""
        work = 0.0
        for training in self.config.trainings:
            for seeds in self.groups():
                complete = self.directory.is_complete(unit_of(training, seeds))
                share = 1.0 if complete else min(self._share_saved(training, seed) for seed in seeds)
                work += share * self.work_of(training) * len(seeds)
        return work / self._work * 0.97

    def _share_saved(self, training: str, seed: int) -> float:
        store = self.store(training, seed)
        newest = max(store.steps(), default=0)
        store.close()
        return newest / self.trainer(training, (seed,)).total_steps

    def work_of(self, training: str) -> float:
        """Forward passes of one training of one seed: updates and probes."""
        c, steps = self.config, self.config.attack.steps
        forwards = OBJECTIVES[training].forwards(steps) + (3 if c.awp and OBJECTIVES[training].adversarial else 0)
        updates = c.epochs * len(self.dataset.train) * forwards
        if self.held_out:
            updates += c.epochs * len(self.held_out) * (2 * held_out_attack(c.attack).steps + 2)
        return float(updates + len(self.probe_epochs) * len(self.sample[1]) * (2 * steps + 3))


def join_seeds(seeds: tuple[int, ...]) -> str:
    """Seeds in words, such as `0,1`."""
    return ",".join(map(str, seeds))


def unit_of(training: str, seeds: tuple[int, ...]) -> str:
    """The name under which a training is noted as complete."""
    return f"train/{training}/{join_seeds(seeds)}"
