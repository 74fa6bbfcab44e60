"""Host-side training loop; calls `after_chunk` between compiled chunks."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from mi_jax import checks, processes
from mi_jax.errors import InputError
from mi_jax.training.epoch import State, Trainer

_CHUNK_SECONDS = 2.0


class Interrupted(Exception):
    """Training stopped between two chunks as `stop_asked` required; `after_chunk` had the state."""


class Diverged(Exception):
    """The training loss is no longer a number."""


@dataclass(frozen=True)
class TrainingProgress:
    """The progress of a training.

    Attributes:
        step: updates done.
        epoch: passes done, with fractions.
        ends_epoch: whether an epoch has just been completed.
        loss: mean of the loss over the epoch so far, one value per seed.
        cross_entropy, accuracy: means over the epoch so far on the images trained on, one value per seed; the
            cross-entropy (nats) is the loss itself where nothing else is minimised.
        seconds: duration of the chunk.
        images: how many it trained on, all seeds together.
        stopping: whether training stops after this chunk because `stop_asked` said so.
    """

    step: int
    epoch: float
    ends_epoch: bool
    loss: np.ndarray
    cross_entropy: np.ndarray
    accuracy: np.ndarray
    seconds: float
    images: int
    stopping: bool = False


def fit(
    trainer: Trainer,
    state: State,
    images: Any,
    labels: Any,
    *,
    first_step: int = 0,
    after_chunk: Callable[[State, TrainingProgress], None],
    stop_asked: Callable[[], bool] = lambda: False,
    enough: Callable[[], bool] = lambda: False,
) -> State:
    """Trains from `first_step` to the end, or until `enough`.

    Args:
        trainer: what to train and how.
        state: after `first_step` updates.
        images: uint8 training images `[n h w c]`, on the device.
        labels: int32 `[n]`.
        first_step: updates already done.
        after_chunk: called between compiled chunks and at the end of every epoch; may read the state, not keep it.
        stop_asked: called after every chunk, before `after_chunk`; true interrupts the training.
        enough: called before every chunk; true ends the training as if its last epoch were done.

    Returns:
        The final state.

    Raises:
        InputError: when images and labels do not fit the trainer.
        Interrupted: when `stop_asked` said so.
        Diverged: when the loss of a seed is not finite.
    """
    check_training_data(trainer, images, labels)
    step, chunk, per_epoch = first_step, 1, trainer.steps_per_epoch
    while step < trainer.total_steps and not enough():
        last = min(step + chunk, (step // per_epoch + 1) * per_epoch)
        began = time.perf_counter()
        state = jax.block_until_ready(trainer.advance(state, images, labels, step, last))
        seconds = time.perf_counter() - began
        stopping = stop_asked()
        progress = _training_progress(trainer, state, last, seconds, last - step, stopping)
        if not np.all(np.isfinite(progress.loss)):
            seed = trainer.seeds[int(np.argmin(np.isfinite(progress.loss)))]
            raise Diverged(f"the loss of seed {seed} is {progress.loss} in epoch {progress.epoch:.1f}")
        after_chunk(state, progress)
        if stopping:
            raise Interrupted
        # The first chunk includes compilation, so its duration says nothing about the length of the next.
        chunk = 4 if step == first_step else max(1, round((last - step) * _CHUNK_SECONDS / seconds))
        if trainer.mesh is not None and trainer.mesh.is_multi_process:
            chunk = processes.agree(chunk)
        step = last
    return state


def check_training_data(trainer: Trainer, images: Any, labels: Any) -> None:
    """Checks uint8 images `[n h w c]` and labels `[n]` against the trainer's network and number of examples.

    Raises:
        InputError: when they do not fit.
    """
    network = trainer.network
    expected = (trainer.examples, *network.input_shape)
    if np.shape(images) != expected or images.dtype != np.uint8:
        raise InputError(
            f"Training images must be uint8 of shape {list(expected)}; got {getattr(images, 'dtype', 'no array')} of "
            f"shape {list(np.shape(images))}."
        )
    checks.labels(labels, trainer.examples, classes=network.num_classes)


def _training_progress(
    trainer: Trainer, state: State, step: int, seconds: float, updates: int, stopping: bool
) -> TrainingProgress:
    totals = jax.tree.map(np.atleast_1d, jax.device_get(state["totals"]))
    return TrainingProgress(
        step=step,
        epoch=step / trainer.steps_per_epoch,
        ends_epoch=step % trainer.steps_per_epoch == 0,
        loss=totals["loss"] / totals["updates"],
        cross_entropy=totals["cross_entropy"] / totals["updates"],
        accuracy=totals["correct"] / (totals["updates"] * trainer.batch_size),
        seconds=seconds,
        images=updates * trainer.batch_size * len(trainer.seeds),
        stopping=stopping,
    )
