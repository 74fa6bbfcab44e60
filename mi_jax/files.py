"""Files that are replaced atomically: a reader sees, and a kill leaves, either the old content or the new."""

import errno
import hashlib
import json
import os
import threading
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from mi_jax.errors import InputError

_UNREADABLE = (
    OSError, EOFError, ValueError, KeyError, NotImplementedError, RuntimeError, TypeError, tokenize.TokenError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What `np.load` raises for damaged files, depending on which byte is another."""
PART = ".part"
"""Ending of a file that is being written; only a kill leaves one behind."""


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """An open binary file that replaces `path` on leaving; an exception leaves `path` as it was.

    Args:
        path: the file.
        durable: whether to wait until the content is on disk; unnecessary for what can be made again.
    """
    # A name of its own, so that two writers of one file, such as a run and `mi-jax report`, do not write into one part.
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_native_id()}{PART}")
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(part, path)
        if durable:
            sync(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def disk_errors_explained(path: Path) -> Iterator[None]:
    """Turns errors of the file system (full, read-only, forbidden, no directory) into one `InputError`."""
    try:
        yield
    except OSError as error:
        again = "start the same command again to resume"
        reasons = {
            errno.ENOSPC: f"the disk is full: free some space and {again}",
            errno.EDQUOT: f"the quota is used up: free some space and {again}",
            errno.EIO: f"the disk failed: {again}",
            errno.ESTALE: f"the file server lost it: {again}",
            errno.EROFS: "the file system is read-only: choose another directory",
            errno.EACCES: "permission is denied: choose another directory",
            errno.EPERM: "permission is denied: choose another directory",
            errno.ENAMETOOLONG: "the name is too long: choose another directory",
            errno.ENOTDIR: "part of the path is a file: choose another directory",
            errno.EEXIST: "it is a file, not a directory: choose another directory",
            errno.EISDIR: "it is a directory, not a file: remove it, or choose another directory",
            errno.EFBIG: "the file is larger than the file system or a limit allows: choose another directory",
            errno.EMFILE: f"too many files are open: raise the limit (`ulimit -n`) and {again}",
            errno.ETIMEDOUT: f"the file server did not answer: {again}",
            errno.EBUSY: f"it is in use: {again}",
            errno.ELOOP: "its links form a loop: choose another directory",
            errno.ENOENT: "it is missing, or cannot be made there: choose another directory",
        }
        if error.errno not in reasons:
            raise
        place = Path(error.filename2 or error.filename or path)  # the second is the file that another is to replace
        leads_nowhere = os.path.islink(place) and not os.path.exists(place)
        reason = "it is a broken link: remove it" if leads_nowhere else reasons[error.errno]
        raise InputError(f"Cannot read or write {place}: {reason}.") from error


def sync(path: Path) -> None:
    """Makes the content of a file, or the entries of a directory, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Replaces a text file, in UTF-8."""
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Replaces a JSON file."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Replaces a compressed `.npz` file."""
    with replacing(path) as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays in an `.npz` file.

    Raises:
        InputError: when the file is missing, cannot be read or is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except _UNREADABLE as error:
        raise InputError(f"{path} is not a readable array file ({error}); delete it and make it again.") from error


def printable(text: str) -> str:
    """Text whose bytes that are not UTF-8 are escaped, as they come from the names of files."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def json_digest(value: Any) -> str:
    """SHA-256 (hex) of a JSON-ready value; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def user_cache() -> Path | None:
    """The folder for data that can be recreated, `$XDG_CACHE_HOME/mi_jax` or `~/.cache/mi_jax`; None without a home."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "mi_jax"
    except RuntimeError:
        return None
