"""Records mirrored to TensorBoard: one folder a training and seed, tags that name the measurement."""

import sys
import types

import pytest

from mi_jax.errors import InputError
from mi_jax.records import Record
from mi_jax.runs.tensorboard import TensorBoard


class Writer:
    """As much of tensorboardX as is used."""

    written: dict[str, list] = {}  # noqa: RUF012
    closed = 0

    def __init__(self, folder: str):
        self.rows = Writer.written.setdefault(folder, [])

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.rows.append((tag, value, step))

    def flush(self) -> None: ...

    def close(self) -> None:
        Writer.closed += 1


def test_scalars_of_every_training_have_their_folder_step_and_tag(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", types.SimpleNamespace(SummaryWriter=Writer))
    common = {"seed": 0, "step": 7, "image_set": "test", "inputs": "clean"}
    rows = [
        Record(quantity="accuracy", value=0.5, training="nt", **common),
        Record(quantity="i_tx_upper", value=2.5, training="at", layer="conv1", noise_rule="trace", **common),
        Record(quantity="accuracy", value=0.5, training="nt", class_=3, **common),
        Record(quantity="i_tx", value=None, ok=False, note="constant", training="nt", **common),
        Record(quantity="accuracy", value=0.4, training="nt", distortion="fog", level=2.0, **common),
    ]
    with TensorBoard(tmp_path) as mirror:
        mirror(rows)
    assert Writer.written == {
        str(tmp_path / "nt-0"): [("accuracy/test/clean", 0.5, 7), ("accuracy/test/clean/fog/2", 0.4, 7)],
        str(tmp_path / "at-0"): [("i_tx_upper/conv1/trace/test/clean", 2.5, 7)],
    }
    assert Writer.closed == 2


def test_its_absence_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(InputError, match=r"run `pip install 'mi_jax\[tensorboard\]'`"):
        TensorBoard(tmp_path)
