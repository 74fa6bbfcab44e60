"""Run directories: no run is overwritten, mixed with another or half-written."""

import errno
import fcntl
import os

import pytest

from mi_jax.errors import InputError
from mi_jax.runs.directory import disk_errors_explained, open_run, read_json, write_json

CONFIG = {"arch": "vgg", "attack": {"eps": 0.1}}


def test_a_new_directory_holds_its_config_and_remembers_what_is_complete(tmp_path):
    run = open_run(tmp_path / "a" / "b", CONFIG, overwrite=False)
    assert not run.is_complete("train/nt/0")
    (run.path / "records.jsonl").write_text("{}\n")
    run.complete("train/nt/0")
    run.close()
    again = open_run(tmp_path / "a" / "b", CONFIG, overwrite=False)
    assert again.records_bytes == 3
    assert again.is_complete("train/nt/0")
    assert not again.is_complete("train/at/0")
    assert read_json(again.path / "config.json") == CONFIG
    again.close()


def test_a_unit_that_is_reopened_is_done_no_more_and_keeps_the_rows_of_those_after_it(tmp_path):
    run = open_run(tmp_path, CONFIG, overwrite=False)
    run.complete("train/nt/0")
    run.complete("train/at/0")
    (tmp_path / "records.jsonl").write_text("{}\n")
    run.reopen("train/nt/0")
    run.close()
    again = open_run(tmp_path, CONFIG, overwrite=False)
    assert not again.is_complete("train/nt/0")
    assert again.is_complete("train/at/0")
    assert again.records_bytes == 3
    again.close()


def test_another_config_is_refused_and_the_difference_named(tmp_path):
    open_run(tmp_path, CONFIG, overwrite=False).close()
    with pytest.raises(InputError, match=r"attack\.eps was 0\.1, now 0\.2"):
        open_run(tmp_path, {"arch": "vgg", "attack": {"eps": 0.2}}, overwrite=False)
    assert read_json(tmp_path / "config.json") == CONFIG


def test_overwrite_starts_anew(tmp_path):
    run = open_run(tmp_path, CONFIG, overwrite=False)
    run.complete("train/nt/0")
    (tmp_path / "records.jsonl").write_text("{}\n")
    (tmp_path / "checkpoints").mkdir()
    run.close()
    fresh = open_run(tmp_path, {"arch": "mlp"}, overwrite=True)
    assert not fresh.is_complete("train/nt/0")
    assert not (tmp_path / "records.jsonl").exists()
    assert fresh.records_bytes == 0
    assert not (tmp_path / "checkpoints").exists()
    assert read_json(tmp_path / "config.json") == {"arch": "mlp"}
    fresh.close()


def test_overwrite_never_deletes_what_is_not_a_run(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="holds other files than a run's"):
        open_run(tmp_path, CONFIG, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; --run-dir must be a directory"):
        open_run(tmp_path / "file", CONFIG, overwrite=False)
    with pytest.raises(InputError, match="a part of the path is a file"):
        open_run(tmp_path / "file" / "below", CONFIG, overwrite=False)


def test_two_processes_cannot_write_one_run(tmp_path):
    run = open_run(tmp_path, CONFIG, overwrite=False)
    with pytest.raises(InputError, match="Another process is writing"):
        open_run(tmp_path, CONFIG, overwrite=False)
    run.close()
    open_run(tmp_path, CONFIG, overwrite=False).close()


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_lock_is_told_apart_from_a_lock_that_is_taken(tmp_path, monkeypatch, code):
    def refuse(descriptor, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    run = open_run(tmp_path, CONFIG, overwrite=False)
    assert not run.is_locked
    assert read_json(tmp_path / "config.json") == CONFIG
    run.close()
    monkeypatch.undo()
    run = open_run(tmp_path, CONFIG, overwrite=False)
    assert run.is_locked
    run.close()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EIO, "the disk failed"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission is denied"),
    ],
)
def test_what_the_file_system_says_becomes_a_sentence(tmp_path, code, words):
    with pytest.raises(InputError, match=words), disk_errors_explained(tmp_path):
        raise OSError(code, os.strerror(code), str(tmp_path / "records.jsonl"))


def test_a_damaged_json_file_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"arch": ')
    with pytest.raises(InputError, match=r"config\.json is damaged"):
        open_run(tmp_path, CONFIG, overwrite=False)


def test_a_json_file_is_replaced_as_a_whole(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert read_json(tmp_path / "a.json") == {"x": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_kill_in_the_first_write_does_not_bar_the_directory(tmp_path, overwrite):
    (tmp_path / ".lock").touch()
    (tmp_path / "config.json.part").write_text('{"arch"')
    open_run(tmp_path, CONFIG, overwrite=overwrite).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "config.json"]
    assert read_json(tmp_path / "config.json") == CONFIG
