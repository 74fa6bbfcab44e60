"""The file of a run's records: JSON lines, only ever appended to, each closed by a checksum.

A line is a JSON object without the columns that are absent, whose last member is `crc`: the CRC-32 of the line without
that member, in hexadecimal. Lines without it are of older runs, see `old_rows`.

A published run has the file compressed, with fewer digits of values and errors, as all of them make it half as large
again, and with empty checksums, as its format has its own. It is read as it is, and unpacked, with the checksums,
before anything is written.
"""

import itertools
import json
import lzma
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from mi_jax.errors import InputError
from mi_jax.files import replacing, sync
from mi_jax.records import old_rows
from mi_jax.records.table import COLUMNS, FLAGS, FLOATS, INTEGERS, MEASUREMENT, Record, as_json

FILE_NAME, COMPRESSED_NAME = "records.jsonl", "records.jsonl.xz"
_BLOCK_BYTES = 2**19
"""Bytes whose lines are Python objects at a time: few enough for the processor's cache."""
_CRC, _CRC_LENGTH = b',"crc":"', len(',"crc":"01234567"}')
_EMPTY_CRC = _CRC + b'"}'
_PRESET = 9 | lzma.PRESET_EXTREME
"""Of published records: a quarter smaller than with level 9 only."""
_QUANTITY = b'"quantity":'
_RESTORE = "restore the file from a copy, or repeat the command that started the run with --overwrite"
_NUMBERS = (*INTEGERS, *FLOATS, *FLAGS)
_ROUNDED = ("value", "stderr")
"""Columns of published records that are rounded; none of them identifies a measurement."""


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
    lines = [_closed(record.to_json()) for record in records]
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

    Values and standard errors are rounded to seven significant digits, numerical errors, which are bounds, up to two.

    Args:
        run_dir: the directory of the run.
        destination: an existing directory without records.
        length: number of bytes to copy, as `size` gave it; None for all.

    Returns:
        The length of the copied records, as `size` will give it.

    Raises:
        InputError: if a directory or the records are missing, or a record is damaged.
    """
    load(run_dir)  # refuses damaged records
    target = _file_in(destination).with_name(COMPRESSED_NAME)
    path, read, written = _file_in(run_dir), 0, 0
    with _opened(path) as source, replacing(target) as file, lzma.open(file, "wb", preset=_PRESET) as packed:
        for line in itertools.chain.from_iterable(_whole_lines(source, path)):
            read += len(line) + 1
            if length is not None and read > length:
                break
            has_checksum = _is_intact(line)
            short = _rounded(line) if has_checksum else line
            written += len(short) + 1
            packed.write((short[:-_CRC_LENGTH] + _EMPTY_CRC if has_checksum else short) + b"\n")
    return written


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
    """The size of the file of records, or what it would be unpacked where there is only the compressed one."""
    with _damage_explained(path), _opened(path) as file:
        if isinstance(file, lzma.LZMAFile):
            return sum(len(line) + 1 for lines in _whole_lines(file, path) for line in lines)
        return os.fstat(file.fileno()).st_size


def _closed(line: str) -> bytes:
    """A line of JSON as it is written: with its checksum and the line break."""
    return _with_checksum(line.encode()) + b"\n"


def _with_checksum(line: bytes) -> bytes:
    return line[:-1] + _CRC + b'%08x"}' % zlib.crc32(line)


def _rounded(line: bytes) -> bytes:
    """A line with a checksum, with fewer digits."""
    row = json.loads(line[:-_CRC_LENGTH] + b"}")
    row |= {name: float(f"{row[name]:.7g}") for name in _ROUNDED if isinstance(row.get(name), float)}
    if isinstance(row.get("numerical_error"), float):
        row["numerical_error"] = float(f"{1.05 * row['numerical_error']:.2g}")  # never less: half a digit is 5 %
    return _with_checksum(as_json(row).encode())


def _is_intact(line: bytes) -> bool:
    """Whether a line without its line break ends with the checksum of what is before it."""
    return line[-_CRC_LENGTH:] == _CRC + b'%08x"}' % zlib.crc32(b"}", zlib.crc32(line[:-_CRC_LENGTH]))


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The row of a line with a checksum, or None if it is not JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _file_in(run_dir: str | os.PathLike[str]) -> Path:
    directory = Path(run_dir)
    if not directory.is_dir():
        state = "is not a directory" if directory.exists() else "does not exist"
        raise InputError(f"The run directory {directory} {state}; give the directory of a run.")
    return directory / FILE_NAME


def _opened(path: Path) -> IO[bytes]:
    """The file of records, or the compressed one where there is no other."""
    packed = path.with_name(COMPRESSED_NAME)
    return lzma.open(packed) if packed.exists() and not path.exists() else open(path, "rb")


def _unpacked(path: Path) -> Path:
    """The path of the file of records, unpacked where there is only the compressed one."""
    if not path.exists() and path.with_name(COMPRESSED_NAME).exists():
        with _damage_explained(path), _opened(path) as source, replacing(path) as file:
            for lines in _whole_lines(source, path):
                file.writelines(line + b"\n" for line in lines)
    return path


@contextmanager
def _damage_explained(path: Path) -> Iterator[None]:
    """Turns errors of a compressed file into one `InputError`."""
    try:
        yield
    except (lzma.LZMAError, EOFError):
        packed = path.with_name(COMPRESSED_NAME)
        raise InputError(f"{packed} is damaged: it cannot be decompressed; restore the file from a copy.") from None


def _load(run_dir: str | os.PathLike[str]) -> pd.DataFrame:
    path = _file_in(run_dir)
    reader = _Reader(path)
    try:
        with _damage_explained(path), _opened(path) as file:
            for lines in _whole_lines(file, path):
                reader.read(lines)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; the directory holds no run yet; start one there.") from None
    except OSError as error:
        raise InputError(f"Cannot read {path} ({error.strerror}); make it a readable file.") from error
    return reader.table()


def _whole_lines(file: Any, path: Path) -> Iterator[list[bytes]]:
    """The whole lines of each block of the file, without line breaks; those of a compressed one with checksums."""
    rest = b""
    while block := file.read(_BLOCK_BYTES):
        *lines, rest = (rest + block).split(b"\n")
        if lines and isinstance(file, lzma.LZMAFile):
            lines = [
                _with_checksum(line.removesuffix(_EMPTY_CRC) + b"}") if line.endswith(_EMPTY_CRC) else line
                for line in lines
            ]
        if lines:
            yield lines
    _check_cut_line(rest, path)


def _check_cut_line(line: bytes, path: Path) -> None:
    """A kill leaves part of a line; a whole line followed by another byte is a damaged line break."""
    if _is_intact(line[:-1]):
        raise InputError(
            f"The end of {path} is damaged; restore the file from a copy, or replace its last byte by \\n."
        )


class _Reader:
    """Turns lines into columns.

    What precedes `quantity` in a line is the same in many lines, so each different beginning is parsed once.
    """

    def __init__(self, path: Path):
        self._path, self._count = path, 0
        texts: dict[str, dict[str | None, int]] = {name: {None: 0} for name in COLUMNS if name not in _NUMBERS}
        self._beginnings, self._rests = _Columns(texts, path), _Columns(texts, path)
        self._known: dict[bytes, int] = {b"{": 0}
        self._new: list[dict[str, Any]] = [{}]
        """Beginnings that are not in the columns yet."""
        self._beginning_of: list[np.ndarray] = []
        self._is_old: list[np.ndarray] = []

    def read(self, lines: list[bytes]) -> None:
        """Adds the rows of some lines."""
        intact = np.fromiter(map(_is_intact, lines), bool, len(lines))
        if intact.all():
            parts = [line.partition(_QUANTITY) for line in lines]
            if all(rest for _, _, rest in parts):
                try:
                    rows = json.loads(b"[{" + b",{".join([_QUANTITY + rest for _, _, rest in parts]) + b"]")
                    places = [self._known[b] if b in self._known else self._add(b) for b, _, _ in parts]
                except (ValueError, RecursionError):
                    pass  # a line is damaged: the loop below finds which
                else:
                    self._append(rows, np.array(places), ~intact)
                    return
        rows = [_parsed(line) if whole else old_rows.parse(line) for line, whole in zip(lines, intact, strict=True)]
        if None in rows:
            raise InputError(
                f"Line {self._count + rows.index(None) + 1} of {self._path} is damaged: it is not a record, or it does "
                "not match its checksum; restore the file from a copy, or delete that line and measure again."
            )
        self._append([row for row in rows if row is not None], np.zeros(len(rows), int), ~intact)

    def table(self) -> pd.DataFrame:
        """The columns in their types, every measurement once."""
        self._append([], np.zeros(0, int), np.zeros(0, bool))
        empty = np.zeros(0, int)
        index = np.concatenate([empty, *self._beginning_of])
        is_old = np.concatenate([empty, *self._is_old]).astype(bool)
        rests, beginnings = self._rests.joined(), self._beginnings.joined()
        columns = {name: _filled(rests.pop(name), beginnings[name], index) for name in COLUMNS}
        table = pd.DataFrame({name: self._typed(name, values) for name, values in columns.items()}, copy=False)
        keys = {name: columns[name] for name in MEASUREMENT}
        if is_old.any():
            table = old_rows.with_checkpoints(table, is_old)
            keys["checkpoint"] = pd.factorize(table["checkpoint"])[0]
        several = {name: key for name, key in keys.items() if name == "quantity" or len(pd.unique(key)) > 1}
        latest = ~pd.DataFrame(several, copy=False).duplicated(keep="last").to_numpy()
        return table if latest.all() else table.loc[latest].reset_index(drop=True)

    def _append(self, rows: list[dict[str, Any]], beginning_of: np.ndarray, is_old: np.ndarray) -> None:
        self._count += len(rows)
        self._rests.extend(rows)
        self._beginnings.extend(self._new)
        self._new = []
        self._beginning_of.append(beginning_of)
        self._is_old.append(is_old)

    def _add(self, beginning: bytes) -> int:
        self._new.append(json.loads(beginning.removesuffix(b",") + b"}"))
        return self._known.setdefault(beginning, len(self._known))

    def _typed(self, name: str, values: np.ndarray) -> Any:
        if name in self._rests.texts:
            return pd.Series(np.array(list(self._rests.texts[name]), object)[values], dtype=object)
        if name == "ok":
            return values != 0
        if name in FLOATS:
            return values
        absent = np.isnan(values)
        kind = pd.arrays.IntegerArray if name in INTEGERS else pd.arrays.BooleanArray
        return kind(np.where(absent, 0, values).astype(np.int64 if name in INTEGERS else bool), absent)


def _filled(values: np.ndarray, default: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The values, and where they are absent the default at that index."""
    is_absent = (lambda part: part == 0) if values.dtype == np.int32 else np.isnan
    return values if is_absent(default).all() else np.where(is_absent(values), default[index], values)


class _Columns:
    """Columns that grow by chunks of rows: numbers as float64, text as indices into `texts`, its distinct values."""

    def __init__(self, texts: dict[str, dict[str | None, int]], path: Path):
        self.texts, self._path = texts, path
        self._parts: dict[str, list[np.ndarray]] = {name: [] for name in COLUMNS}

    def extend(self, rows: list[dict[str, Any]]) -> None:
        """Adds rows to every column."""
        chunk = {name: np.zeros(len(rows), np.int32) for name in self.texts}
        chunk |= {name: np.full(len(rows), np.nan) for name in _NUMBERS}
        layouts: dict[tuple[str, ...], list[int]] = {}
        for i, row in enumerate(rows):
            layouts.setdefault(tuple(row), []).append(i)
        # Rows with the same columns are transposed together, which is much faster than to ask each row for each column.
        for names, places in layouts.items():
            index = np.array(places)
            for name, values in zip(names, zip(*[rows[i].values() for i in places], strict=True), strict=True):
                if name != "crc":
                    self._fill(chunk, name, index, values)
        for name, part in chunk.items():
            self._parts[name].append(part)

    def joined(self) -> dict[str, np.ndarray]:
        """Every column as one array; the chunks are released."""
        result = {}
        for name, parts in self._parts.items():
            empty = np.zeros(0, np.int32 if name in self.texts else np.float64)
            result[name] = np.concatenate([empty, *parts])
            parts.clear()
        return result

    def _fill(self, chunk: dict[str, np.ndarray], name: str, index: np.ndarray, values: tuple) -> None:
        if name not in chunk:
            raise InputError(f"{self._path} has a column {name!r} that this version does not know; use a newer one.")
        try:
            if name in self.texts:
                known = self.texts[name]
                for value in set(values):
                    known.setdefault(value, len(known))
                chunk[name][index] = np.fromiter(map(known.__getitem__, values), np.int32, len(values))
            else:
                chunk[name][index] = np.fromiter(values, np.float64, len(values))
        except (TypeError, ValueError, OverflowError):
            kind = "text" if name in self.texts else "a number"
            raise InputError(
                f"The column {name!r} of {self._path} holds a value that is not {kind}; restore the file from a copy."
            ) from None


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
