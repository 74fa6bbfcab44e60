"""The rows that a run leaves behind: one schema, an append-only JSON-lines file, and a tidy table to read it back.

It does not decide what is measured, and it holds no arrays and no checkpoints.
"""

import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mi_jax.errors import InputError

if TYPE_CHECKING:
    import pandas

FILE_NAME = "records.jsonl"
_INTEGERS = ("seed", "step", "attack_steps", "restarts", "n", "class_")
_FLOATS = ("epoch", "eps", "level", "value", "stderr", "noise_variance", "numerical_error")
_FLAGS = ("reduced", "saturated", "ok")
Scalar = Any
"""A Python number, or a NumPy or JAX array of one element; it is stored as a Python number."""
Checkpoint = Literal["epoch", "best", "last"]
"""Which network of a training a row describes, see `Record`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One measured number with everything that identifies it; columns that do not apply are None.

    A value that is not finite is stored as None with `ok=False` and the reason in `note`, so the file holds no NaN.

    Args:
        run: name of the run directory when the row was written; not part of a measurement's identity.
        cell: cell of a cue-strength sweep.
        arch, dataset, training, seed: the network, its data and how it was trained.
        step, epoch: updates, and passes over the training set, before the measurement; 0 is the untrained network.
        checkpoint: `epoch` for a measurement during training; `best` (on held-out images) or `last` for a finished
            network.
        image_set: `train`, `held_out`, `test`, or a diagnostic set such as `conflict`, `factorial`, `redundant`.
        inputs: `clean`, `adversarial` or `noisy`.
        attack, norm, eps, attack_steps, restarts, reduced: the attack behind adversarial inputs; `eps` in pixel units of
            [0, 1]; `reduced` where AutoAttack has less than its default budget.
        source: training whose network the adversarial images were made on, where it is another one.
        distortion, level: name and strength of an image distortion; `level` also is a frequency (cycles per image).
        layer, estimator, quantity: what was measured, where and how: `accuracy`, `i_tx_upper`, ...
        value, stderr, unit, n: the number, its standard error, `bits`, `nats` or `1`, and the sample size.
        noise_rule, noise_variance: how the noise of an information estimate was chosen, and its variance.
        class_: class that the row is about; the column is called `class`.
        factor: factor that the row is about: `shape`, `texture`, `colour`, `label`, `shuffled`.
        reference: what a difference or a permutation baseline is taken against.
        saturated: whether an information estimate is at its sample-size limit.
        numerical_error: error bound of the arithmetic, in the unit of `value`.
        ok, note: `ok=False` marks a failed measurement, and `note` gives the reason; notes are for people only.

    Raises:
        InputError: if a value is missing without `ok=False`, if `ok=False` has no `note`, or if a field has the wrong
            type.

    Examples:
        >>> Record(quantity="accuracy", value=0.5, training="nt", seed=0).ok
        True
        >>> Record(quantity="i_tx_upper", value=float("nan")).note
        'value is nan'
    """

    run: str | None = None
    cell: str | None = None
    arch: str | None = None
    dataset: str | None = None
    training: str | None = None
    seed: Scalar | None = None
    step: Scalar | None = None
    epoch: Scalar | None = None
    checkpoint: Checkpoint | None = None
    image_set: str | None = None
    inputs: str | None = None
    attack: str | None = None
    norm: str | None = None
    eps: Scalar | None = None
    attack_steps: Scalar | None = None
    restarts: Scalar | None = None
    reduced: Scalar | None = None
    source: str | None = None
    distortion: str | None = None
    level: Scalar | None = None
    layer: str | None = None
    estimator: str | None = None
    quantity: str
    value: Scalar | None
    stderr: Scalar | None = None
    unit: str | None = None
    n: Scalar | None = None
    noise_rule: str | None = None
    noise_variance: Scalar | None = None
    class_: Scalar | None = None
    factor: str | None = None
    reference: str | None = None
    saturated: Scalar | None = None
    numerical_error: Scalar | None = None
    ok: Scalar = True
    note: str | None = None

    def __post_init__(self) -> None:
        self._convert(_INTEGERS, int)
        self._convert(_FLOATS, float)
        self._convert(_FLAGS, bool)
        broken = [name for name in _FLOATS if (v := getattr(self, name)) is not None and not math.isfinite(v)]
        if broken:
            reasons = [f"{name} is {getattr(self, name)}" for name in broken]
            for name in broken:
                object.__setattr__(self, name, None)
            object.__setattr__(self, "ok", False)
            object.__setattr__(self, "note", "; ".join([self.note, *reasons] if self.note else reasons))
        if self.ok and self.value is None:
            raise InputError(
                f"The record of {self.quantity!r} has no value; give one, or ok=False with the reason in note."
            )
        if not self.ok and not self.note:
            raise InputError(f"The record of {self.quantity!r} has ok=False and no reason; give it in note.")

    def _convert(self, names: Sequence[str], kind: Callable[[Any], Any]) -> None:
        for name in names:
            given = getattr(self, name)
            if given is None or type(given) is kind:
                continue
            try:
                array = np.asarray(given)
                converted = kind(array.item())
                if kind is not float and converted != array.item():
                    raise ValueError
            except (TypeError, ValueError):
                raise InputError(
                    f"The record of {self.quantity!r} has {name}={given!r}; expected a single {kind.__name__}."
                ) from None
            object.__setattr__(self, name, converted)

    def to_json(self) -> str:
        """This record as one line of JSON without the line break; columns that are None are left out."""
        present = ((column, getattr(self, field)) for field, column in _COLUMN_OF.items())
        return json.dumps({c: v for c, v in present if v is not None}, allow_nan=False, ensure_ascii=False)


_COLUMN_OF = {field.name: field.name.rstrip("_") for field in dataclasses.fields(Record)}
COLUMNS = tuple(_COLUMN_OF.values())
"""The columns of every record, in the order in which they are stored."""
MEASUREMENT = [
    name
    for name in COLUMNS
    if name not in ("run", "value", "stderr", "unit", "n", "saturated", "numerical_error", "ok", "note")
]
"""The columns that identify a measurement; a later row of the same identity supersedes the earlier one."""


def information_record(quantity: str, nats: Scalar | None, *, stderr: Scalar | None = None, **columns: Any) -> Record:
    """A record in bits of an information value (and its standard error) given in nats.

    The library computes in nats; this is the one place where they become bits.

    >>> information_record("i_tx_upper", math.log(8), layer="conv1").value
    3.0
    """
    scale = math.log(2.0)
    return Record(
        quantity=quantity,
        value=None if nats is None else float(nats) / scale,
        stderr=None if stderr is None else float(stderr) / scale,
        unit="bits",
        **columns,
    )


def append(run_dir: str | os.PathLike[str], records: Iterable[Record]) -> int:
    """Adds records to a run's file and returns how many; they are on the disk when this returns.

    The batch is written whole or not at all, except by a kill in the middle; what such a kill leaves of the last line
    is dropped by the next `append`. One process may write at a time.

    Raises InputError if the directory is missing or cannot be written to.
    """
    lines = [record.to_json() + "\n" for record in records]
    path = _file_in(run_dir)
    try:
        created = not path.exists()
        with open(path, "ab+", buffering=0) as file:
            end = _end_of_last_line(file)
            file.truncate(end)
            rest = "".join(lines).encode()
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(end)
                raise
            os.fsync(file.fileno())
        if created:
            _sync_directory(path.parent)
    except OSError as error:
        raise InputError(
            f"cannot write to {path} ({error.strerror}); free space or make it writable and run the same command again"
        ) from error
    return len(lines)


def load(run_dir: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> "pandas.DataFrame":
    """The records of a run directory, or of several one below the other, as a tidy table: one row a number.

    Columns are those of `Record`: texts as `str` or None, `seed`, `step`, `n` as nullable integers, `saturated` as a
    nullable boolean, `ok` as bool, the rest as float64 with NaN where absent. A last line that is being written, or
    that a kill cut off, is left out. A measurement that was made again, as by a study run twice, counts as last made.

    Raises InputError if a directory or its records are missing, or if a line is corrupt (its number is named).
    """
    directories = [run_dir] if isinstance(run_dir, str | os.PathLike) else list(run_dir)
    if not directories:
        raise InputError("no run directory was given; name at least one")
    found = [(place, row) for place, directory in enumerate(directories) for _, row in _read(directory)]
    columns = {name: _typed(name, [row.get(name) for _, row in found]) for name in COLUMNS}
    import pandas as pd  # slow to import, and only needed to read

    table = pd.DataFrame({**columns, "directory": [place for place, _ in found]})
    latest = table.drop_duplicates([*MEASUREMENT, "directory"], keep="last", ignore_index=True)
    return latest.drop(columns="directory")


def size(run_dir: str | os.PathLike[str]) -> int:
    """Bytes of the records written so far: what `truncate` takes to come back to this moment."""
    path = _file_in(run_dir)
    return path.stat().st_size if path.exists() else 0


def truncate(run_dir: str | os.PathLike[str], length: int) -> None:
    """Cuts the records back to what they were when `size` was `length`, so that a resumed run writes no row twice.

    Raises InputError if the directory is missing, if the file is shorter than that, or if it cannot be written to.
    """
    path, found = _file_in(run_dir), size(run_dir)
    if found < length:
        raise InputError(f"{path} has {found} bytes, {length} were written; restore it or start anew with --overwrite")
    if found == length:
        return
    try:
        with open(path, "rb+") as file:
            file.truncate(length)
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(f"cannot rewrite {path} ({error.strerror}); make it writable") from error


def _file_in(run_dir: str | os.PathLike[str]) -> Path:
    directory = Path(run_dir)
    if not directory.is_dir():
        state = "is not a directory" if directory.exists() else "does not exist"
        raise InputError(f"the run directory {directory} {state}; give a directory made by experiments/run.py")
    return directory / FILE_NAME


def _read(run_dir: str | os.PathLike[str]) -> Iterable[tuple[bytes, dict[str, Any]]]:
    """Each whole line with its parsed row."""
    path = _file_in(run_dir)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; start the run with experiments/run.py --run-dir {run_dir}") from None
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); make it a readable file") from error
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(keepends=True), start=1):
        try:
            row = json.loads(line, parse_constant=_refuse_constant)
            if not isinstance(row, dict) or not isinstance(row.get("quantity"), str) or not set(row) <= set(COLUMNS):
                raise ValueError
        except ValueError:
            raise InputError(f"line {number} of {path} is not a record; restore the file or delete that line") from None
        yield line, row


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _typed(name: str, values: list[Any]) -> Any:
    import pandas as pd

    try:
        if name in _INTEGERS or name == "class":
            return pd.array(values, dtype="Int64")
        if name == "ok":
            return np.array([value is not False for value in values], dtype=bool)
        if name in _FLAGS:
            return pd.array(values, dtype="boolean")
        if name in _FLOATS:
            return np.array([math.nan if value is None else value for value in values], dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(
            f"the column {name!r} of the records holds a value of another type; restore the file"
        ) from None
    return pd.Series(values, dtype=object)


def _end_of_last_line(file: Any) -> int:
    """Where the last whole line ends: the size of the file unless a kill cut its last line off."""
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return 0
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return end
    file.seek(0)
    return file.read().rfind(b"\n") + 1


def _sync_directory(directory: Path) -> None:
    """Makes a new or renamed file's entry durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
