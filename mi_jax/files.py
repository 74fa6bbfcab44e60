"""Files that are replaced atomically: a reader sees, and a kill leaves, either the old content or the new."""

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
