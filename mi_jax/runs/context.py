"""What the stages of a run share: configuration, data, trainers, checkpoints, records and progress."""

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mi_jax import data, models, parallel, processes, records
from mi_jax.data.sample import fixed_sample
from mi_jax.errors import InputError
from mi_jax.measure.accuracy import robustness
from mi_jax.measure.information import NoiseVariances, frozen_noise_variances
from mi_jax.records.table import Record
from mi_jax.runs import workload
from mi_jax.runs.checkpoints import Checkpoints, Saved, variables_of
from mi_jax.runs.config import SMALL_NETWORKS, RunConfig
from mi_jax.runs.directory import RunDir
from mi_jax.runs.precompile import BackgroundCompiler
from mi_jax.runs.progress import Reporter, Status
from mi_jax.runs.stages import join_seeds, training_stage
from mi_jax.training import (
    Interrupted,
    Trainer,
    TrainingProgress,
    split_held_out,
)
from mi_jax.typing import Variables


class RunContext:
    """One call of `run` or `study`.

    Attributes:
        config, network, dataset, directory, reporter, stop_asked, on_records: as given; `dataset` excludes the held-out
            images.
        held_out: those, or None.
        mesh: devices that share a batch, or None.
        images, labels: the training split on the device.
        sample: the fixed sample on which information is measured.
        measured_epochs: when it is measured.
        untrained_rows: measurements of the untrained network by seed, which all trainings share.
        robust_accuracy: as last measured in the current training, for the progress line.
        compiler: compiles programs ahead of time; none where several devices must run them in one order.
    """

    def __init__(
        self,
        config: RunConfig,
        network: models.Network,
        dataset: data.Dataset,
        directory: RunDir,
        reporter: Reporter,
        stop_asked: Callable[[], bool] = lambda: False,
        on_records: Callable[[Sequence[Record]], None] = lambda rows: None,
    ):
        self.config, self.network, self.directory = config, network, directory
        self.reporter, self.on_records = reporter, on_records
        self.stop_asked = lambda: processes.any_of(stop_asked())
        self.mesh = parallel.make_mesh(config.mesh)
        train, self.held_out = split_held_out(dataset.train, config.held_out)
        self.dataset: data.Dataset = dataclasses.replace(dataset, train=train)
        self.images = parallel.replicated(self.mesh, train.images)
        self.labels = parallel.replicated(self.mesh, train.labels)
        self.sample = fixed_sample(dataset.test.images, dataset.test.labels, config.information.samples)
        self.measured_epochs = config.information.schedule(config.epochs)
        self.noise_variances = functools.cache(self._noise_variances)
        self.compiler = BackgroundCompiler({} if self.mesh else self._compiled_ahead())
        self.untrained_rows: dict[int, list[Record]] = {}
        self.robust_accuracy: float | None = None
        self._work: dict[str, float] = {}

    def stop_if_asked(self) -> None:
        """Raises `Interrupted` if a stop was requested."""
        if self.stop_asked():
            raise Interrupted

    # Trainings

    def groups(self) -> list[tuple[int, ...]]:
        """Which seeds are trained in one compiled call."""
        pinned = self.directory.pin_side_by_side(side_by_side(self.config))
        return seed_groups(self.config, self.directory.grown_from, parallel_seeds=pinned)

    def trainer(self, training: str, seeds: tuple[int, ...]) -> Trainer:
        """What trains these seeds by this objective."""
        return make_trainer(self.config, self.network, self.dataset, training, seeds, mesh=self.mesh)

    def _compiled_ahead(self) -> dict[str, Callable[[], object]]:
        """One update of every training that is still to be done, and the final attack on one batch."""
        groups = self.groups()
        trainers = {
            training: self.trainer(training, groups[0])
            for training in self.config.trainings
            if not all(self.directory.is_complete(training_stage(training, seeds)) for seeds in groups)
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

    def _noise_variances(self, seed: int) -> NoiseVariances:
        trainer = self.trainer(self.config.trainings[0], (seed,))
        variables = trainer.init(self.images)["variables"]
        return frozen_noise_variances(self.network, variables, self.sample[0], config=self.config.information)

    # Checkpoints

    def store(self, training: str, seed: int, *, keep: Sequence[int] = ()) -> Checkpoints:
        """The checkpoints of one training and seed; measured epochs and the steps to `keep` outlive newer ones."""
        return Checkpoints(self.directory.checkpoints(training, seed), keep=[*self.measured_steps, *keep])

    @property
    def measured_steps(self) -> list[int]:
        """The steps at which information is measured during training, the same for all trainings."""
        per_epoch = self.trainer(self.config.trainings[0], (0,)).steps_per_epoch
        return [epoch * per_epoch for epoch in self.measured_epochs]

    def finished(self, training: str, seed: int) -> tuple[Trainer, Variables, int]:
        """The finished network of a training, and its step: the best one if images were held out, else the last."""
        trainer, step = self.trainer(training, (seed,)), self.finished_step(training, seed)
        return trainer, self.variables_at(training, seed, step), step

    def finished_step(self, training: str, seed: int) -> int:
        """The step of the finished network. Raises `InputError` where it was best on held-out images and is lost."""
        if not self.held_out:
            return self.trainer(training, (seed,)).total_steps
        store = self.store(training, seed)
        step = store.best_step()
        if step is None:
            found = store.find_best(training)
            store.name_best(found)
            self.reporter.say(f"The best epoch of {training} was missing or damaged; it is rebuilt from a checkpoint.")
            step = found.step
        store.close()
        return step

    def damage(self, training: str, seed: int, *, steps: Iterable[int] = ()) -> list[str]:
        """Why checkpoints of a finished training are lost: the finished network, and those of `steps` that are there.

        A lost one is deleted, with all after it: the training then resumes from an intact step before it, and comes to
        the same network.
        """
        store = self.store(training, seed)
        there, reasons = store.steps(), []
        try:
            wanted = {self.finished_step(training, seed)}
        except InputError as error:
            wanted, reasons = set(), [str(error).removesuffix(".")]
            store.discard_after((there or [0])[-1] - 1)
        for step in sorted(wanted | (set(steps) & set(there))):
            if not isinstance(found := store.read(step), Saved):
                reasons.append(found)
                store.discard_after(step - 1)
                break
        store.close()
        return reasons

    def saved_steps(self, training: str, seed: int) -> list[int]:
        """The steps at which information was measured and the finished one, oldest first; a stopped one has fewer."""
        wanted = {*self.measured_steps, self.finished_step(training, seed)}
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
        return parallel.replicated(self.mesh, variables_of(saved.state))

    def untrained(self, training: str, seed: int) -> Variables:
        """The variables before the first update; initialised again where they were not kept, as in a published copy."""
        store = self.store(training, seed)
        is_kept = 0 in store.steps()
        store.close()
        if is_kept:
            return self.variables_at(training, seed, 0)
        return parallel.replicated(self.mesh, self.trainer(training, (seed,)).init(self.images)["variables"])

    # Records and progress

    def append(
        self, trainer: Trainer, step: int, rows: list[Record], *, seed: int | None = None, finished: bool = False
    ) -> None:
        """Appends rows to the records, with the columns that name the run, the network and which checkpoint it is."""
        common: dict[str, Any] = {
            "run": self.directory.name,
            "arch": self.network.arch,
            "dataset": self.config.dataset,
            "training": trainer.objective,
            "step": step,
            "epoch": step / trainer.steps_per_epoch,
            "checkpoint": ("best" if self.held_out else "last") if finished else "epoch",
        }
        if seed is not None:
            common["seed"] = seed
        named = [dataclasses.replace(row, **common) for row in rows]
        processes.on_first(lambda: records.append(self.directory.path, named))
        self.on_records(named)

    def plan(self, work: Mapping[str, float]) -> None:
        """Sets the stages of this command with the work of each; the time left is estimated from what is done of them.

        Args:
            work: by stage, in forward passes of one image, complete stages among them.
        """
        self._work = dict(work)
        saved = {
            stage: work.get(stage, 0.0) * min(self._share_saved(training, seed) for seed in seeds)
            for stage, (training, seeds) in self.trainings().items()
            if not self.directory.is_complete(stage)
        }
        self.reporter.start_from(self._share_done(sum(saved.values(), 0.0)))

    def trainings(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """The training and the seeds of every stage that trains."""
        return {
            training_stage(training, seeds): (training, seeds)
            for training in self.config.trainings
            for seeds in self.groups()
        }

    def training_work(self) -> dict[str, float]:
        """The work of every stage that trains."""
        sizes = {
            "examples": len(self.dataset.train),
            "held_out": len(self.held_out) if self.held_out else 0,
            "measured": len(self.measured_epochs),
            "samples": len(self.sample[1]),
        }
        return {
            stage: len(seeds) * workload.of_training(self.config, training, **sizes)
            for stage, (training, seeds) in self.trainings().items()
        }

    def report_progress(self, trainer: Trainer, progress: TrainingProgress) -> None:
        """Shows how far a training is."""
        stage = training_stage(trainer.objective, trainer.seeds)
        self.reporter.update(
            Status(
                f"{trainer.objective} seed {join_seeds(trainer.seeds)}",
                self._share_done(self._work.get(stage, 0.0) * progress.step / trainer.total_steps),
                epoch=progress.epoch,
                epochs=trainer.epochs,
                loss=float(np.mean(progress.loss)),
                accuracy=float(np.mean(progress.accuracy)),
                robust_accuracy=self.robust_accuracy,
                images_per_second=progress.images / progress.seconds,
            )
        )

    def report_stage(self, stage: str) -> None:
        """Shows a stage whose progress within is not known."""
        self.reporter.update(Status(stage, self._share_done()))

    def wait_for_compiled(self, name: str, stage: str) -> None:
        """Waits for a program that is compiled ahead, and says so."""
        if self.compiler.is_busy_with(name):
            self.report_stage(f"{stage}: compiling (once)")
        self.compiler.wait_for(name)

    def _share_done(self, within: float = 0.0) -> float:
        """Share of the planned work in complete stages, with the work done within one that is not."""
        complete = sum((work for stage, work in self._work.items() if self.directory.is_complete(stage)), 0.0)
        return min(1.0, (complete + within) / (sum(self._work.values()) or 1.0))

    def _share_saved(self, training: str, seed: int) -> float:
        store = self.store(training, seed)
        newest = max(store.steps(), default=0)
        store.close()
        return newest / self.trainer(training, (seed,)).total_steps


def side_by_side(config: RunConfig) -> bool:
    """Whether a run that begins here trains its seeds in parallel."""
    small = config.population == "auto" and parallel.backend() != "cpu" and config.arch in SMALL_NETWORKS
    return config.population == "vmap" or small


def seed_groups(
    config: RunConfig, grown_from: Iterable[int] = (), *, parallel_seeds: bool | None = None
) -> list[tuple[int, ...]]:
    """Which seeds are trained in one compiled call: all in parallel, or one after the other.

    Args:
        config: configuration of the run.
        grown_from: how many seeds the run had before more were added; these are trained apart from the earlier ones.
        parallel_seeds: as the run was begun; None for one that begins here.
    """
    together = side_by_side(config) if parallel_seeds is None else parallel_seeds
    ends = sorted({*grown_from, config.seeds}) if together else range(1, config.seeds + 1)
    return [tuple(range(*part)) for part in itertools.pairwise([0, *(end for end in ends if end <= config.seeds)])]


def make_trainer(
    config: RunConfig,
    network: models.Network,
    dataset: data.Dataset,
    training: str,
    seeds: tuple[int, ...],
    *,
    mesh: parallel.Mesh | None = None,
) -> Trainer:
    """What trains these seeds by this objective, on the training split without held-out images."""
    return Trainer(
        network=network,
        objective=training,
        objective_config=config.objective_config,
        optimizer=config.optimizer,
        augmentation=data.augmentation_for(config.dataset),
        epochs=config.epochs,
        batch_size=config.batch_size,
        examples=len(dataset.train),
        seeds=seeds,
        mesh=mesh,
        awp=config.awp,
        average=config.average,
        attack_warmup=config.attack_warmup,
    )


def data_digest(dataset: data.Dataset) -> str:
    """SHA-256 (hex) over images, labels and class names of both splits."""
    total = hashlib.sha256("\n".join(dataset.class_names).encode())
    for split in (dataset.train, dataset.test):
        for array in (split.images, split.labels):
            total.update(f"{array.dtype}{array.shape}".encode())
            total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
