"""The file of a run's records: JSON lines, only ever appended to, each closed by a checksum.

A published run has them as a compressed table of columns instead, see `published`. It is read as it is, and unpacked to
lines before anything is written.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mi_jax.errors import InputError
from mi_jax.files import replacing, sync
from mi_jax.records import published
from mi_jax.records.lines import Reader, closed, is_intact
from mi_jax.records.table import Record

FILE_NAME, PUBLISHED_NAME = "records.jsonl", published.FILE_NAME
_BLOCK_BYTES = 2**19
"""Bytes whose lines are Python objects at a time: few enough for the processor's cache."""
_RESTORE = "restore the file from a copy, or repeat the command that started the run with --overwrite"


def append(run_dir: str | os.PathLike[str], records: Iterable[Record]) -> int:
    """Appends records to a run's file; they are on disk when this returns.

    The batch is written completely or not at all, unless the process is killed; the next `append` drops a partial
    line that a kill leaves. One process may write at a time.

    Args:
        run_dir: an existing directory.
        records: what to append.

    Returns:
        The number of records appended.

    Raises:
        InputError: if the directory is missing or cannot be written to.
    """
    lines = [closed(record.to_json().encode()) for record in records]
    path = _unpacked(_file_in(run_dir))
    try:
        created = not path.exists()
        with open(path, "ab+", buffering=0) as file:
            end = _end_of_last_line(file, path)
            file.truncate(end)
            rest = b"".join(lines)
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(end)
                raise
            os.fsync(file.fileno())
        if created:
            sync(path.parent)
    except OSError as error:
        raise InputError(
            f"Cannot write to {path} ({error.strerror}); free space or make it writable, then run the command again."
        ) from error
    return len(lines)


def load(run_dir: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> pd.DataFrame:
    """Loads the records of a run directory, or of several one below the other, as a tidy table: one row per number.

    Columns are those of `Record`: text as `str` or None, integers and flags as nullable `Int64` and `boolean`, `ok` as
    bool, the rest as float64 with NaN where absent. A last line that is being written, or that a kill cut off, is left
    out. A measurement that was repeated, as by a study run twice, counts once, as last made.

    Args:
        run_dir: one directory, or several.

    Returns:
        The table.

    Raises:
        InputError: if a directory is no path, it or its records are missing, or if a line is damaged (the message gives
            its number).

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as run_dir:
        ...     _ = append(run_dir, [Record(quantity="accuracy", value=0.5, training="nt", seed=0)])
        ...     load(run_dir)[["training", "seed", "quantity", "value"]].to_dict("records")
        [{'training': 'nt', 'seed': 0, 'quantity': 'accuracy', 'value': 0.5}]
    """
    given: Any = run_dir
    directories = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    if not directories:
        raise InputError("No run directory was given; give at least one.")
    for directory in directories:
        if not isinstance(directory, str | os.PathLike):
            raise InputError(f"Invalid run_dir {directory!r}: expected the path of a run directory, or a list of them.")
    tables = [_load(directory) for directory in directories]
    return tables[0] if len(tables) == 1 else pd.concat(tables, ignore_index=True)


def size(run_dir: str | os.PathLike[str]) -> int:
    """Bytes of records written so far; `truncate` takes this number to return to the present state.

    Args:
        run_dir: an existing directory.

    Returns:
        The size of the records file; 0 where there is none.

    Raises:
        InputError: if the directory is missing.
    """
    path = _unpacked(_file_in(run_dir))
    return path.stat().st_size if path.exists() else 0


def compress(run_dir: str | os.PathLike[str], destination: str | os.PathLike[str], *, length: int | None = None) -> int:
    """Writes the records of a run to a compressed file in another directory, from which `load` reads them.

    A measurement that was repeated is written once, as last made. Values and standard errors are rounded to seven
    significant digits, numerical errors, which are bounds, up to two.

    Args:
        run_dir: the directory of the run.
        destination: an existing directory without records.
        length: number of bytes to copy, as `size` gave it; None for all.

    Returns:
        The length of the copied records, as `size` will give it.

    Raises:
        InputError: if a directory or the records are missing, or a record is damaged.
    """
    table = _load(run_dir, length)
    target = _file_in(destination)
    with replacing(target.with_name(PUBLISHED_NAME)) as file:
        published.write(table, file)
    return _length(target)


def truncate(run_dir: str | os.PathLike[str], length: int) -> None:
    """Cuts the records back to what they were when `size` was `length`, so that a resumed run writes no row twice.

    Args:
        run_dir: an existing directory.
        length: in bytes, as `size` gave it.

    Raises:
        InputError: if the directory is missing, if the file is shorter than that, if a line does not end there, or if
            the file cannot be written to.
    """
    check_length(run_dir, length)
    path = _file_in(run_dir)
    if size(run_dir) == length:
        return
    try:
        with open(path, "rb+") as file:
            file.seek(max(length - 1, 0))
            if length and file.read(1) != b"\n":
                raise InputError(
                    f"{path} cannot be cut to {length} bytes, as no line ends there: the file was changed by another "
                    f"program; {_RESTORE}."
                )
            file.truncate(length)
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(f"Cannot rewrite {path} ({error.strerror}); make it writable.") from error


def check_length(run_dir: str | os.PathLike[str], length: int) -> None:
    """Rejects records of which a part is lost; compressed ones stay compressed.

    Args:
        run_dir: an existing directory.
        length: in bytes, as `size` gave it when the newest stage was completed.

    Raises:
        InputError: if the directory is missing, or the records are missing, damaged or shorter than that.
    """
    path = _file_in(run_dir)
    if not length:
        return
    try:
        found = _length(path)
    except FileNotFoundError:
        raise InputError(f"{path} is missing, but {length} bytes had been written; {_RESTORE}.") from None
    except OSError as error:
        raise InputError(f"Cannot read {path} ({error.strerror}); make it a readable file.") from error
    if found < length:
        raise InputError(f"{path} has {found} bytes, but {length} had been written; {_RESTORE}.")


def _length(path: Path) -> int:
    """The size of the file of records, or what it would be unpacked where there is only a published one."""
    if _is_published(path):
        return sum(len(closed(line)) for line in published.lines(path.with_name(PUBLISHED_NAME)))
    return path.stat().st_size


def _file_in(run_dir: str | os.PathLike[str]) -> Path:
    directory = Path(run_dir)
    if not directory.is_dir():
        state = "is not a directory" if directory.exists() else "does not exist"
        raise InputError(f"The run directory {directory} {state}; give the directory of a run.")
    return directory / FILE_NAME


def _is_published(path: Path) -> bool:
    """Whether there is only the file of a published run in place of the file of records."""
    return not path.exists() and path.with_name(PUBLISHED_NAME).exists()


def _unpacked(path: Path) -> Path:
    """The path of the file of records, unpacked where there is only a published one."""
    if _is_published(path):
        with replacing(path) as file:
            file.writelines(map(closed, published.lines(path.with_name(PUBLISHED_NAME))))
    return path


def _load(run_dir: str | os.PathLike[str], length: int | None = None) -> pd.DataFrame:
    """The table of the records in the first `length` bytes."""
    path = _file_in(run_dir)
    try:
        if _is_published(path):
            return published.read(path.with_name(PUBLISHED_NAME))
        reader = Reader(path)
        with open(path, "rb") as file:
            for lines in _whole_lines(file, path, length):
                reader.read(lines)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; the directory holds no run yet; start one there.") from None
    except OSError as error:
        raise InputError(f"Cannot read {path} ({error.strerror}); make it a readable file.") from error
    return reader.table()


def _whole_lines(file: Any, path: Path, length: int | None) -> Iterator[list[bytes]]:
    """The whole lines of each block of the first `length` bytes of the file, without line breaks."""
    rest = b""
    while block := file.read(_BLOCK_BYTES if length is None else min(_BLOCK_BYTES, length - file.tell())):
        *lines, rest = (rest + block).split(b"\n")
        if lines:
            yield lines
    _check_cut_line(rest, path)


def _check_cut_line(line: bytes, path: Path) -> None:
    """A kill leaves part of a line; a whole line followed by another byte is a damaged line break."""
    if is_intact(line[:-1]):
        raise InputError(
            f"The end of {path} is damaged; restore the file from a copy, or replace its last byte by \\n."
        )


def _end_of_last_line(file: Any, path: Path) -> int:
    """Where the last whole line ends: the size of the file unless a kill cut its last line off."""
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return 0
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return end
    file.seek(0)
    content = file.read()
    length = content.rfind(b"\n") + 1
    _check_cut_line(content[length:], path)
    return length
