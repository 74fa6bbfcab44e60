"""A trained network as a run left it, ready for a notebook. What lies on disk is `storage.checkpoints`' affair."""

import os
from dataclasses import dataclass
from pathlib import Path

import jax

from mi_jax.runs import json_codec as configs
from mi_jax.errors import InputError
from mi_jax.models import Network
from mi_jax.runs.config import RunConfig
from mi_jax.runs.checkpoints import Checkpoints
from mi_jax.runs.directory import read_json
from mi_jax.typing import Variables


@dataclass(frozen=True)
class Restored:
    """A network at one moment of its training.

    Attributes:
        network: its description: `restored.network.apply(restored.variables, x)`.
        variables: its variables, on the device.
        config: what the run was asked to do.
        step: updates done; epoch: passes done.
        passed_over: why newer checkpoints were not taken; empty if the newest is intact.
    """

    network: Network
    variables: Variables
    config: RunConfig
    step: int
    epoch: float
    passed_over: tuple[str, ...]


def restore(run_dir: str | os.PathLike[str], *, training: str, seed: int = 0, step: int | None = None) -> Restored:
    """The newest intact checkpoint of one training, or that of the given step.

    Args:
        run_dir: a directory made by `experiments/run.py`.
        training: objective, such as `nt` or `at`.
        seed: which of the run's seeds.
        step: updates done, one of `steps(...)`; the newest intact by default.

    Raises:
        InputError: when the directory is no run's, the training, seed or step is not in it, or none is intact.
    """
    path = Path(run_dir)
    config = configs.from_dict(RunConfig, read_json(path / "config.json"), where=str(path / "config.json"))
    store = _store(path, config, training, seed)
    saved = store.restore(step)
    store.close()
    if saved is None:
        raise InputError(f"{path} holds no checkpoint of training {training!r}, seed {seed}, yet.")
    network = configs.from_dict(Network, saved.metadata["network"])
    variables = jax.device_put({"batch_stats": {}, **saved.state["variables"]})
    return Restored(network, variables, config, saved.step, saved.metadata["epoch"], saved.passed_over)


def steps(run_dir: str | os.PathLike[str], *, training: str, seed: int = 0) -> list[int]:
    """The steps that `restore` can be asked for, oldest first."""
    path = Path(run_dir)
    config = configs.from_dict(RunConfig, read_json(path / "config.json"), where=str(path / "config.json"))
    store = _store(path, config, training, seed)
    found = store.steps()
    store.close()
    return found


def _store(path: Path, config: RunConfig, training: str, seed: int) -> Checkpoints:
    if training not in config.trainings:
        raise InputError(f"{path} has no training {training!r}; it has {', '.join(config.trainings)}.")
    if not 0 <= seed < config.seeds:
        raise InputError(f"{path} has no seed {seed}; it has 0 to {config.seeds - 1}.")
    return Checkpoints(path / "checkpoints" / training / str(seed))
