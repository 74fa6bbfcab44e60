"""Mirrors the records of a run to TensorBoard while they are written; needs tensorboardX."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from mi_jax.errors import InputError
from mi_jax.records.table import Record

_PARTS = (
    "layer",
    "estimator",
    "noise_rule",
    "image_set",
    "inputs",
    "attack",
    "source",
    "distortion",
    "level",
    "factor",
)
"""Columns that a tag names, after the quantity."""


class TensorBoard:
    """Scalars in `<folder>/<training>-<seed>`, so that the curves of all trainings share a tag; a context manager.

    Records of single classes, failed ones and those of an entire run are left out.
    """

    def __init__(self, folder: Path):
        try:
            from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise InputError("TensorBoard needs tensorboardX; run `pip install 'mi_jax[tensorboard]'`.") from None
        self._folder, self._writer_of = folder, SummaryWriter
        self._writers: dict[str, Any] = {}

    def __enter__(self) -> "TensorBoard":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        for writer in self._writers.values():
            writer.close()

    def __call__(self, rows: Sequence[Record]) -> None:
        """Writes the rows that are scalars of one training and seed."""
        for row in rows:
            if row.value is not None and row.class_ is None and None not in (row.training, row.seed, row.step):
                self._writer(f"{row.training}-{row.seed}").add_scalar(tag(row), row.value, row.step)
        for writer in self._writers.values():
            writer.flush()

    def _writer(self, name: str) -> Any:
        if name not in self._writers:
            self._writers[name] = self._writer_of(str(self._folder / name))
        return self._writers[name]


def tag(row: Record) -> str:
    """The name of a record's curve.

    Examples:
        >>> tag(Record(quantity="accuracy", value=0.5, image_set="test", inputs="clean", training="nt"))
        'accuracy/test/clean'
    """
    parts = (getattr(row, name) for name in _PARTS)
    named = (f"{part:g}" if isinstance(part, float) else str(part) for part in parts if part is not None)
    return "/".join([row.quantity, *named])
