"""Files are replaced as a whole or stay as they are."""

import errno
import os
import threading

import numpy as np
import pytest

from mi_jax import files
from mi_jax.errors import InputError


def test_a_json_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"x": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"x": object()})
    assert path.read_text() == '{\n  "x": 1\n}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_an_exception_while_arrays_are_written_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    files.write_arrays(path, {"x": np.arange(3)})

    def fail(descriptor):
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="full"):
        files.write_arrays(path, {"x": np.arange(4)})
    assert np.load(path)["x"].tolist() == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_arrays_of_which_any_byte_is_another_are_read_or_refused(tmp_path):
    path = tmp_path / "arrays.npz"
    files.write_arrays(path, {"x": np.arange(40), "y": np.ones((3, 2))})
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            files.read_arrays(path)
        except InputError:
            refused += 1
    assert refused > len(whole) / 3
    path.write_bytes(whole)
    assert files.read_arrays(path)["x"].tolist() == list(range(40))
    with pytest.raises(InputError, match="is not a readable array file"):
        files.read_arrays(tmp_path / "none.npz")


def test_arrays_alone_are_written_by_any_numpy(tmp_path, monkeypatch):
    """Up to 2.1, `savez_compressed` takes every keyword for the name of an array."""
    given = []
    monkeypatch.setattr(np, "savez_compressed", lambda file, **arrays: given.append(arrays))
    files.write_arrays(tmp_path / "a.npz", {"x": 1})
    assert given == [{"x": 1}]


def test_a_replaced_file_and_its_entry_in_the_directory_are_on_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    files.write_text(tmp_path / "a.txt", "x")
    assert synced == [path.stat().st_ino for path in (tmp_path / "a.txt", tmp_path)]


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert files.json_digest({"a": 1, "b": [2]}) == files.json_digest({"b": [2], "a": 1})
    assert files.json_digest({"a": 1}) != files.json_digest({"a": 2})


def test_without_a_home_there_is_no_cache(monkeypatch):
    def fail():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", fail)
    assert files.user_cache() is None
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert str(files.user_cache()) == "/c/mi_jax"


def test_two_writers_of_a_file_do_not_meet_in_one_part(tmp_path):
    path = tmp_path / "report.html"
    with files.replacing(path) as file:
        file.write(b"first")
        other = threading.Thread(target=files.write_text, args=(path, "the other"))
        other.start()
        other.join()
        assert path.read_text() == "the other"
    assert path.read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EIO, "the disk failed"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission is denied"),
        (errno.EMFILE, "too many files are open: raise the limit"),
    ],
)
def test_an_error_of_the_file_system_becomes_a_sentence(tmp_path, code, words):
    with pytest.raises(InputError, match=words), files.disk_errors_explained(tmp_path):
        raise OSError(code, os.strerror(code), str(tmp_path / "records.jsonl"))
