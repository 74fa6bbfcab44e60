"""Early stopping on training images that are held out: how accurate each epoch was, which was best, when to give up.

Robust accuracy overfits (Rice et al. 2020): the last network is seldom the best. Saves nothing and prints nothing.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax import data
from mi_jax.attacks import PGD, pgd
from mi_jax.batches import BATCH_SIZE, map_batches
from mi_jax.errors import InputError
from mi_jax.models import Network
from mi_jax.training.epoch import State, Trainer
from mi_jax.training.evaluation import evaluate
from mi_jax.training.fit import TrainingProgress
from mi_jax.training.objectives import OBJECTIVES
from mi_jax.typing import Key, Variables

_LEAST_STEPS = 10
_COLLAPSE = 0.5
_DEVIATIONS = 3.0


def held_out_rows(labels: np.ndarray, share: float) -> np.ndarray:
    """Which training images to hold out: in rising order, always the same, of every class the same share.

    Args:
        labels: int `[n]`, of the training images.
        share: of them to hold out, rounded class by class; 0 for none.

    Raises:
        InputError: when the share is not in [0, 1), or leaves fewer than two images on either side.

    Examples:
        >>> held_out_rows(np.array([0, 0, 0, 0, 1, 1, 1, 1]), 0.25).shape
        (2,)
    """
    if not (math.isfinite(share) and 0 <= share < 1):
        raise InputError(f"held-out is {share!r}; it must be 0 for none, or a share below 1, such as 0.02.")
    if share == 0:
        return np.zeros(0, np.int64)
    rng = np.random.default_rng(0)
    members = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    rows = np.sort(np.concatenate([rows[: round(share * len(rows))] for rows in members]))
    if not 2 <= len(rows) <= len(labels) - 2:
        raise InputError(
            f"held-out is {share!r}, which holds out {len(rows)} of {len(labels)} images; take another share, or 0 for "
            "none."
        )
    return rows


def split_held_out(split: data.Split, share: float) -> tuple[data.Split, data.Split | None]:
    """The images to train on and those held out (None for a share of 0), by `held_out_rows`."""
    rows = held_out_rows(split.labels, share)
    if not len(rows):
        return split, None
    return split.take(np.delete(np.arange(len(split)), rows)), split.take(rows)


def held_out_attack(attack: PGD) -> PGD:
    """The attack that judges an epoch: PGD in norm and radius of the training attack, with at least ten steps.

    The steps go at least 2.5 radii in all. A weaker attack would not see that fast adversarial training has collapsed.
    It returns the last point of one start.
    """
    steps = max(attack.steps, _LEAST_STEPS)
    step_size = max(attack.step_size, 2.5 * attack.eps / steps)
    return dataclasses.replace(
        attack, steps=steps, step_size=step_size, random_start=True, restarts=1, loss="ce", keep="last"
    )


@dataclass(frozen=True)
class HeldOutAccuracy:
    """One training at the end of an epoch.

    Attributes:
        step: updates done; epoch: passes done.
        clean, robust: accuracy on the held-out images, as they are and under the attack.
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
    """
    robust = OBJECTIVES[objective].adversarial
    return max(history, key=lambda end: end.robust if robust else end.clean)


def collapsed(history: Sequence[HeldOutAccuracy], count: int) -> bool:
    """Whether the newest epoch overfitted catastrophically (Wong et al. 2020).

    It did if the robust accuracy fell below half of its best, by more than three standard errors, while the accuracy
    on the images trained on is above what it was at that best.

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
    """The held-out accuracy of one training, epoch by epoch: one history a seed.

    Args:
        trainer: of the training.
        images: uint8 held-out images `[n h w c]`.
        labels: int `[n]`.
        attack: of the training; see `held_out_attack`.
    """

    def __init__(self, trainer: Trainer, images: Any, labels: Any, attack: PGD):
        self.attack = held_out_attack(attack)
        self.histories: dict[int, tuple[HeldOutAccuracy, ...]] = dict.fromkeys(trainer.seeds, ())
        self._trainer = trainer
        self._images, self._labels = data.to_float(jnp.asarray(images)), jnp.asarray(labels)

    @property
    def count(self) -> int:
        """How many images are held out."""
        return len(self._labels)

    def measure(self, state: State, progress: TrainingProgress) -> None:
        """Adds the epoch that has just ended to the history of every seed."""
        for (seed, member), trained in zip(self._trainer.members(state), progress.accuracy, strict=True):
            variables = self._trainer.evaluated(member)
            key = jax.random.fold_in(jax.random.key(seed), 3)
            clean, robust = _accuracies(self._trainer.network, variables, self._images, self._labels, key, self.attack)
            end = HeldOutAccuracy(progress.step, round(progress.epoch), clean, robust, float(trained))
            self.histories[seed] += (end,)

    def best(self, seed: int) -> HeldOutAccuracy:
        """The best epoch of a seed so far; there must be one."""
        return best(self.histories[seed], self._trainer.objective)

    def kept(self, seed: int) -> list[int]:
        """The steps worth keeping of a seed: of its best epoch, and of the one that was best before.

        The earlier one is needed until the later is safe on disk for every seed.
        """
        history = self.histories[seed]
        bests = {best(history[: n + 1], self._trainer.objective).step for n in range(len(history))}
        return sorted(bests)[-2:]

    def improved(self) -> list[int]:
        """The seeds of which the newest epoch is the best."""
        return [seed for seed, history in self.histories.items() if history and self.best(seed) is history[-1]]

    def collapsed(self) -> bool:
        """Whether every seed of an adversarial training has overfitted catastrophically by now: time to stop."""
        adversarial = OBJECTIVES[self._trainer.objective].adversarial
        return adversarial and all(collapsed(history, self.count) for history in self.histories.values())

    def to_json(self, seed: int) -> list[dict[str, Any]]:
        """The history of a seed, JSON-ready."""
        return [dataclasses.asdict(end) for end in self.histories[seed]]

    def resume(self, seed: int, history: Iterable[dict[str, Any]], steps: Sequence[int]) -> None:
        """Takes up a history that `to_json` gave, without best epochs that are no longer among the saved `steps`."""
        ends = [HeldOutAccuracy(**end) for end in history]
        while ends and best(ends, self._trainer.objective).step not in steps:
            ends.remove(best(ends, self._trainer.objective))
        self.histories[seed] = tuple(ends)


def _accuracies(
    network: Network, variables: Variables, images: Any, labels: Any, key: Key, attack: PGD
) -> tuple[float, float]:
    keys = iter(jax.random.split(key, math.ceil(len(labels) / BATCH_SIZE)))

    def success(x, y):
        return pgd(network.logits, variables, x, y, next(keys), config=attack).success

    _, clean = evaluate(network, variables, images, labels)
    return clean, 1 - float(np.mean(map_batches(success, images, labels)))
