"""Records of measurements: the schema, the file they are stored in, and the queries behind figures and claims."""

from typing import TYPE_CHECKING, Any

from mi_jax.records.table import COLUMNS, MEASUREMENT, Record, information_record

if TYPE_CHECKING:
    from mi_jax.records.file import FILE_NAME, PUBLISHED_NAME, append, check_length, compress, load, size, truncate

__all__ = [
    "COLUMNS",
    "FILE_NAME",
    "MEASUREMENT",
    "PUBLISHED_NAME",
    "Record",
    "append",
    "check_length",
    "compress",
    "information_record",
    "load",
    "size",
    "truncate",
]


def __getattr__(name: str) -> Any:
    if name in __all__:  # on first use, as pandas is slow to import
        import mi_jax.records.file

        return getattr(mi_jax.records.file, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
