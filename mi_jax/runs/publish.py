"""A copy of a run that is small enough to be committed or mailed."""

import os
import shutil
import tempfile
from pathlib import Path

from mi_jax import records
from mi_jax.errors import InputError
from mi_jax.files import write_json
from mi_jax.runs import run_files
from mi_jax.runs.checkpoints import Checkpoints
from mi_jax.runs.config import RunConfig
from mi_jax.runs.restore import finished_step, read_config


def publish(run_dir: str | os.PathLike[str], destination: str | os.PathLike[str], *, networks: bool = False) -> Path:
    """Copies a run without what can be made again from the copy: no figures, no report, and compressed records.

    Values and standard errors are rounded to seven significant digits, numerical errors up to two; records of an
    unfinished stage are left out.

    The copy is a run directory: `mj.records.load` and `mi-jax report` read it, `mi-jax study` needs its networks, and
    `mi-jax sweep --cells-from` takes the cells of a sweep from it.

    Args:
        run_dir: the directory of a run or of a sweep.
        destination: a directory that does not exist yet.
        networks: whether to copy the finished network of every training and seed, without the optimizer's state.

    Returns:
        The path of the copy.

    Raises:
        InputError: when the directory is not a run's, its records are missing, damaged or partly lost, networks are
            wanted that are not finished, missing or damaged, or the destination exists or is inside the run.
    """
    source, target = Path(run_dir), Path(destination)
    saved, config = run_files.saved_config(source), read_config(source) if networks else None
    run_files.check_records(source)
    if target.exists():
        raise InputError(f"{target} exists; give a new directory for the copy.")
    if Path(os.path.realpath(source)) in Path(os.path.realpath(target)).parents:
        raise InputError(f"{target} is inside the run; give a directory outside of {source} for the copy.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{target.name}-", dir=target.parent, ignore_cleanup_errors=True
    ) as scratch:
        part = Path(scratch) / target.name
        part.mkdir()
        length = records.compress(source, part, length=run_files.records_bytes(source))
        for file in [*(file for file in source.glob("*.json") if file.name != "config.json"), *source.glob("*.npz")]:
            shutil.copyfile(file, part / file.name)
        write_json(part / "config.json", saved)
        run_files.set_records_bytes(part, length)
        if config is not None:
            for training in config.trainings:
                for seed in range(config.seeds):
                    _copy_network(source, part, config, training, seed)
        part.rename(target)
    return target


def _copy_network(source: Path, target: Path, config: RunConfig, training: str, seed: int) -> None:
    """Saves the variables of the finished network of one training and seed again, without what only training needs."""
    place = f"checkpoints/{training}/{seed}"
    store, copy = Checkpoints(source / place), Checkpoints(target / place)
    try:
        saved = store.restore(finished_step(source, store, config, training, seed))
        if saved is None:
            raise InputError(f"{source / place} holds no network; finish the run, or copy it without networks.")
        copy.save(saved.step, {"variables": saved.state["variables"]}, saved.metadata)
    finally:
        store.close()
        copy.close()
