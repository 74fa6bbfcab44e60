"""The lines of a file of records: JSON objects, each closed by a checksum, and how they become a table.

A line is a JSON object without the columns that are absent, whose last member is `crc`: the CRC-32 of the line without
that member, in hexadecimal. Lines without it are of older runs, see `old_rows`.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mi_jax.errors import InputError
from mi_jax.records import old_rows
from mi_jax.records.table import COLUMNS, FLAGS, FLOATS, INTEGERS, MAX_INTEGER, MEASUREMENT

_CRC, _CRC_LENGTH = b',"crc":"', len(',"crc":"01234567"}')
_QUANTITY = b'"quantity":'
_NUMBERS = (*INTEGERS, *FLOATS, *FLAGS)


def closed(line: bytes) -> bytes:
    """A line of JSON as it is written: with its checksum and the line break."""
    return line[:-1] + _CRC + b'%08x"}\n' % zlib.crc32(line)


def is_intact(line: bytes) -> bool:
    """Whether a line without its line break ends with the checksum of what is before it."""
    return line[-_CRC_LENGTH:] == _CRC + b'%08x"}' % zlib.crc32(b"}", zlib.crc32(line[:-_CRC_LENGTH]))


class Reader:
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
        intact = np.fromiter(map(is_intact, lines), bool, len(lines))
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
        texts = {name: np.array(list(values), object) for name, values in self._rests.texts.items()}
        arrays = {name: texts[name][values] if name in texts else values for name, values in columns.items()}
        table = pd.DataFrame({name: typed(name, array) for name, array in arrays.items()}, copy=False)
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


def typed(name: str, values: np.ndarray) -> Any:
    """A column in its type, from an array of text (None where absent) or of float64 (NaN where absent)."""
    if name not in _NUMBERS:
        return pd.Series(values, dtype=object)
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
                chunk[name][index] = numbers = np.fromiter(values, np.float64, len(values))
                if name in INTEGERS and not np.all((numbers == np.floor(numbers)) & (np.abs(numbers) < MAX_INTEGER)):
                    raise ValueError
        except (TypeError, ValueError, OverflowError):
            kind = "text" if name in self.texts else "a number"
            raise InputError(
                f"The column {name!r} of {self._path} holds a value that is not {kind}; restore the file from a copy."
            ) from None


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The row of a line with a checksum, or None if it is not JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
