"""Early stopping on held-out training images: the accuracy of each epoch, the best epoch, and when to stop.

Robust accuracy overfits (Rice et al. 2020): the last network is rarely the best.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from mi_jax import checks, data
from mi_jax.attacks import PGD, pgd
from mi_jax.batches import map_batches
from mi_jax.errors import InputError
from mi_jax.models import Network
from mi_jax.parallel import mesh_of
from mi_jax.seeding import stream_key
from mi_jax.training.epoch import State, Trainer
from mi_jax.training.evaluation import evaluate
from mi_jax.training.fit import TrainingProgress
from mi_jax.training.objectives import OBJECTIVES
from mi_jax.typing import Flags, Images, Key, Labels, Variables

_LEAST_STEPS = 10
_COLLAPSE = 0.5
_DEVIATIONS = 3.0


def held_out_rows(labels: np.ndarray, share: float) -> np.ndarray:
    """The indices of the training images to hold out, ascending, the same in every call and stratified by class.

    Args:
        labels: int `[n]`, of the training images.
        share: share of the images to hold out, see `mi_jax.data.stratified_rows`; 0 for none.

    Raises:
        InputError: when the share is not in [0, 1), or leaves fewer than two images on either side.

    Examples:
        >>> held_out_rows(np.array([0, 0, 0, 0, 1, 1, 1, 1]), 0.25).shape
        (2,)
    """
    checks.share("held_out", share, usual="0.02, or 0 for none")
    rows = data.stratified_rows(labels, share)
    if share and not 2 <= len(rows) <= len(labels) - 2:
        raise InputError(
            f"Invalid held_out {share!r}: it holds out {len(rows)} of {len(labels)} images; at least 2 must be held "
            "out and 2 left."
        )
    return rows


def split_held_out(split: data.Split, share: float) -> tuple[data.Split, data.Split | None]:
    """Splits training images by `held_out_rows`.

    Args:
        split: the training images.
        share: share of the images to hold out; 0 for none.

    Returns:
        The images to train on and those held out, None for a share of 0.
    """
    rows = held_out_rows(split.labels, share)
    if not len(rows):
        return split, None
    return split.take(np.delete(np.arange(len(split)), rows)), split.take(rows)


def held_out_attack(attack: PGD) -> PGD:
    """The attack on held-out images: PGD in norm and radius of the training attack, with at least ten steps.

    The steps add up to at least 2.5 radii. A weaker attack would not detect that fast adversarial training has
    collapsed. It returns the last point of one run.
    """
    steps = max(attack.steps, _LEAST_STEPS)
    step_size = max(attack.step_size, 2.5 * attack.eps / steps)
    return dataclasses.replace(
        attack, steps=steps, step_size=step_size, random_start=True, restarts=1, loss="ce", keep="last"
    )


@dataclass(frozen=True)
class HeldOutAccuracy:
    """The accuracy of one seed at the end of an epoch.

    Attributes:
        step: updates done.
        epoch: passes done.
        clean: accuracy on the held-out images.
        robust: accuracy on the held-out images under the attack.
        trained: accuracy on the images trained on, mean over the epoch's updates.
    """

    step: int
    epoch: int
    clean: float
    robust: float
    trained: float


def best(history: Sequence[HeldOutAccuracy], objective: str) -> HeldOutAccuracy:
    """The earliest epoch of highest held-out accuracy: robust for adversarial objectives, clean for the others.

    Normal training is hardly robust at any epoch: its robust accuracy would choose an epoch by chance.

    Args:
        history: at least one epoch, in order.
        objective: a name in `OBJECTIVES`.
    """
    robust = OBJECTIVES[objective].adversarial
    return max(history, key=lambda end: end.robust if robust else end.clean)


def collapsed(history: Sequence[HeldOutAccuracy], count: int) -> bool:
    """Whether the last epoch overfitted catastrophically (Wong et al. 2020).

    That is so if the robust accuracy fell below half of its best, by more than three standard errors, while the
    accuracy on the images trained on is higher than at that best.

    Args:
        history: epochs so far, in order.
        count: held-out images.
    """
    if len(history) < 2:
        return False
    now, top = history[-1], max(history, key=lambda end: end.robust)
    variance = sum(end.robust * (1 - end.robust) for end in (now, top)) / count
    fell = now.robust < _COLLAPSE * top.robust and top.robust - now.robust > _DEVIATIONS * math.sqrt(variance)
    return fell and now.trained > top.trained


class EarlyStopping:
    """The held-out accuracy of one training after each epoch, one history per seed.

    Args:
        trainer: the trainer.
        images: uint8 held-out images `[n h w c]`.
        labels: int `[n]`.
        attack: attack of the training; see `held_out_attack`.
    """

    def __init__(self, trainer: Trainer, images: Any, labels: Any, attack: PGD):
        self.attack = held_out_attack(attack)
        self.histories: dict[int, tuple[HeldOutAccuracy, ...]] = dict.fromkeys(trainer.seeds, ())
        self._trainer = trainer
        self._images = data.to_float(images)
        self._labels = checks.labels(labels, len(images), classes=trainer.network.num_classes)

    @property
    def count(self) -> int:
        """How many images are held out."""
        return len(self._labels)

    def measure(self, state: State, progress: TrainingProgress) -> None:
        """Adds the epoch that has just ended to the history of each seed."""
        for (seed, member), trained in zip(self._trainer.members(state), progress.accuracy, strict=True):
            variables = self._trainer.evaluated(member)
            key = stream_key(seed, "held_out")
            clean, robust = _accuracies(self._trainer.network, variables, self._images, self._labels, key, self.attack)
            end = HeldOutAccuracy(progress.step, round(progress.epoch), clean, robust, float(trained))
            self.histories[seed] += (end,)

    def best(self, seed: int) -> HeldOutAccuracy:
        """The best epoch of a seed so far; raises ValueError before the first."""
        return best(self.histories[seed], self._trainer.objective)

    def kept(self, seed: int) -> list[int]:
        """The steps of a seed's best epoch and of the one that was best before.

        The earlier one is needed until the later is saved for every seed.
        """
        history = self.histories[seed]
        bests = {best(history[: n + 1], self._trainer.objective).step for n in range(len(history))}
        return sorted(bests)[-2:]

    def improved(self) -> list[int]:
        """The seeds whose last epoch is their best."""
        return [seed for seed, history in self.histories.items() if history and self.best(seed) is history[-1]]

    def collapsed(self) -> bool:
        """Whether every seed of an adversarial training has overfitted catastrophically, so that it should stop."""
        adversarial = OBJECTIVES[self._trainer.objective].adversarial
        return adversarial and all(collapsed(history, self.count) for history in self.histories.values())

    def to_json(self, seed: int) -> list[dict[str, Any]]:
        """The history of a seed as JSON values."""
        return [dataclasses.asdict(end) for end in self.histories[seed]]

    def resume(self, seed: int, history: Iterable[dict[str, Any]], steps: Sequence[int]) -> None:
        """Restores a history from `to_json`, without best epochs that are not among the saved `steps`."""
        ends = [HeldOutAccuracy(**end) for end in history]
        while ends and best(ends, self._trainer.objective).step not in steps:
            ends.remove(best(ends, self._trainer.objective))
        self.histories[seed] = tuple(ends)


def _accuracies(
    network: Network, variables: Variables, images: Images, labels: Labels, key: Key, attack: PGD
) -> tuple[float, float]:
    """Clean accuracy, and accuracy under the attack, whose random starts depend on the image alone."""

    def success(x: Images, y: Labels, index: jax.Array | np.ndarray) -> Flags:
        return pgd(network.logits, variables, x, y, key, config=attack, index=index).success

    _, clean = evaluate(network, variables, images, labels)
    found = map_batches(success, images, labels, np.arange(len(labels)), mesh=mesh_of(variables))
    return clean, 1 - float(np.mean(found))
