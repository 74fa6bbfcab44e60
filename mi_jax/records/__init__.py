"""Records of measurements: the schema, the file they are stored in, and the queries behind figures and claims."""

from mi_jax.records.file import FILE_NAME, append, load, size, truncate
from mi_jax.records.table import COLUMNS, MEASUREMENT, Record, information_record

__all__ = ["COLUMNS", "FILE_NAME", "MEASUREMENT", "Record", "append", "information_record", "load", "size", "truncate"]
