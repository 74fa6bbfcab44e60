"""Records: the schema is stored as documented, damage is found, a kill costs one line at most, and no NaN is stored."""

import dataclasses
import json
import lzma
import math
import zlib

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from mi_jax import records
from mi_jax.errors import InputError
from mi_jax.records import file as records_file
from mi_jax.records import lines
from mi_jax.records.table import FLOATS, INTEGERS, Record

DOCUMENTED = [
    *("run", "cell", "arch", "dataset", "training", "seed", "step", "epoch", "checkpoint", "image_set", "inputs"),
    *("attack", "norm", "eps", "attack_steps", "restarts", "reduced", "source", "distortion", "level", "layer"),
    *("estimator", "quantity", "value", "stderr", "blocks", "unit", "n", "noise_rule", "noise_variance", "class"),
    *("factor", "reference", "saturated", "unreliable", "numerical_error", "ok", "note"),
]


def accuracy(value, *, training="nt", seed=0, step=0, **columns):
    return Record(quantity="accuracy", value=value, training=training, seed=seed, step=step, **columns)


def lines_of(run_dir):
    return (run_dir / "records.jsonl").read_text().splitlines()


def test_a_line_has_the_columns_that_are_present_in_order_and_a_checksum(tmp_path):
    records.append(tmp_path, [accuracy(0.5, class_=3)])
    (line,) = lines_of(tmp_path)
    assert list(json.loads(line)) == ["training", "seed", "step", "quantity", "value", "class", "ok", "crc"]
    assert list(records.COLUMNS) == DOCUMENTED
    content = line[: -len(',"crc":"01234567"}')] + "}"
    assert int(json.loads(line)["crc"], 16) == zlib.crc32(content.encode())


def test_what_was_written_is_read_back_with_typed_columns(tmp_path):
    rows = [
        Record(
            **{"run": "r", "cell": "c", "arch": "vgg", "dataset": "shapetex", "training": "at", "seed": 3, "step": 40},
            **{"epoch": 1.5, "checkpoint": "best", "image_set": "test", "inputs": "adversarial", "attack": "pgd"},
            **{"norm": "linf", "eps": 8 / 255, "attack_steps": 20, "restarts": 5, "reduced": False, "source": "nt"},
            **{"distortion": "low_pass", "level": 2.0, "layer": "conv1", "estimator": "kde", "quantity": "i_tx_upper"},
            **{"value": 7.25, "stderr": 0.5, "blocks": "1 -1", "unit": "bits", "n": 1000},
            **{"noise_rule": "fixed", "noise_variance": 0.1},
            **{"class_": 3, "factor": "shape", "reference": "baseline", "saturated": False, "numerical_error": 1e-6},
            **{"ok": True, "note": "π"},
        ),
        accuracy(0.25),
    ]  # fmt: skip
    assert records.append(tmp_path, rows) == 2
    frame = records.load(tmp_path)
    assert list(frame.columns) == DOCUMENTED
    first, second = frame.iloc[0], frame.iloc[1]
    assert all(first[name] == getattr(rows[0], "class_" if name == "class" else name) for name in DOCUMENTED)
    integers, flags = ("seed", "step", "n", "class", "attack_steps", "restarts"), ("saturated", "reduced")
    kinds = dict.fromkeys(integers, "Int64") | dict.fromkeys(flags, "boolean") | {"ok": "bool", "note": "object"}
    kinds |= dict.fromkeys(("epoch", "value", "eps", "level", "numerical_error"), "float64")
    assert {name: str(frame[name].dtype) for name in kinds} == kinds
    assert second.layer is None
    assert math.isnan(second.stderr)
    assert second.n is pd.NA
    assert frame[frame.saturated].empty


def test_several_runs_are_stacked_in_the_order_given(tmp_path):
    for name, value in (("a", 0.25), ("b", 0.75)):
        (tmp_path / name).mkdir()
        records.append(tmp_path / name, [accuracy(value, run=name)])
    frame = records.load([tmp_path / "b", str(tmp_path / "a")])
    assert frame.run.tolist() == ["b", "a"]
    assert frame.value.tolist() == [0.75, 0.25]


def test_numbers_of_numpy_and_jax_are_stored_as_plain_numbers(tmp_path):
    record = accuracy(
        jnp.float32(0.5), n=np.int64(7), saturated=np.bool_(True), epoch=jnp.asarray(2), level=np.float32(8)
    )
    assert [type(v) for v in (record.value, record.n, record.saturated, record.epoch)] == [float, int, bool, float]
    records.append(tmp_path, [record])
    assert records.load(tmp_path).loc[0, ["value", "n", "level"]].tolist() == [0.5, 7, 8.0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_becomes_a_failed_row_with_its_reason(tmp_path, value):
    records.append(tmp_path, [accuracy(value, note="seven steps"), accuracy(0.5, stderr=value, step=1)])
    assert "NaN" not in "".join(lines_of(tmp_path))
    assert "Infinity" not in "".join(lines_of(tmp_path))
    frame = records.load(tmp_path)
    assert frame.ok.tolist() == [False, False]
    assert frame.note.tolist() == [f"seven steps; value is {value}", f"stderr is {value}"]
    assert math.isnan(frame.value[0])
    assert frame.value[1] == 0.5


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"value": None}, "has no value"),
        ({"value": None, "ok": False}, "no reason"),
        ({"value": np.zeros(2)}, "single float"),
        ({"value": "high"}, "single float"),
        ({"value": 1.0, "seed": 0.5}, "single int"),
    ],
)
def test_a_record_that_says_nothing_is_refused(columns, said):
    with pytest.raises(InputError, match=said):
        Record(quantity="loss", **columns)


def test_nats_become_bits_with_their_standard_error():
    record = records.information_record("i_tx", 2 * math.log(2), stderr=math.log(2) / 2, training="nt", n=5)
    assert (record.value, record.stderr, record.unit, record.n) == (2.0, 0.5, "bits", 5)
    failed = records.information_record("i_tx", None, ok=False, note="layer is constant")
    assert (failed.value, failed.ok, failed.unit) == (None, False, "bits")


def test_a_line_cut_by_a_kill_is_ignored_by_load_and_dropped_by_the_next_append(tmp_path):
    records.append(tmp_path, [accuracy(0.25), accuracy(0.5)])
    path = tmp_path / "records.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    assert records.load(tmp_path).value.tolist() == [0.25]
    records.append(tmp_path, [accuracy(0.75, epoch=2)])
    assert records.load(tmp_path).value.tolist() == [0.25, 0.75]
    assert path.read_bytes().startswith(whole[: whole.index(b"\n") + 1])


def test_a_file_that_holds_only_a_cut_line_counts_as_empty(tmp_path):
    (tmp_path / "records.jsonl").write_text('{"run": "r", "qua')
    assert records.load(tmp_path).empty
    records.append(tmp_path, [accuracy(0.75)])
    assert records.load(tmp_path).value.tolist() == [0.75]


def test_a_write_that_fails_half_way_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    records.append(tmp_path, [accuracy(0.25)])
    before = (tmp_path / "records.jsonl").read_bytes()

    class FullDisk:
        """A file that takes 10 bytes and is then full."""

        def __init__(self, file):
            self.file, self.written = file, 0

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, data):
            if self.written:
                raise OSError(28, "No space left on device")
            self.written = self.file.write(data[:10])
            return self.written

    def full_disk(*args, **kwargs):
        return FullDisk(open(*args, **kwargs))

    monkeypatch.setattr(records_file, "open", full_disk, raising=False)
    with pytest.raises(InputError, match="No space left on device"):
        records.append(tmp_path, [accuracy(0.5)])
    assert (tmp_path / "records.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    "bad",
    [
        "not json",
        '{"quantity": "loss", "value": NaN}',
        "[1]",
        '{"value": 1}',
        '{"quantity": "loss", "colour": 1}',
        pytest.param("[" * 100_000, id="nested"),
        lines.closed(b"not json}").decode().rstrip(),
        lines.closed(b'{"seed":,"quantity":"loss"}').decode().rstrip(),
        lines.closed(b'{"quantity":}').decode().rstrip(),
    ],
)
def test_a_corrupt_line_is_named_by_its_number(tmp_path, bad):
    records.append(tmp_path, [accuracy(0.25)])
    with open(tmp_path / "records.jsonl", "a") as file:
        file.write(bad + "\n")
    records.append(tmp_path, [accuracy(0.5)])
    with pytest.raises(InputError, match=r"Line 2 of .*records\.jsonl is damaged.*restore"):
        records.load(tmp_path)


def test_a_flipped_bit_anywhere_is_refused_with_the_number_of_its_line(tmp_path):
    records.append(tmp_path, [accuracy(0.25), accuracy(0.5, step=1, note="π")])
    path = tmp_path / "records.jsonl"
    whole = path.read_bytes()
    for position in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(InputError, match=r"^(Line [12] of|The end of) .*records\.jsonl is damaged.*restore"):
                records.load(tmp_path)


def test_a_damaged_end_is_not_taken_for_a_line_that_a_kill_cut_off(tmp_path):
    records.append(tmp_path, [accuracy(0.25)])
    path = tmp_path / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-1] + b"\x0b")
    with pytest.raises(InputError, match="replace its last byte"):
        records.append(tmp_path, [accuracy(0.5)])


def test_a_column_of_the_wrong_type_or_name_is_refused(tmp_path):
    for row, said in (
        ('"value":"high"', "column 'value'"),
        ('"value":1,"colour":1', "column 'colour'"),
        (f'"value":1,"n":{10**400}', "column 'n'"),
        ('"value":1,"n":1e300', "column 'n'"),
        ('"value":1,"n":0.5', "column 'n'"),
    ):
        line = f'{{"quantity":"loss",{row}}}'
        (tmp_path / "records.jsonl").write_bytes(lines.closed(line.encode()))
        with pytest.raises(InputError, match=said):
            records.load(tmp_path)


def test_missing_places_are_named(tmp_path):
    with pytest.raises(InputError, match="does not exist; give the directory"):
        records.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"records.jsonl does not exist; the directory holds no run"):
        records.load(tmp_path)
    with pytest.raises(InputError, match="at least one"):
        records.load([])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is not a directory"):
        records.append(tmp_path / "file", [])


@pytest.mark.parametrize("run_dir", [None, 5, [None]])
@pytest.mark.usefixtures("as_a_user")
def test_a_run_directory_that_is_no_path_is_named(run_dir):
    with pytest.raises(InputError, match=r"Invalid run_dir (None|5): expected the path of a run directory, or"):
        records.load(run_dir)


def test_records_are_cut_back_to_an_earlier_moment_byte_for_byte(tmp_path):
    assert records.size(tmp_path) == 0
    records.append(tmp_path, [accuracy(0.25)])
    moment, before = records.size(tmp_path), (tmp_path / "records.jsonl").read_bytes()
    records.append(tmp_path, [accuracy(0.5), accuracy(0.75)])
    with open(tmp_path / "records.jsonl", "a") as file:
        file.write('{"run": "cut')
    records.truncate(tmp_path, moment)
    assert (tmp_path / "records.jsonl").read_bytes() == before
    records.truncate(tmp_path, moment)
    assert records.load(tmp_path).value.tolist() == [0.25]


def test_records_that_lost_rows_are_not_taken_for_whole(tmp_path):
    records.append(tmp_path, [accuracy(0.25)])
    with pytest.raises(InputError, match="had been written; restore the file"):
        records.truncate(tmp_path, records.size(tmp_path) + 1)


def test_records_are_only_cut_back_to_the_end_of_a_line(tmp_path):
    records.append(tmp_path, [accuracy(0.25), accuracy(0.5)])
    before = (tmp_path / "records.jsonl").read_bytes()
    for length in (1, before.index(b"\n"), len(before) - 1):
        with pytest.raises(InputError, match="no line ends there"):
            records.truncate(tmp_path, length)
    assert (tmp_path / "records.jsonl").read_bytes() == before
    records.truncate(tmp_path, before.index(b"\n") + 1)
    assert records.load(tmp_path).value.tolist() == [0.25]
    records.truncate(tmp_path, 0)
    assert records.size(tmp_path) == 0


def test_a_measurement_made_twice_counts_once_as_last_made(tmp_path):
    row = {"quantity": "shape_bias", "training": "at", "seed": 0, "epoch": 6, "image_set": "conflict"}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    records.append(tmp_path / "a", [Record(value=0.5, run="a", n=20, **row), Record(value=0.75, note="again", **row)])
    records.append(tmp_path / "a", [Record(value=1, class_=2, factor="shape", **row)])
    records.append(tmp_path / "b", [Record(value=0.25, **row)])
    assert records.load(tmp_path / "a").value.tolist() == [0.75, 1.0]
    assert records.load([tmp_path / "a", tmp_path / "b"]).value.tolist() == [0.75, 1.0, 0.25]


@pytest.mark.parametrize(
    "columns",
    [
        {"checkpoint": "best"}, {"image_set": "train"}, {"attack": "pgd"}, {"attack_steps": 20}, {"restarts": 2},
        {"reduced": True}, {"source": "nt"}, {"distortion": "greyscale"}, {"class_": 1}, {"factor": "shape"},
        {"reference": "baseline"}, {"cell": "c"}, {"noise_variance": 0.5}, {"level": 1.0}, {"eps": 0.1},
    ],
)  # fmt: skip
def test_measurements_that_differ_in_an_identifying_column_are_both_kept(tmp_path, columns):
    records.append(tmp_path, [accuracy(0.5), accuracy(0.75, **columns)])
    assert records.load(tmp_path).value.tolist() == [0.5, 0.75]


def test_many_chunks_of_rows_are_read_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(records_file, "_BLOCK_BYTES", 700)
    rows = [
        accuracy(i / 100, step=i, note="even" if i % 2 == 0 else None, level=i if i > 50 else None) for i in range(100)
    ]
    records.append(tmp_path, rows)
    frame = records.load(tmp_path)
    assert frame.value.tolist() == [i / 100 for i in range(100)]
    assert frame.note.tolist() == ["even", None] * 50
    assert frame.level.isna().sum() == 51


@pytest.fixture
def published(tmp_path):
    """A directory with 20 published records, and the lines that were published."""
    run_dir, copy = tmp_path / "run", tmp_path / "copy"
    run_dir.mkdir(), copy.mkdir()
    rows = [accuracy(seed / 20, seed=seed, note="π" if seed % 2 else None) for seed in range(20)]
    records.append(run_dir, rows)
    assert records.compress(run_dir, copy) == records.size(run_dir)
    return copy, (run_dir / "records.jsonl").read_bytes()


def test_published_records_are_read_as_they_are(tmp_path, published):
    copy, _ = published
    pd.testing.assert_frame_equal(records.load(copy), records.load(tmp_path / "run"))
    assert [file.name for file in copy.iterdir()] == ["records.json.xz"]


def test_published_records_are_columns_without_those_that_no_row_has(published):
    copy, _ = published
    with lzma.open(copy / "records.json.xz") as file:
        columns = json.load(file)
    assert columns["seed"] == list(range(20))
    assert columns["note"] == [None, "π"] * 10
    assert "layer" not in columns
    assert {len(values) for values in columns.values()} == {20}


def test_every_column_is_the_same_after_publication(tmp_path):
    run_dir, copy = tmp_path / "run", tmp_path / "copy"
    run_dir.mkdir(), copy.mkdir()
    whole = {
        field.name: 3 if field.name in INTEGERS or field.name == "class_" else 0.5 if field.name in FLOATS else "π"
        for field in dataclasses.fields(Record)
    } | {"reduced": False, "saturated": True, "ok": False, "numerical_error": None, "blocks": "1 -2"}
    failed = accuracy(math.nan, seed=2**53 - 1, attack_steps=0)
    records.append(run_dir, [Record(**whole), failed, accuracy(1e-300, level=-0.0)])
    records.compress(run_dir, copy)
    expected = records.load(run_dir)
    pd.testing.assert_frame_equal(records.load(copy), expected)
    records.append(copy, [])
    assert (copy / "records.jsonl").read_bytes() == (run_dir / "records.jsonl").read_bytes()


def test_a_repeated_measurement_is_published_once_as_last_made(tmp_path):
    run_dir, copy = tmp_path / "run", tmp_path / "copy"
    run_dir.mkdir(), copy.mkdir()
    records.append(run_dir, [accuracy(0.5), accuracy(0.25, seed=1), accuracy(0.75)])
    records.compress(run_dir, copy)
    with lzma.open(copy / "records.json.xz") as file:
        assert json.load(file)["value"] == [0.25, 0.75]


def test_published_error_bounds_have_two_digits_and_are_never_less(tmp_path):
    run_dir, copy = tmp_path / "run", tmp_path / "copy"
    run_dir.mkdir(), copy.mkdir()
    exact = [0.0, 1.0, *(1.2345678 ** np.arange(-80.0, 20.0)).tolist()]
    records.append(run_dir, [accuracy(0.5, numerical_error=error, seed=k) for k, error in enumerate(exact)])
    records.compress(run_dir, copy)
    found = records.load(copy)["numerical_error"].to_numpy()
    assert found[0] == 0
    assert (found >= exact).all()
    assert (found[1:] <= 1.11 * np.array(exact[1:])).all()
    assert [f"{error:.2g}" for error in found] == [f"{error:.3g}" for error in found]
    (tmp_path / "again").mkdir()
    records.compress(copy, tmp_path / "again")
    assert records.load(tmp_path / "again")["numerical_error"].tolist() == found.tolist(), "a copy is the same"


def test_published_values_have_seven_digits_and_what_identifies_them_has_all(tmp_path):
    run_dir, copy = tmp_path / "run", tmp_path / "copy"
    run_dir.mkdir(), copy.mkdir()
    rows = [accuracy(2 / 3, stderr=0.1 / 3, noise_variance=1 / 7, seed=seed) for seed in range(2)]
    records.append(run_dir, rows[:1])
    length = records.size(run_dir)
    records.append(run_dir, rows[1:])
    written = records.compress(run_dir, copy, length=length)
    found = records.load(copy)
    assert found[["value", "stderr", "noise_variance", "seed"]].values.tolist() == [[0.6666667, 0.03333333, 1 / 7, 0]]
    assert records.size(copy) == written < length


def test_published_records_are_unpacked_before_anything_is_written(published):
    copy, content = published
    assert records.size(copy) == len(content)
    assert (copy / "records.jsonl").read_bytes() == content
    records.append(copy, [accuracy(0.5, seed=20)])
    assert records.load(copy).value.iloc[-1] == 0.5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no json", "is damaged: it is not JSON; restore"),
        (b"[" * 100_000, "is damaged: it is not JSON; restore"),
        (b"[]", "is damaged: it is not a table of records; restore"),
        (b'{"value":[1]}', "is damaged: it is not a table of records; restore"),
        (b'{"quantity":["loss"],"value":[1,2]}', "is damaged: its column 'value' has another length than others"),
        (b'{"quantity":["loss"],"value":1}', "is damaged: its column 'value' has another length than others"),
        (b'{"quantity":["loss"],"value":["1"]}', "column 'value' of .* holds a value that is not a number; restore"),
        (b'{"quantity":["loss"],"seed":[9007199254740992]}', "column 'seed' of .* holds a value that is not a number"),
        (
            b'{"quantity":["loss"],"value":[1%s]}' % (400 * b"0"),
            "column 'value' of .* holds a value that is not a number",
        ),
        (b'{"quantity":["loss"],"value":[NaN]}', "column 'value' of .* holds a value that is not a number"),
        (b'{"quantity":["loss"],"seed":[1e300]}', "column 'seed' of .* holds a value that is not a number; restore"),
        (b'{"quantity":[1]}', "column 'quantity' of .* holds a value that is not text; restore"),
        (b'{"quantity":["loss"],"colour":[1]}', "has a column 'colour' that this version does not know"),
    ],
)
def test_published_records_that_are_no_table_are_refused(tmp_path, content, said):
    (tmp_path / "records.json.xz").write_bytes(lzma.compress(content))
    for read in (records.load, records.size):
        with pytest.raises(InputError, match=said):
            read(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["records.json.xz"]


def test_damaged_published_records_are_refused(published):
    copy, _ = published
    packed = copy / "records.json.xz"
    whole = packed.read_bytes()
    flipped = whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]
    for damage in (whole[:-40], flipped, b"no archive"):
        packed.write_bytes(damage)
        for read in (records.load, records.size):
            with pytest.raises(InputError, match=r"records.json.xz is damaged: it cannot be decompressed; restore"):
                read(copy)
        assert not (copy / "records.jsonl").exists()


def test_damaged_records_are_not_published(tmp_path, published):
    copy, content = published
    (copy / "records.jsonl").write_bytes(content.replace(b"0.05", b"0.06", 1))
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"Line 2 of .* is damaged"):
        records.compress(copy, tmp_path / "other")
    assert not list((tmp_path / "other").iterdir())


@pytest.mark.parametrize("columns", [{"value": 10**400}, {"value": 0.5, "n": math.inf}, {"value": 0.5, "step": 2**53}])
def test_a_number_that_its_column_cannot_hold_is_one_sentence(columns):
    with pytest.raises(InputError, match="expected a single"):
        Record(quantity="accuracy", **columns)
