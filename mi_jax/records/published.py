"""The records of a published run: all rows as one table of columns, compressed.

The file is one JSON object of columns, each a list with null where a row lacks it; columns that no row has are left
out. It takes half the space of the compressed lines of the same rows, and its format has its own checksum.
"""

import json
import lzma
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from mi_jax.errors import InputError
from mi_jax.records.lines import typed
from mi_jax.records.table import COLUMNS, FLAGS, FLOATS, INTEGERS, MAX_INTEGER, as_json

FILE_NAME = "records.json.xz"
_PRESET = 9 | lzma.PRESET_EXTREME
_ROUNDED = ("value", "stderr")
"""Columns that are rounded; none of them identifies a measurement."""


def write(table: pd.DataFrame, file: IO[bytes]) -> None:
    """Writes a table of records, with fewer digits of values and errors.

    Values and standard errors are rounded to seven significant digits, numerical errors, which are bounds, up to two.

    Args:
        table: as `mi_jax.records.load` returns it.
        file: open for writing.
    """
    columns = {name: [None if pd.isna(v) else v for v in table[name].tolist()] for name in COLUMNS}
    for name in _ROUNDED:
        columns[name] = [None if v is None else float(f"{v:.7g}") for v in columns[name]]
    columns["numerical_error"] = [None if v is None else _rounded_up(v) for v in columns["numerical_error"]]
    present = {name: values for name, values in columns.items() if name == "quantity" or set(values) - {None}}
    file.write(lzma.compress(as_json(present).encode(), preset=_PRESET))


def _rounded_up(bound: float) -> float:
    """The bound with two digits: never less, and the same if it has two."""
    nearest = float(f"{bound:.2g}")
    # Half a unit of the second digit is at most 5 %.
    return nearest if nearest >= bound else float(f"{1.05 * bound:.2g}")


def read(path: Path) -> pd.DataFrame:
    """The table of a file, typed as `mi_jax.records.load` says.

    Raises:
        InputError: if the file is damaged or has an unknown column.
    """
    columns = _columns(path)
    absent = [None] * len(columns["quantity"])
    arrays = {name: np.array(columns.get(name, absent), _dtype(name)) for name in COLUMNS}
    return pd.DataFrame({name: typed(name, array) for name, array in arrays.items()}, copy=False)


def lines(path: Path) -> Iterator[bytes]:
    """The rows of a file as lines of JSON without checksums and line breaks.

    Raises:
        InputError: as `read`.
    """
    columns = _columns(path)
    names = [name for name in COLUMNS if name in columns]
    for row in zip(*[columns[name] for name in names], strict=True):
        yield as_json({name: value for name, value in zip(names, row, strict=True) if value is not None}).encode()


def _columns(path: Path) -> dict[str, list[Any]]:
    try:
        with lzma.open(path) as file:
            columns = json.load(file)
    except (lzma.LZMAError, EOFError):
        raise InputError(f"{path} is damaged: it cannot be decompressed; restore the file from a copy.") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path} is damaged: it is not JSON; restore the file from a copy.") from None
    if not isinstance(columns, dict) or not isinstance(columns.get("quantity"), list):
        raise InputError(f"{path} is damaged: it is not a table of records; restore the file from a copy.")
    for name, values in columns.items():
        if name not in COLUMNS:
            raise InputError(f"{path} has a column {name!r} that this version does not know; use a newer one.")
        if not isinstance(values, list) or len(values) != len(columns["quantity"]):
            raise InputError(
                f"{path} is damaged: its column {name!r} has another length than others; restore the file from a copy."
            )
        if not _fits(name, values):
            kind = "a number" if name in _TYPES else "text"
            raise InputError(
                f"The column {name!r} of {path} holds a value that is not {kind}; restore the file from a copy."
            )
    return columns


def _fits(name: str, values: list[Any]) -> bool:
    """Whether the values have the type and the range of their column, or are absent."""
    present = [value for value in values if value is not None]
    if not set(map(type, present)) <= set(_TYPES.get(name, (str,))):
        return False
    largest = MAX_INTEGER if name in INTEGERS else sys.float_info.max
    return name not in _TYPES or all(abs(value) < largest for value in present)


_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(INTEGERS, (int,)),
    **dict.fromkeys(FLOATS, (int, float)),
    **dict.fromkeys(FLAGS, (bool,)),
}
"""Types of the values of a column; others hold text."""


def _dtype(name: str) -> type:
    return float if name in _TYPES else object
