"""Restores a trained network from a run directory."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mi_jax import checks
from mi_jax.errors import InputError
from mi_jax.models import Network
from mi_jax.runs import json_codec
from mi_jax.runs.checkpoints import Checkpoints, variables_of
from mi_jax.runs.config import RunConfig
from mi_jax.runs.run_files import completed_stages, saved_config
from mi_jax.runs.stages import is_trained
from mi_jax.typing import Variables


@dataclass(frozen=True)
class Restored:
    """A network at one step of its training.

    Attributes:
        network: the network, used as `restored.network.apply(restored.variables, x)`.
        variables: its variables, on the device.
        config: configuration of the run.
        step: updates done.
        epoch: passes over the training images done.
        passed_over: why newer checkpoints were not taken; empty if the newest is intact.
    """

    network: Network
    variables: Variables
    config: RunConfig
    step: int
    epoch: float
    passed_over: tuple[str, ...]


def restore(run_dir: str | os.PathLike[str], *, training: str, seed: int = 0, step: int | None = None) -> Restored:
    """Restores the newest intact checkpoint of one training, or that of the given step.

    Args:
        run_dir: the directory of a run.
        training: objective, such as `nt` or `at`.
        seed: which of the run's seeds.
        step: updates done, one of `steps(...)`; the newest intact by default.

    Returns:
        The network, its variables, and where in the training they are from.

    Raises:
        InputError: when the directory is not a run's, the training, seed or step is not in it, or none is intact.

    Examples:
        >>> restored = restore("runs/shapetex-vgg", training="at", seed=0)  # doctest: +SKIP
        >>> logits, taps = restored.network.apply(restored.variables, x)  # doctest: +SKIP
    """
    path = _checked_path(run_dir)
    config = read_config(path)
    store = _store(path, config, training, seed)
    saved = store.restore(step)
    store.close()
    if saved is None:
        raise InputError(f"{path} holds no checkpoint of training {training!r}, seed {seed}, yet.")
    network = json_codec.from_dict(Network, saved.metadata["network"])
    return Restored(network, variables_of(saved.state), config, saved.step, saved.metadata["epoch"], saved.passed_over)


def restore_finished(run_dir: str | os.PathLike[str], *, training: str, seed: int = 0) -> Restored:
    """Restores the network that a run evaluates: the best on held-out images where there are any, else the last.

    Args:
        run_dir, training, seed: as for `restore`.

    Raises:
        InputError: as `restore`, and when the training is not finished.
    """
    path = _checked_path(run_dir)
    config = read_config(path)
    store = _store(path, config, training, seed)
    step = finished_step(path, store, config, training, seed)
    store.close()
    found = restore(path, training=training, seed=seed, step=step)
    if completed_stages(path) is None and not config.held_out and found.epoch < config.epochs:
        raise _unfinished(path, training, seed)
    return found


def steps(run_dir: str | os.PathLike[str], *, training: str, seed: int = 0) -> list[int]:
    """The steps that `restore` takes, oldest first.

    Args:
        run_dir: the directory of a run.
        training: objective, such as `nt` or `at`.
        seed: which of the run's seeds.

    Returns:
        Updates done at each saved checkpoint.

    Raises:
        InputError: when the directory is not a run's, or the training or seed is not in it.
    """
    path = _checked_path(run_dir)
    store = _store(path, read_config(path), training, seed)
    found = store.steps()
    store.close()
    return found


def finished_step(path: Path, store: Checkpoints, config: RunConfig, training: str, seed: int) -> int | None:
    """The step of the network that a run evaluates, see `restore_finished`; None where nothing was saved.

    Args:
        path: the run directory.
        store: its checkpoints of the training and seed.
        config: its configuration.
        training: objective.
        seed: which of the run's seeds.

    Raises:
        InputError: when an intact `progress.json` does not count the training as completed, or when images were held
            out and nothing intact says which step was best on them.
    """
    completed = completed_stages(path)
    if completed is not None and not is_trained(completed, training, seed):
        raise _unfinished(path, training, seed)
    steps = store.steps()
    if not steps or not config.held_out:
        return steps[-1] if steps else None
    step = store.best_step()
    return store.find_best(training).step if step is None else step


def read_config(path: Path) -> RunConfig:
    """The configuration of a run.

    Args:
        path: the run directory.

    Raises:
        InputError: when the directory is not a run's, or its configuration is damaged.
    """
    return json_codec.from_dict(RunConfig, saved_config(path), where=str(path / "config.json"))


def _checked_path(run_dir: Any) -> Path:
    if not isinstance(run_dir, str | os.PathLike):
        raise InputError(f"Invalid run_dir {run_dir!r}: expected the path of a run directory.")
    return Path(run_dir)


def _unfinished(path: Path, training: str, seed: int) -> InputError:
    return InputError(
        f"{path} has not finished training {training!r} of seed {seed}; repeat the command that started the run."
    )


def _store(path: Path, config: RunConfig, training: str, seed: int) -> Checkpoints:
    if training not in config.trainings:
        raise InputError(f"{path} has no training {training!r}; it has {', '.join(config.trainings)}.")
    checks.count("seed", seed, 0)
    if not 0 <= seed < config.seeds:
        seeds = "seed 0 only" if config.seeds == 1 else f"seeds 0 to {config.seeds - 1}"
        raise InputError(f"{path} has no seed {seed}; it has {seeds}.")
    return Checkpoints(path / "checkpoints" / training / str(seed))
