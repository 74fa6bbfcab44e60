"""Opens the directory of a resumable job for writing: checks whose it is, locks it, and repairs what a kill left."""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mi_jax import processes, records
from mi_jax.errors import InputError
from mi_jax.files import PART, disk_errors_explained, write_json
from mi_jax.runs import json_codec
from mi_jax.runs.directory import RunDir
from mi_jax.runs.run_files import (
    CONFIG,
    PROGRESS,
    PROVENANCE,
    check_records,
    read_object,
    read_progress,
    saved_config,
)

_OWN_FILES = (CONFIG, PROVENANCE, PROGRESS, records.FILE_NAME, records.PUBLISHED_NAME)
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


class Growth(NamedTuple):
    """How a job may be continued with more of something than it was started with, such as seeds."""

    field: str
    """Number in the configuration that may be larger than before."""
    reopened: tuple[str, ...]
    """Stages that are done again, as they are about all."""


@contextmanager
def open_run(
    path: Path,
    config: Any,
    *,
    overwrite: bool = False,
    growth: Growth | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[RunDir]:
    """Opens a new or unfinished directory with exactly this configuration for writing, and releases it on leaving.

    Files that a kill left half-written are removed; a damaged `config.json` or `progress.json` is rebuilt.

    Args:
        path: the directory; made when absent.
        config: frozen dataclass; what `config.json` holds or must hold. An option that the file lacks counts as its
            default.
        overwrite: deletes an earlier run there first; never deletes a directory that is not a run's.
        growth: in what the configuration may ask for more than the directory was begun with.
        say: called with a sentence for people.

    Raises:
        InputError: when the path is a file, holds other things than a run, belongs to another configuration, is being
            written by another process, or cannot be written.
    """
    with disk_errors_explained(path), ExitStack() as until_left:
        yield processes.on_first(lambda: _open(path, config, overwrite, growth, say, until_left))


def _open(
    path: Path,
    config: Any,
    overwrite: bool,
    growth: Growth | None,
    say: Callable[[str], None],
    until_left: ExitStack,
) -> RunDir:
    """The directory, locked until the stack is left."""
    wanted = json_codec.to_dict(config)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; expected a directory, new or of an earlier run.")
    # A kill in the first write leaves the lock and a part of config.json: not yet a run, but nothing else either.
    found = path.is_dir() and not all(map(_is_of_first_write, path.iterdir()))
    is_run = any((path / name).exists() for name in (CONFIG, PROGRESS))
    if found and not is_run:
        raise InputError(f"{path} holds files that do not belong to a run; choose a new directory.")
    if is_run and overwrite:
        _require_run(path, wanted)
    path.mkdir(parents=True, exist_ok=True)
    lock, is_locked = _lock(path)
    until_left.callback(os.close, lock)
    if not is_locked:
        say(f"The file system of {path} cannot lock; make sure that no other process writes there.")
    if is_run and overwrite:
        _clear(path)
    if is_run and not overwrite:
        return _opened(path, type(config), wanted, is_locked=is_locked, growth=growth, say=say)
    _remove_leftovers(path)
    write_json(path / CONFIG, wanted)
    fresh = RunDir(path, wanted, is_locked=is_locked, progress={"completed": [], "records_bytes": 0})
    fresh.write_progress()
    return fresh


def _is_of_first_write(entry: Path) -> bool:
    return entry.name == ".lock" or (entry.name.startswith(CONFIG) and entry.name.endswith(PART))


def _opened(
    path: Path,
    kind: type,
    wanted: dict[str, Any],
    *,
    is_locked: bool,
    growth: Growth | None,
    say: Callable[[str], None],
) -> RunDir:
    """The directory of an earlier run of this configuration."""
    saved = saved_config(path)
    before = json_codec.to_dict(json_codec.from_dict(kind, saved, where=str(path / CONFIG)))
    more = {growth.field: max(before[growth.field], wanted[growth.field])} if growth else {}
    _require_same({**before, **more}, wanted, path)
    _remove_leftovers(path)
    if read_object(path / CONFIG) != saved:
        say(f"{path / CONFIG} was damaged; it is rebuilt from its copy in {PROGRESS}.")
        write_json(path / CONFIG, saved)
    check_records(path)
    progress = read_progress(path)
    if progress is None and (path / records.FILE_NAME).exists():
        records.append(path, [])  # drops the part of a line that a kill left
    run = RunDir(path, wanted, is_locked=is_locked, progress=progress)
    if progress is None:
        say(
            f"{path / PROGRESS} is missing or damaged; it is rebuilt: trained networks are kept, "
            "and what was measured on them afterwards is measured again."
        )
        run.write_progress()
    if growth and before != wanted:
        run.grow(before[growth.field], *growth.reopened)
        # Last: killed before it, the same command grows the job again, and the earlier one completes it as it was.
        write_json(path / CONFIG, wanted)
        say(f"{path} is continued with {growth.field} {wanted[growth.field]} in place of {before[growth.field]}.")
    return run


def _lock(path: Path) -> tuple[int, bool]:
    """The open lock file, and whether it is locked: some network file systems cannot."""
    lock = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return lock, False
        os.close(lock)
        if not isinstance(error, BlockingIOError):
            raise
        raise InputError(f"Another process is writing {path}; wait for it, or choose another directory.") from None
    return lock, True


def _remove_leftovers(path: Path) -> None:
    """Removes what killed saves left: parts of files, and directories of steps that were not completed."""
    for folder in ("", "figures/", "tables/", "checkpoints/*/*/"):
        for part in path.glob(f"{folder}*.[0-9]*-[0-9]*{PART}"):
            part.unlink(missing_ok=True)
    for step in path.glob("checkpoints/*/*/*.orbax-checkpoint-tmp*"):
        shutil.rmtree(step)


def _require_run(path: Path, wanted: dict[str, Any]) -> None:
    """Raises `InputError` where nothing but the name `config.json` speaks for a run: other programs have one too."""
    has_records = any((path / name).exists() for name in (records.FILE_NAME, records.PUBLISHED_NAME))
    config = read_object(path / CONFIG)
    # One of an older version lacks a few keys; that of another program may share a few, such as `epochs`.
    like_ours = config.keys() <= wanted.keys() and len(config) > len(wanted) / 2
    if read_progress(path) is None and not has_records and not like_ours:
        raise InputError(f"{path / CONFIG} is not of a run, so nothing was deleted; choose a new directory.")


def _clear(path: Path) -> None:
    """Deletes what a run wrote; a directory that is a link is emptied of it and stays."""
    # config.json goes last: until then the directory is still known for a run's.
    seeds = [seed for seed in path.glob("checkpoints/*/*") if seed.name.isdigit() and seed.is_dir()]
    for seed in seeds:
        for entry in list(seed.iterdir()):
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    for pattern in ("figures/*.png", "figures/*.svg", "tables/*.csv", "tensorboard/*/events.out.tfevents.*"):
        for file in path.glob(pattern):
            file.unlink()
    for directory in ("checkpoints", "figures", "tables", "tensorboard"):
        if not (path / directory).is_symlink():
            shutil.rmtree(path / directory, ignore_errors=True)
    for name in ("report.html", *(file.name for file in path.glob("*.npz")), *reversed(_OWN_FILES)):
        (path / name).unlink(missing_ok=True)


def _require_same(old: dict[str, Any], new: dict[str, Any], path: Path) -> None:
    lines = list(differences(old, new))
    if lines:
        raise InputError(
            f"{path} holds a run of another configuration ({'; '.join(lines[:3])}"
            f"{f'; and {len(lines) - 3} more' if len(lines) > 3 else ''}); "
            "choose another directory, or overwrite it."
        )


def differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    """Phrases such as `seeds was 2, now 4`, one for each value in which two nested dicts differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            yield from differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield f"{name} was {old!r}, now {new!r}"
