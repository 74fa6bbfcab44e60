"""One cell of a sweep over cue strengths: its images, its trainings and what is measured on each network."""

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax import models
from mi_jax.attacks import Budget, autoattack
from mi_jax.cue_strength_sweep.config import Cell, Norm, Scale, Sweep
from mi_jax.data import Augmentation, ShapeTex, Split, shapetex
from mi_jax.data.shapetex import SHAPES, Scene
from mi_jax.measure.accuracy import accuracy_row, attack_columns, misclassified_under
from mi_jax.measure.autoattack import autoattack_columns
from mi_jax.models import Network
from mi_jax.parallel import backend
from mi_jax.records.table import Record
from mi_jax.seeding import stream_key
from mi_jax.studies.shape_texture import information, shape_bias
from mi_jax.training import (
    Diverged,
    Interrupted,
    ObjectiveConfig,
    Optimizer,
    Trainer,
    TrainingProgress,
    evaluate,
    fit,
    predictions,
)
from mi_jax.typing import Key, Variables

_BASE = ShapeTex()
_GROWTH = 1.25
"""Ratio of successive steps at which the clean epochs are paused for a snapshot."""
_GREY, _SPREAD = 0.5, 0.1
"""Normalisation of images that are grey plus cues of at most a few tenths."""


def network_of(sweep: Sweep) -> Network:
    """The network that is trained in every cell."""
    return models.create(
        sweep.arch, num_classes=len(SHAPES), input_shape=(32, 32, 3), width=sweep.width, mean=_GREY, std=_SPREAD
    )


def cell_sets(sweep: Sweep, cell: Cell) -> tuple[Split, dict[str, Split]]:
    """Training images of a cell, and its test sets; `conflict_swapped` exchanges the amplitudes of `conflict`."""
    shape, texture = cell.rho_shape * sweep.eps, cell.rho_texture * sweep.eps
    config = replace(_BASE, shape_amplitude=shape, texture_amplitude=texture, texture_scale=cell.scale)
    scenes = _scenes(cell.scale, sweep.n_train, sweep.samples)
    sets = {name: shapetex.split(scenes[name], config) for name in ("redundant", "conflict", "factorial")}
    sets["conflict_swapped"] = shapetex.split(
        scenes["conflict"], config, shape_amplitude=texture, texture_amplitude=shape
    )
    return shapetex.split(scenes["train"], config), sets


@functools.lru_cache(maxsize=2)
def _scenes(scale: Scale, n_train: int, samples: int) -> dict[str, Scene]:
    """The scenes that all cells share: cells differ only in amplitude."""
    config = replace(_BASE, texture_scale=scale, n_train=n_train, n_test=2 * samples)
    limits = {"train": n_train, "redundant": samples, "conflict": samples // 90 * 90, "factorial": 2 * samples}
    return {name: shapetex.scene(config, name, limit=limit) for name, limit in limits.items()}  # pyright: ignore[reportArgumentType]


def _names() -> dict[str, tuple[str, ...]]:
    return {"shape": SHAPES, "texture": _BASE.texture_names}


def measure_cell(
    sweep: Sweep,
    cell: Cell,
    network: Network,
    *,
    report_progress: Callable[..., None] = lambda *_, **__: None,
    stop_asked: Callable[[], bool] = lambda: False,
) -> Iterator[Record]:
    """Trains every training and seed of a cell, and yields the records of each with its controls.

    Trainings are `nt`, `noise`, `at-linf`, `at-l2`; controls `untrained`, and for each norm `matched-linf`, ...: the
    normally trained network of the epoch at which its clean accuracy was nearest to the adversarially trained one's.
    All trainings of a seed share its first `clean_epochs`.

    Raises:
        Interrupted: when `stop_asked` returned true; it is called between compiled chunks and before each network is
            measured.
    """
    train, sets = cell_sets(sweep, cell)
    images, labels = jnp.asarray(train.images), jnp.asarray(train.labels)
    history: dict[int, list[tuple[float, float, Variables]]] = {}
    begun: dict[tuple[int, ...], Any] = {}
    first = sweep.clean_epochs * (sweep.n_train // sweep.batch_size)
    count = len(sweep.trainings) * len(_populations(sweep))
    for i, ((name, objective, norm), seeds) in enumerate(itertools.product(sweep.trainings, _populations(sweep))):
        trainer = trainer_of(sweep, network, objective, norm, seeds)
        keep = _Snapshots(trainer, sets["redundant"], wanted=name == "nt")

        def after(state: Any, progress: TrainingProgress, keep=keep, name=name, i=i) -> None:
            if progress.ends_epoch:
                keep(state, progress.epoch)
            report_progress(name, (i + progress.epoch / sweep.epochs * 0.7) / count, progress, sweep.epochs)

        if name == "nt":
            state = trainer.init(images)
            for seed, member in trainer.members(state):
                _stop_if(stop_asked)
                found = measure(sweep, network, member["variables"], sets, seed, ())
                yield from _named(found, cell, sweep, "untrained", seed, 0)
            begun[seeds] = _begin(trainer, state, images, labels, first, keep, stop_asked)
        state = jax.tree.map(jnp.copy, begun[seeds])  # training gives the memory of its state away
        try:
            state = fit(trainer, state, images, labels, first_step=first, after_chunk=after, stop_asked=stop_asked)
            _check_logits(trainer, state, sets["redundant"])
        except Diverged as error:
            where: dict[str, Any] = {"inputs": "clean", "image_set": "conflict", "note": str(error)}
            failed = [Record(quantity="shape_bias", value=None, ok=False, **where)]
            for seed in seeds:
                yield from _named(failed, cell, sweep, name, seed, sweep.epochs)
            continue
        history |= keep.history
        for seed, member in trainer.members(state):
            _stop_if(stop_asked)
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
    """Normally trained networks during training: epoch, clean accuracy and variables, by seed."""

    def __init__(self, trainer: Trainer, split: Split, *, wanted: bool):
        self.history: dict[int, list[tuple[float, float, Variables]]] = {}
        self._trainer, self._wanted = trainer, wanted
        self._images, self._labels = split.to_float(), split.labels

    def __call__(self, state: Any, epoch: float) -> None:
        for seed, member in self._trainer.members(state) if self._wanted else ():
            variables = jax.device_get(member["variables"])
            accuracy = evaluate(self._trainer.network, variables, self._images, self._labels)[1]
            self.history.setdefault(seed, []).append((epoch, accuracy, variables))


def _stop_if(stop_asked: Callable[[], bool]) -> None:
    if stop_asked():
        raise Interrupted


def _begin(
    trainer: Trainer,
    state: Any,
    images: Any,
    labels: Any,
    first: int,
    keep: _Snapshots,
    stop_asked: Callable[[], bool],
) -> Any:
    """The state after the first updates, with snapshots at steps that grow by a constant ratio.

    Accuracy rises fast there, so that the ends of epochs are too few snapshots to match; the pauses of `fit` are more,
    but depend on the clock.
    """
    keep(state, 0.0)
    step, per_epoch = 0, trainer.steps_per_epoch
    while step < first:
        _stop_if(stop_asked)
        last = min(max(step + 1, int(_GROWTH * step)), (step // per_epoch + 1) * per_epoch)
        state = trainer.advance(state, images, labels, step, last)
        keep(state, last / per_epoch)
        step = last
    return state


def _check_logits(trainer: Trainer, state: Any, split: Split) -> None:
    """Raises `Diverged` where the last update, whose effect no loss of training shows, made logits infinite or NaN."""
    for seed, member in trainer.members(state):
        if not np.isfinite(predictions(trainer.network, member["variables"], split.to_float())).all():
            raise Diverged(f"logits of seed {seed} are not finite after the last epoch")


def _named(found: list[Record], cell: Cell, sweep: Sweep, training: str, seed: int, epoch: int | float) -> list[Record]:
    where: dict[str, Any] = {"cell": cell.name, "arch": sweep.arch, "dataset": "shapetex", "training": training}
    where["checkpoint"] = "epoch" if epoch < sweep.epochs else "last"  # the controls are of earlier epochs
    return [replace(row, seed=seed, epoch=float(epoch), **where) for row in found]


def trainer_of(sweep: Sweep, network: Network, objective: str, norm: Norm | None, seeds: tuple[int, ...]) -> Trainer:
    """What trains these seeds in a cell."""
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
    together = sweep.population == "vmap" or (sweep.population == "auto" and backend() != "cpu")
    return [everyone] if together else [(seed,) for seed in everyone]


def measure(
    sweep: Sweep, network: Network, variables: Variables, sets: dict[str, Split], seed: int, norms: tuple[Norm, ...]
) -> list[Record]:
    """Measures one network of a cell; the records lack the columns that name the network.

    `shape_bias` with its interval and `cue_coverage` on conflict images and on the same at exchanged amplitudes
    (`conflict_swapped`); accuracy on redundant images, clean and under a strong attack; by a linear probe of the
    logits `i_t_shape`, `i_t_texture`, and `i_t_shuffled`, which is 0 within its error.

    Args:
        sweep: sizes and attacks.
        network: its description.
        variables: its variables.
        sets: from `cell_sets`.
        seed: seed of random starts and shuffled labels.
        norms: norms of the strong attacks; none for controls.
    """
    found = []
    for name in ("conflict", "conflict_swapped"):
        predicted = np.argmax(np.asarray(predictions(network, variables, sets[name].to_float())), axis=1)
        rows = shape_bias.bias_records(predicted, sets[name].factors, class_names=_names(), inputs="clean")
        found += [replace(row, image_set=name) for row in rows if row.factor is None]
    redundant = sets["redundant"]
    images, labels, n = redundant.to_float(), jnp.asarray(redundant.labels), len(redundant)
    found.append(accuracy_row(evaluate(network, variables, images, labels)[1], n, inputs="clean"))
    for norm in norms:
        key = stream_key(seed, "evaluation")
        wrong, columns = _attacked(sweep, network, variables, images, labels, key, norm)
        found.append(accuracy_row(1 - float(np.mean(wrong)), n, inputs="adversarial", **columns))
    factorial = sets["factorial"]
    half = len(factorial) // 2
    t = np.asarray(predictions(network, variables, factorial.to_float()))
    factors = {name: factorial.factors[name] for name in shape_bias.CUES}
    factors["shuffled"] = np.random.default_rng(seed).permutation(factors["shape"])
    first, last = ({name: v[part] for name, v in factors.items()} for part in (slice(half), slice(half, None)))
    layer = network.layers[-1]
    probes = information.probe_layer(
        t[:half], first, t[half:], last, num_classes=len(SHAPES), layer=layer, inputs="clean", image_set="factorial"
    )
    return found + probes.records


def _attacked(
    sweep: Sweep, network: Network, variables: Variables, images: jax.Array, labels: jax.Array, key: Key, norm: Norm
) -> tuple[Any, dict[str, Any]]:
    """Whether each image is misclassified under the strong attack, and the columns that name it."""
    if sweep.evaluation == "autoattack":
        radius = sweep.radius(norm)
        result = autoattack(network.logits, variables, images, labels, key, norm=norm, eps=radius)
        return result.success, autoattack_columns(norm, radius, "standard", Budget())
    attack = sweep.strong_attack(norm)
    wrong = misclassified_under(network, variables, images, labels, key, attack=attack)
    return wrong, attack_columns(attack)
