"""Run directories: no run is overwritten, mixed with another or half-written, and what is damaged is rebuilt."""

import dataclasses
import errno
import fcntl
import json
import os
from pathlib import Path
from typing import Any

import pytest

from mi_jax import records
from mi_jax.errors import InputError
from mi_jax.files import write_json
from mi_jax.records.run_records import read
from mi_jax.records.table import Record
from mi_jax.runs import opening
from mi_jax.runs.config import RunConfig
from mi_jax.runs.directory import RunDir, begun_by_this_job
from mi_jax.runs.opening import Growth, open_run
from mi_jax.runs.run_files import read_json


@dataclasses.dataclass(frozen=True)
class Attack:
    eps: float = 0.1
    steps: int = 7


@dataclasses.dataclass(frozen=True)
class Config:
    arch: str = "vgg"
    attack: Attack = Attack()


CONFIG = Config()
AS_JSON = {"arch": "vgg", "attack": {"eps": 0.1, "steps": 7}}
ROW = Record(quantity="accuracy", value=0.5)


def opened(path: Path, config: Any = CONFIG, **options) -> list[str]:
    """Opens and closes a directory; what it said."""
    said: list[str] = []
    with open_run(path, config, say=said.append, **options):
        pass
    return said


def do(run: RunDir, *stages: str) -> None:
    for stage in stages:
        run.stage(stage, lambda: records.append(run.path, [ROW]))


def test_a_new_directory_holds_its_config_and_remembers_which_stages_are_complete(tmp_path):
    with open_run(tmp_path / "a" / "b", CONFIG) as run:
        assert not run.is_complete("train/nt/0")
        do(run, "train/nt/0", "train/nt/0")
    size = records.size(run.path)
    with open_run(tmp_path / "a" / "b", CONFIG) as again:
        assert again.records_bytes == size > 0
        assert again.is_complete("train/nt/0")
        assert not again.is_complete("train/at/0")
        assert read_json(again.path / "config.json") == AS_JSON
        records.append(again.path, [ROW])
        again.drop_unfinished()
        assert records.size(again.path) == size


MORE_SEEDS = Growth("seeds", reopened=("report",))


@dataclasses.dataclass(frozen=True)
class Seeds:
    arch: str = "vgg"
    seeds: int = 2


def test_a_job_may_grow_and_only_what_is_about_all_is_done_again(tmp_path):
    with open_run(tmp_path, Seeds()) as run:
        do(run, "train/0", "train/1", "report")
        records.append(tmp_path, [ROW])  # of a stage that was interrupted
    said = opened(tmp_path, Seeds(seeds=5), growth=MORE_SEEDS)
    assert said == [f"{tmp_path} is continued with seeds 5 in place of 2."]
    with open_run(tmp_path, Seeds(seeds=5)) as grown:
        assert grown.completed("") == ["train/0", "train/1"]
        assert grown.grown_from == [2]
        assert grown.records_bytes < records.size(tmp_path)
    for config, growth in ((Seeds(seeds=4), MORE_SEEDS), (Seeds(seeds=6), None), (Seeds("mlp", 6), MORE_SEEDS)):
        with pytest.raises(InputError, match="another configuration"):
            opened(tmp_path, config, growth=growth)
    assert opened(tmp_path, Seeds(seeds=6), growth=MORE_SEEDS)
    with open_run(tmp_path, Seeds(seeds=6)) as again:
        assert again.grown_from == [2, 5]


def test_a_job_that_was_killed_while_it_grew_grows_again_or_ends_as_it_was(tmp_path, monkeypatch):
    with open_run(tmp_path, Seeds()) as run:
        do(run, "train/0", "train/1", "report")

    def write(path: Path, value: dict) -> None:
        if path.name == "config.json":
            raise KeyboardInterrupt
        write_json(path, value)

    with monkeypatch.context() as patch:
        patch.setattr(opening, "write_json", write)
        with pytest.raises(KeyboardInterrupt):
            opened(tmp_path, Seeds(seeds=3), growth=MORE_SEEDS)
    with open_run(tmp_path, Seeds(), growth=MORE_SEEDS) as earlier:
        assert earlier.completed("train/") == ["train/0", "train/1"]
        assert read_json(tmp_path / "config.json")["seeds"] == 2
    with open_run(tmp_path, Seeds(seeds=3), growth=MORE_SEEDS) as grown:
        assert grown.grown_from == [2]
        assert read_json(tmp_path / "config.json")["seeds"] == 3


def test_a_stage_that_is_reopened_is_not_complete_and_keeps_the_rows_of_those_after_it(tmp_path):
    with open_run(tmp_path, CONFIG) as run:
        do(run, "train/nt/0", "train/at/0")
        records.append(tmp_path, [ROW])
        run.reopen("train/nt/0")
    with open_run(tmp_path, CONFIG) as again:
        assert again.completed("train/") == ["train/at/0"]
        assert again.records_bytes == records.size(tmp_path)


def test_a_config_that_cannot_be_written_is_refused_before_anything_is(tmp_path):
    with pytest.raises(InputError, match=r"attack\.eps is .*; expected a number"):
        opened(tmp_path / "run", Config(attack=Attack(eps=object())))  # pyright: ignore[reportArgumentType]
    assert not (tmp_path / "run").exists()


def test_another_config_is_refused_and_the_difference_named(tmp_path):
    opened(tmp_path)
    with pytest.raises(InputError, match=r"attack\.eps was 0\.1, now 0\.2"):
        opened(tmp_path, Config(attack=Attack(eps=0.2)))
    assert read_json(tmp_path / "config.json") == AS_JSON


def test_an_option_that_the_config_of_an_earlier_version_lacks_counts_as_its_default(tmp_path):
    opened(tmp_path)
    earlier = {"arch": "vgg", "attack": {"eps": 0.1}}
    (tmp_path / "config.json").write_text(json.dumps(earlier))
    assert opened(tmp_path) == []
    with pytest.raises(InputError, match=r"attack\.steps was 7, now 8"):
        opened(tmp_path, Config(attack=Attack(steps=8)))


def test_overwrite_deletes_everything_of_the_earlier_run(tmp_path):
    with open_run(tmp_path, CONFIG) as run:
        do(run, "train/nt/0")
    (tmp_path / "checkpoints" / "nt" / "0" / "7").mkdir(parents=True)
    with open_run(tmp_path, Config("mlp"), overwrite=True) as fresh:
        assert not fresh.is_complete("train/nt/0")
        assert fresh.records_bytes == 0
    assert not (tmp_path / "records.jsonl").exists()
    assert not (tmp_path / "checkpoints").exists()
    assert read_json(tmp_path / "config.json")["arch"] == "mlp"


def test_overwrite_empties_linked_checkpoints_of_the_run_and_of_nothing_else(tmp_path):
    opened(tmp_path / "run")
    scratch = tmp_path / "scratch"
    (scratch / "nt" / "0" / "7").mkdir(parents=True)
    (scratch / "nt" / "0" / "best.json").touch()
    (scratch / "thesis").mkdir()
    (scratch / "thesis" / "1.tex").touch()
    (tmp_path / "run" / "checkpoints").symlink_to(scratch)
    opened(tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "checkpoints").is_symlink()
    assert list((scratch / "nt" / "0").iterdir()) == []
    assert (scratch / "thesis" / "1.tex").exists()


@pytest.mark.parametrize("is_linked", [False, True])
def test_overwrite_deletes_what_was_made_of_the_records(tmp_path, is_linked):
    run, place = tmp_path / "run", tmp_path / ("elsewhere" if is_linked else "run")
    opened(run)
    made = ["figures/claims.png", "figures/claims.svg", "tables/claims.csv", "tensorboard/nt-0/events.out.tfevents.1"]
    for name in made:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).touch()
    for name in ("figures", "tables", "tensorboard") if is_linked else ():
        (place / name / "thesis.tex").touch()
        (run / name).symlink_to(place / name)
    opened(run, overwrite=True)
    assert not any((place / name).exists() for name in made)
    left = {path.relative_to(place).as_posix() for path in place.rglob("thesis.tex")}
    assert left == ({f"{name}/thesis.tex" for name in ("figures", "tables", "tensorboard")} if is_linked else set())
    assert (run / "tables").is_symlink() == (run / "tables").exists() == is_linked


def test_overwrite_never_deletes_what_is_not_a_run(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="holds files that do not belong to a run"):
        opened(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("config", ['{"model_type": "bert"}', '{"arch": "vgg", "model_type": "bert"}', "broken"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_directory_with_the_configuration_of_another_program_is_left_as_it_is(tmp_path, config, overwrite):
    files = {"config.json": config, "checkpoints/epoch1/model.bin": "weeks", "data.npz": "data", "a.1-2.part": "part"}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    refused = "is not of a run, so nothing was deleted" if overwrite else "unknown key|damaged|holds a run of another"
    with pytest.raises(InputError, match=refused):
        opened(tmp_path, overwrite=overwrite)
    assert {name: (tmp_path / name).read_text() for name in files} == files


def test_a_few_keys_in_common_do_not_make_a_run_of_another_programs_directory(tmp_path):
    (tmp_path / "config.json").write_text('{"dataset": "cifar10", "epochs": 10, "batch_size": 32}')
    (tmp_path / "data.npz").write_text("data")
    with pytest.raises(InputError, match="is not of a run, so nothing was deleted"):
        opened(tmp_path, RunConfig(), overwrite=True)
    assert (tmp_path / "data.npz").exists()


def test_overwrite_takes_a_run_that_lost_its_progress(tmp_path):
    opened(tmp_path)
    (tmp_path / "progress.json").unlink()
    opened(tmp_path, overwrite=True)
    (tmp_path / "progress.json").unlink()
    (tmp_path / "config.json").write_text("broken")
    (tmp_path / "records.jsonl").touch()
    opened(tmp_path, overwrite=True)
    assert read_json(tmp_path / "config.json") == AS_JSON


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; expected a directory"):
        opened(tmp_path / "file")
    with pytest.raises(InputError, match="part of the path is a file"):
        opened(tmp_path / "file" / "below")


def test_two_processes_cannot_write_one_run(tmp_path):
    with open_run(tmp_path, CONFIG), pytest.raises(InputError, match="Another process is writing"):
        opened(tmp_path)
    opened(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_lock_is_distinguished_from_a_lock_that_is_taken(tmp_path, monkeypatch, code):
    def refuse(descriptor, operation):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse)
        (said,) = opened(tmp_path)
    assert "cannot lock" in said
    assert read_json(tmp_path / "config.json") == AS_JSON
    assert opened(tmp_path) == []


def test_directories_and_links_in_the_place_of_files_are_one_sentence(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match=r"loop.*form a loop"):
        opened(tmp_path / "loop" / "run")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere" / "there")
    with pytest.raises(InputError, match=r"gone: it is a broken link"):
        opened(tmp_path / "gone")
    with pytest.raises(InputError, match="missing, or cannot be made"):
        opened(Path("/proc/run"))
    opened(tmp_path / "run")
    (tmp_path / "run" / "progress.json").unlink()
    (tmp_path / "run" / "progress.json").mkdir()
    with pytest.raises(InputError, match=r"progress\.json: it is a directory, not a file"):
        opened(tmp_path / "run")


@pytest.mark.parametrize("content", ['{"arch": ', "", "[1]", "[" * 100_000], ids=["cut", "empty", "list", "deep"])
def test_a_damaged_config_is_rebuilt_from_its_copy(tmp_path, content):
    with open_run(tmp_path, CONFIG) as run:
        do(run, "train/nt/0")
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match="arch was 'vgg', now 'mlp'"):
        opened(tmp_path, Config("mlp"))
    assert read(tmp_path).config == AS_JSON
    (said,) = opened(tmp_path)
    assert "config.json was damaged; it is rebuilt" in said
    assert read_json(tmp_path / "config.json") == AS_JSON


def test_a_damaged_config_without_an_intact_copy_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"arch": ')
    with pytest.raises(InputError, match=r"config\.json is damaged"):
        opened(tmp_path)


@pytest.mark.parametrize("damage", ["", "{}", "[]", "changed", "missing"])
def test_damaged_progress_is_rebuilt_and_all_rows_stay(tmp_path, damage):
    with open_run(tmp_path, CONFIG) as run:
        do(run, "train/nt/0")
    path, size = tmp_path / "progress.json", records.size(tmp_path)
    if damage == "missing":
        path.unlink()
    else:
        path.write_text(path.read_text().replace("nt/0", "at/0") if damage == "changed" else damage)
    said = []
    with open_run(tmp_path, CONFIG, say=said.append) as again:
        assert again.completed("") == []
        assert again.records_bytes == size
    assert "progress.json is missing or damaged; it is rebuilt" in said[0]
    assert opened(tmp_path) == []


def test_progress_of_an_earlier_version_without_a_digest_is_read(tmp_path):
    opened(tmp_path)
    (tmp_path / "progress.json").write_text('{"completed": ["train/nt/0"], "records_bytes": 0}')
    with open_run(tmp_path, CONFIG) as run:
        assert run.is_complete("train/nt/0")


@pytest.mark.parametrize(
    ("left", "words"), [(1, r"has \d+ bytes, but \d+"), (0, "has 0 bytes, but"), (None, "is missing, but")]
)
def test_records_of_which_a_part_is_lost_are_refused_and_nothing_is_written(tmp_path, left, words):
    with open_run(tmp_path, CONFIG) as run:
        do(run, "train/nt/0", "train/at/0")
    path = tmp_path / "records.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.unlink() if left is None else path.write_text("".join(lines[:left]))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    message = rf"{words} .*written; restore the file from a copy, or repeat the command .* with --overwrite"
    with pytest.raises(InputError, match=message):
        opened(tmp_path)
    with pytest.raises(InputError, match=message):
        read(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    opened(tmp_path, overwrite=True)


def test_records_of_an_unfinished_stage_are_more_than_was_completed(tmp_path):
    with open_run(tmp_path, CONFIG) as run:
        do(run, "train/nt/0")
        records.append(tmp_path, [ROW])
    assert opened(tmp_path) == []
    assert len(read(tmp_path).records) == 1


def test_other_data_under_the_same_name_are_refused(tmp_path):
    with open_run(tmp_path, CONFIG) as run:
        run.pin_data("a" * 64)
        run.note_start(command="", data_dir=None, say=print)
    (tmp_path / "progress.json").unlink()
    with open_run(tmp_path, CONFIG) as run:
        run.pin_data("a" * 64)
        with pytest.raises(InputError, match="other images under the same name"):
            run.pin_data("b" * 64)
    provenance = read_json(tmp_path / "provenance.json")
    assert provenance["data_sha256"] == "a" * 64
    (tmp_path / "progress.json").unlink()
    (tmp_path / "provenance.json").write_text(json.dumps({**provenance, "data_sha256": 1}))
    with open_run(tmp_path, CONFIG) as run, pytest.raises(InputError, match=r"it had 1\. Restore the data set"):
        run.pin_data("a" * 64)


def test_provenance_names_what_computed_each_part_and_is_written_again_where_damaged(tmp_path):
    said: list[str] = []
    with open_run(tmp_path, CONFIG) as run:
        run.note_start(command="first", data_dir=None, say=said.append)
        run.note_start(command="second", data_dir=None, say=said.append)
        run.note_end()
        found = read_json(tmp_path / "provenance.json")
        assert (found["command"], [part["command"] for part in found["resumed"]]) == ("first", ["second"])
        assert found["resumed"][0]["packages"] == found["packages"]
        assert {"git_commit", "device", "start"} <= set(found["resumed"][0])
        assert found["end"] >= found["start"]
        assert said == []
        for damaged in ('{"command"', '{"resumed": 5}'):
            (tmp_path / "provenance.json").write_text(damaged)
            run.note_start(command="third", data_dir=None, say=said.append)
            assert read_json(tmp_path / "provenance.json")["command"] == "third"
            assert "provenance.json is damaged; it is rewritten" in said.pop()


def test_a_batch_job_knows_its_own_run(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    with open_run(tmp_path, CONFIG) as run:
        run.note_start(command="", data_dir=None, say=print)
    assert not begun_by_this_job(tmp_path)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert begun_by_this_job(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "18")
    assert not begun_by_this_job(tmp_path)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_kill_in_the_first_write_does_not_bar_the_directory(tmp_path, overwrite):
    (tmp_path / ".lock").touch()
    (tmp_path / "config.json.17-18.part").write_text('{"arch"')
    opened(tmp_path, overwrite=overwrite)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "config.json", "progress.json"]
    assert read_json(tmp_path / "config.json") == AS_JSON


def test_parts_of_other_files_are_not_taken_for_those_of_a_killed_run(tmp_path):
    (tmp_path / "film.mp4.part").touch()
    with pytest.raises(InputError, match="holds files that do not belong to a run"):
        opened(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4.part"]


def test_what_killed_saves_left_is_removed(tmp_path):
    opened(tmp_path)
    steps = tmp_path / "checkpoints" / "nt" / "0"
    (steps / "12.orbax-checkpoint-tmp-3" / "state").mkdir(parents=True)
    (steps / "6").mkdir()
    (steps / "best.json.17-18.part").touch()
    (tmp_path / "geometry.npz.17-18.part").touch()
    (tmp_path / "film.mp4.part").touch()
    opened(tmp_path)
    assert [path.name for path in steps.iterdir()] == ["6"]
    assert not (tmp_path / "geometry.npz.17-18.part").exists()
    assert (tmp_path / "film.mp4.part").exists()


@pytest.mark.parametrize("begun", [False, True])
def test_how_seeds_are_grouped_stays_as_the_run_was_begun(tmp_path, begun):
    with open_run(tmp_path, CONFIG) as run:
        assert run.pin_side_by_side(begun) is begun
    with open_run(tmp_path, CONFIG) as continued_on_another_device:
        assert continued_on_another_device.pin_side_by_side(not begun) is begun


@pytest.mark.parametrize(("stage", "side_by_side"), [("train/nt/0", False), ("train/nt/0,1", True)])
def test_how_seeds_were_grouped_by_an_earlier_version_is_seen_in_its_stages(tmp_path, stage, side_by_side):
    with open_run(tmp_path, CONFIG) as run:
        do(run, stage)
    with open_run(tmp_path, CONFIG) as run:
        records.append(tmp_path, [ROW])
        before = run.records_bytes
        assert run.pin_side_by_side(not side_by_side) is side_by_side
        assert run.records_bytes == before
