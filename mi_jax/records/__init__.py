"""The rows that a run leaves behind: their schema, their file, and what figures and claims read of them."""

from mi_jax.records.table import (
    COLUMNS,
    FILE_NAME,
    MEASUREMENT,
    Record,
    append,
    information_record,
    load,
    size,
    truncate,
)

__all__ = ["COLUMNS", "FILE_NAME", "MEASUREMENT", "Record", "append", "information_record", "load", "size", "truncate"]
