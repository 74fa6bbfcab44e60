"""The schema of records: every number that a run measures, with the columns that identify it."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from mi_jax.errors import InputError
from mi_jax.statistics.jackknife import blocks_to_text

INTEGERS = ("seed", "step", "attack_steps", "restarts", "n", "class")
FLOATS = ("epoch", "eps", "level", "value", "stderr", "noise_variance", "numerical_error")
FLAGS = ("reduced", "saturated", "ok")
"""Columns by type; the others are text."""
MAX_INTEGER = 2**53
"""Integers are below it: they pass through float64 when a table is read."""
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
        attack, norm, eps, attack_steps, restarts, reduced: the attack behind adversarial inputs: `pgd` knows the label
            (where images have two cues, and so no single label, it is on the network's prediction),
            `pgd-prediction` and `pgd-random-target` do not; `eps` in pixel units of [0, 1]; `reduced` where AutoAttack
            has less than its default budget.
        source: training whose network the adversarial images were made on, where it is another one.
        distortion, level: name and strength of an image distortion; `level` also is a frequency (cycles per image).
        layer, estimator, quantity: what was measured, where and how: `accuracy`, `i_tx_upper`, ...
        value, stderr, unit, n: the number, its standard error, `bits`, `nats` or `1`, and the sample size.
        blocks: how the value changes without each block of images, see `blocks_to_text`; every network and layer has
            the same blocks, so a difference between them has an error over images.
        noise_rule, noise_variance: how the noise of an information estimate was chosen, and its variance.
        class_: class that the row is about; the column is called `class`.
        factor: factor that the row is about: `shape`, `texture`, `colour`, `label`, `shuffled`.
        reference: what a difference or a permutation baseline is taken against.
        saturated: whether an information estimate is at its sample-size limit.
        unreliable: the limit that an information estimate is beyond, one of `mi_jax.information.estimator.Limit`:
            `saturated`, `sample size`, `dimension`, `batch size` or `training`.
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
    checkpoint: str | None = None
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
    blocks: str | None = None
    unit: str | None = None
    n: Scalar | None = None
    noise_rule: str | None = None
    noise_variance: Scalar | None = None
    class_: Scalar | None = None
    factor: str | None = None
    reference: str | None = None
    saturated: Scalar | None = None
    unreliable: str | None = None
    numerical_error: Scalar | None = None
    ok: Scalar = True
    note: str | None = None

    def __post_init__(self) -> None:
        for names, kind in ((INTEGERS, int), (FLOATS, float), (FLAGS, bool)):
            self._convert(names, kind)
        broken = [name for name in FLOATS if (v := getattr(self, name)) is not None and not math.isfinite(v)]
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
            name = _FIELD_OF.get(name, name)
            given = getattr(self, name)
            if given is None or (type(given) is kind and (kind is not int or abs(given) < MAX_INTEGER)):
                continue
            try:
                array = np.asarray(given)
                converted = kind(array.item())
                if kind is not float and (converted != array.item() or abs(converted) >= MAX_INTEGER):
                    raise ValueError
            except (TypeError, ValueError, OverflowError):
                raise InputError(
                    f"The record of {self.quantity!r} has {name}={given!r}; expected a single {kind.__name__}."
                ) from None
            object.__setattr__(self, name, converted)

    def to_json(self) -> str:
        """This record as one line of JSON without the line break; columns that are None are left out."""
        present = ((column, getattr(self, field)) for field, column in _COLUMN_OF.items())
        columns = {column: value for column, value in present if value is not None}
        return as_json(columns)


def as_json(columns: Mapping[str, Any]) -> str:
    """The columns of a record as one line of JSON without the line break."""
    return json.dumps(columns, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


_FIELD_OF = {"class": "class_"}
_COLUMN_OF = {field.name: field.name.rstrip("_") for field in dataclasses.fields(Record)}
COLUMNS = tuple(_COLUMN_OF.values())
"""The columns of every record, in the order in which they are stored."""
MEASUREMENT = [
    name
    for name in COLUMNS
    if name
    not in ("run", "value", "stderr", "blocks", "unit", "n", "saturated", "unreliable", "numerical_error", "ok", "note")
]
"""The columns that identify a measurement; a later row of the same identity supersedes the earlier one."""


def information_record(
    quantity: str,
    nats: Scalar | None,
    *,
    stderr: Scalar | None = None,
    numerical_error: Scalar | None = None,
    without_block: np.ndarray | None = None,
    **columns: Any,
) -> Record:
    """A record in bits of an information value, its standard error and its numerical error, all given in nats.

    Everything else computes in nats; they become bits only here.

    Args:
        quantity: as of `Record`.
        nats: the value.
        stderr: its standard error in nats.
        numerical_error: error bound of the arithmetic in nats.
        without_block: the value without each block of images in turn, nats `[blocks]`; stored in `blocks`.
        **columns: other fields of `Record`.

    Examples:
        >>> information_record("i_tx_upper", math.log(8), layer="conv1").value
        3.0
    """
    value, stderr, numerical_error = (
        None if part is None else float(part) / math.log(2.0) for part in (nats, stderr, numerical_error)
    )
    if without_block is not None:
        columns["blocks"] = blocks_to_text(np.asarray(without_block) / math.log(2.0))
    return Record(
        quantity=quantity, value=value, stderr=stderr, numerical_error=numerical_error, unit="bits", **columns
    )
