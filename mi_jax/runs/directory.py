"""One run's directory: who may write it, what it was asked for, and how far it came. Knows no numbers.

config.json  provenance.json  progress.json  records.jsonl  checkpoints/<training>/<seed>/<step>/  figures/  report.html
"""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mi_jax.errors import InputError

_OWN_FILES = ("config.json", "provenance.json", "progress.json", "records.jsonl")
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextmanager
def disk_errors_explained(path: Path) -> Iterator[None]:
    """Turns what the file system says (full, read-only, forbidden, not a directory) into one `InputError`."""
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: "the disk is full: free some space and start the same command again, it goes on",
            errno.EDQUOT: "the quota is used up: free some space and start the same command again, it goes on",
            errno.EIO: "the disk failed: start the same command again, it goes on",
            errno.ESTALE: "the file server lost it: start the same command again, it goes on",
            errno.EROFS: "the file system is read-only: choose another directory",
            errno.EACCES: "permission is denied: choose another directory",
            errno.EPERM: "permission is denied: choose another directory",
            errno.ENAMETOOLONG: "the name is too long: choose another directory",
            errno.ENOTDIR: "a part of the path is a file: choose another directory",
            errno.EEXIST: "it is a file, not a directory: choose another directory",
        }
        if error.errno not in reasons:
            raise
        raise InputError(f"Cannot read or write {error.filename or path}: {reasons[error.errno]}.") from error


def write_json(path: Path, value: Any) -> None:
    """Replaces a JSON file as a whole: a reader, or a kill, sees the old one or the new one."""
    part = path.with_name(path.name + ".part")
    with _unlinked_on_failure(part):
        with open(part, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Replaces an `.npz` file as a whole."""
    part = path.with_name(f"{path.stem}.part.npz")
    with _unlinked_on_failure(part):
        np.savez_compressed(part, allow_pickle=False, **arrays)
        os.replace(part, path)


@contextmanager
def _unlinked_on_failure(part: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        InputError: when the file is missing, cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} is missing: {path.parent} is not a run directory.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged ({error}); start the run anew with --overwrite.") from None


class RunDir:
    """A run directory opened for writing by one process, from `open_run`; `close` lets the next one in.

    `records_bytes` is the length of the records when the newest unit of work was completed. `is_locked` is false where
    the file system cannot lock, so that nothing keeps another process out.
    """

    def __init__(self, path: Path, lock: int, *, is_locked: bool):
        self.path = path
        self.is_locked = is_locked
        self._lock = lock
        progress = path / "progress.json"
        found = read_json(progress) if progress.exists() else {"completed": [], "records_bytes": 0}
        self._completed: list[str] = found["completed"]
        self.records_bytes: int = found["records_bytes"]

    def checkpoints(self, training: str, seed: int) -> Path:
        """Where the steps of one training are saved."""
        return self.path / "checkpoints" / training / str(seed)

    def is_complete(self, unit: str) -> bool:
        """Whether a unit of work (`train/nt/0`, `report`, ...) is done, its rows included."""
        return unit in self._completed

    def complete(self, unit: str) -> None:
        """Marks a unit of work, and the records written up to now, as done; survives a kill."""
        self._completed.append(unit)
        self._write_progress()

    def reopen(self, unit: str) -> None:
        """Marks a unit of work as not done after all; all rows stay, and count until they are measured again."""
        self._completed.remove(unit)
        self._write_progress()

    def _write_progress(self) -> None:
        records = self.path / "records.jsonl"
        self.records_bytes = records.stat().st_size if records.exists() else 0
        progress = {"completed": self._completed, "records_bytes": self.records_bytes}
        write_json(self.path / "progress.json", progress)

    def close(self) -> None:
        """Gives the directory back."""
        os.close(self._lock)


def open_run(path: Path, config: dict[str, Any], *, overwrite: bool) -> RunDir:
    """Opens a new or unfinished run directory of this very config for writing.

    Args:
        path: the directory; made when absent.
        config: JSON-ready; what `config.json` holds or must hold.
        overwrite: deletes an earlier run there first; never deletes a directory that is not a run's.

    Raises:
        InputError: when the path is a file, holds other things than a run, belongs to another config, is being
            written by another process, or cannot be written.
    """
    with disk_errors_explained(path):
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file; --run-dir must be a directory, new or of an earlier run.")
        # A kill in the first write leaves the lock and a part of config.json: not yet a run, but nothing else either.
        found = path.is_dir() and any(e.name != ".lock" and e.suffix != ".part" for e in path.iterdir())
        is_run = (path / "config.json").exists()
        if found and not is_run:
            raise InputError(f"{path} holds other files than a run's; name a new directory with --run-dir.")
        path.mkdir(parents=True, exist_ok=True)
        lock, is_locked = _lock(path)
        try:
            if is_run and overwrite:
                _clear(path)
            if is_run and not overwrite:
                _require_same(read_json(path / "config.json"), config, path)
            else:
                write_json(path / "config.json", config)
            return RunDir(path, lock, is_locked=is_locked)
        except BaseException:
            os.close(lock)
            raise


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
        raise InputError(f"Another process is writing {path}; wait for it, or choose another --run-dir.") from None
    return lock, True


def _clear(path: Path) -> None:
    # config.json goes last: until then the directory is still known for a run's.
    for directory in ("checkpoints", "figures"):
        shutil.rmtree(path / directory, ignore_errors=True)
    for name in ("report.html", *(file.name for file in path.glob("*.npz")), *reversed(_OWN_FILES)):
        (path / name).unlink(missing_ok=True)


def _require_same(old: dict[str, Any], new: dict[str, Any], path: Path) -> None:
    lines = list(_differences(old, new))
    if lines:
        raise InputError(
            f"{path} holds a run of another configuration ({'; '.join(lines[:3])}"
            f"{f'; and {len(lines) - 3} more' if len(lines) > 3 else ''}); "
            "name another --run-dir, or --overwrite it."
        )


def _differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            yield from _differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield f"{name} was {old!r}, now {new!r}"
