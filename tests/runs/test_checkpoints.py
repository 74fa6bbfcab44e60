"""Checkpoints: what comes back is what was saved, or the step before it, never silently wrong values."""

import errno
import json
import resource
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from mi_jax.errors import InputError
from mi_jax.runs.checkpoints import Checkpoints, check_directory, digest, restore_together, restored, to_save


def state_of(value: float) -> dict:
    return {
        "variables": {"params": {"conv": {"kernel": jnp.full((40, 41), float(value))}}, "batch_stats": {}},
        "step": np.int32(7),
    }


def fill(directory: Path, steps=(1, 2, 3), **options) -> None:
    store = Checkpoints(directory, **options)
    for step in steps:
        store.save(step, state_of(step), {"records_bytes": 10 * step})
    store.close()


def flip_a_bit(step_directory: Path) -> None:
    """Changes one stored value's bit in the largest data file, in the middle of it."""
    largest = max((p for p in step_directory.rglob("d/*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)


def test_the_newest_step_comes_back_with_its_values_types_and_metadata(tmp_path):
    fill(tmp_path / "c")
    saved = Checkpoints(tmp_path / "c").restore()
    assert saved is not None
    assert (saved.step, saved.metadata, saved.passed_over) == (3, {"records_bytes": 30}, ())
    kernel = saved.state["variables"]["params"]["conv"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, np.full((40, 41), 3.0, np.float32))
    assert saved.state["step"] == 7
    assert digest(saved.state) == digest(state_of(3.0))


def test_only_the_newest_two_and_the_kept_steps_stay(tmp_path):
    fill(tmp_path / "c", steps=(0, 1, 2, 3, 4), keep=(1,))
    assert Checkpoints(tmp_path / "c").steps() == [1, 3, 4]


def test_a_damaged_step_is_passed_over_and_named(tmp_path):
    fill(tmp_path / "c")
    flip_a_bit(tmp_path / "c" / "3")
    saved = Checkpoints(tmp_path / "c").restore()
    assert saved is not None
    assert saved.step == 2
    assert len(saved.passed_over) == 1
    assert str(tmp_path / "c" / "3") in saved.passed_over[0]
    with pytest.raises(InputError, match="No intact checkpoint"):
        Checkpoints(tmp_path / "c").restore(3)


def test_a_changed_value_with_sound_files_is_found_by_its_digest(tmp_path):
    fill(tmp_path / "c", steps=(1, 2))
    metadata = tmp_path / "c" / "2" / "metadata" / "metadata"
    content = json.loads(metadata.read_text())
    metadata.write_text(json.dumps({**content, "sha256": "0" * 64}))
    saved = Checkpoints(tmp_path / "c").restore()
    assert saved is not None
    assert saved.step == 1
    assert saved.passed_over[0].endswith("does not match its SHA-256")


def test_changed_metadata_are_found_by_the_digest_of_the_step(tmp_path):
    fill(tmp_path / "c", steps=(1, 2))
    metadata = tmp_path / "c" / "2" / "metadata" / "metadata"
    metadata.write_text(metadata.read_text().replace("20", "21"))
    saved = Checkpoints(tmp_path / "c").restore()
    assert saved is not None
    assert saved.step == 1
    assert saved.passed_over[0].endswith("does not match its SHA-256")


def test_a_step_of_an_earlier_version_with_the_digest_of_its_state_alone_is_read(tmp_path):
    fill(tmp_path / "c", steps=(1,))
    metadata = tmp_path / "c" / "1" / "metadata" / "metadata"
    content = json.loads(metadata.read_text())
    metadata.write_text(json.dumps({**content, "sha256": digest(state_of(1))}))
    assert Checkpoints(tmp_path / "c").restore().metadata == {"records_bytes": 10}


def test_a_truncated_step_is_passed_over(tmp_path):
    fill(tmp_path / "c")
    for path in (tmp_path / "c" / "3" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:7])
    saved = Checkpoints(tmp_path / "c").restore()
    assert saved is not None
    assert saved.step == 2


def test_a_failing_disk_says_nothing_of_a_step(tmp_path, monkeypatch):
    fill(tmp_path / "c", steps=(1,))

    def fail(self, *args, **options):
        raise ValueError("Error reading local file: Input/output error [os_error_code='5']")

    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "restore", fail)
        with pytest.raises(OSError, match="Input/output error"):
            Checkpoints(tmp_path / "c").restore()
    assert Checkpoints(tmp_path / "c").restore().step == 1


def test_the_newest_step_intact_in_every_store_is_found_and_each_store_names_its_damage(tmp_path):
    fill(tmp_path / "a", steps=(1, 2, 3, 4), keep=(1, 2))
    fill(tmp_path / "b", steps=(1, 2, 3), keep=(1,))
    flip_a_bit(tmp_path / "a" / "2")
    flip_a_bit(tmp_path / "b" / "3")
    found, damaged = restore_together([Checkpoints(tmp_path / name) for name in "ab"])
    assert [saved.step for saved in found] == [1, 1]
    assert [str(tmp_path / place) in reason for place, reason in zip(("b/3", "a/2"), damaged, strict=True)] == [
        True
    ] * 2
    assert restore_together([Checkpoints(tmp_path / name) for name in "ac"]) == ([], [])


def test_a_half_written_step_does_not_count(tmp_path):
    fill(tmp_path / "c", steps=(1,))
    (tmp_path / "c" / "2.orbax-checkpoint-tmp").mkdir()
    saved = Checkpoints(tmp_path / "c").restore()
    assert saved is not None
    assert saved.step == 1


def test_steps_after_the_restored_one_can_be_discarded_and_saved_again(tmp_path):
    fill(tmp_path / "c", steps=(1, 2))
    store = Checkpoints(tmp_path / "c")
    store.discard_after(1)
    store.save(2, state_of(20.0), {})
    store.close()
    saved = Checkpoints(tmp_path / "c").restore(2)
    assert saved is not None
    assert saved.state["variables"]["params"]["conv"]["kernel"][0, 0] == 20.0


def test_steps_are_discarded_from_the_newest_on_so_that_a_kill_leaves_no_gap(tmp_path, monkeypatch):
    fill(tmp_path / "c", keep=(1,))
    store, delete = Checkpoints(tmp_path / "c"), ocp.CheckpointManager.delete

    def killed(manager, step):
        delete(manager, step)
        raise KeyboardInterrupt

    monkeypatch.setattr(ocp.CheckpointManager, "delete", killed)
    with pytest.raises(KeyboardInterrupt):
        store.discard_after(1)
    store.close()
    assert Checkpoints(tmp_path / "c").steps() == [1, 2]


def test_nothing_saved_is_none_and_an_absent_step_is_named(tmp_path):
    assert Checkpoints(tmp_path / "c").restore() is None
    fill(tmp_path / "c", steps=(1, 2))
    with pytest.raises(InputError, match=r"holds no step 9; it holds \[1, 2\]"):
        Checkpoints(tmp_path / "c").restore(9)


@pytest.mark.parametrize(
    "other",
    [
        {"a": np.zeros(3, np.float32)},
        {"b": np.ones(3, np.float32)},
        {"a": np.ones(3, np.float64)},
        {"a": np.ones((3, 1), np.float32)},
    ],
)
def test_the_digest_sees_values_paths_types_and_shapes(other):
    assert digest(other) != digest({"a": np.ones(3, np.float32)})


def test_what_the_file_system_says_in_the_background_is_an_os_error(tmp_path):
    """A file that may not grow fails where a full disk does: in the thread that writes the arrays."""
    noise = {"a": np.random.default_rng(0).normal(size=10_000)}
    store, limits = Checkpoints(tmp_path / "c"), resource.getrlimit(resource.RLIMIT_FSIZE)
    store.save(1, noise, {})
    store.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        store.save(2, noise, {})
        with pytest.raises(OSError, match="File too large") as caught:
            store.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(tmp_path / "c"))
    store.close()
    assert Checkpoints(tmp_path / "c").steps() == [1]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("method", ["save", "wait", "close"])
def test_a_full_disk_is_an_os_error_of_its_number(tmp_path, monkeypatch, method, code):
    def fail(self, *args, **options):
        raise ValueError(f"RESOURCE_EXHAUSTED: Failed writing: no room [os_error_code='{code}']")

    store = Checkpoints(tmp_path / "c")
    store.save(1, state_of(1), {})
    store.wait()
    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "save" if method == "save" else "wait_until_finished", fail)
        with pytest.raises(OSError, match=str(tmp_path)) as caught:
            store.save(2, state_of(2), {}) if method == "save" else getattr(store, method)()
    assert caught.value.errno == code
    store.close()


def test_a_step_that_finds_no_room_is_not_begun(tmp_path, monkeypatch):
    store = Checkpoints(tmp_path / "c")
    store.save(1, state_of(1), {})
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=2**20))
    with pytest.raises(OSError, match="No space left") as caught:
        store.save(2, state_of(2), {})
    assert caught.value.errno == errno.ENOSPC
    store.close()
    assert Checkpoints(tmp_path / "c").steps() == [1]


@pytest.mark.parametrize("of_another_version", [({"mu": jnp.ones(2)},), ({"mu": jnp.ones(3), "nu": jnp.ones(2)},)])
def test_a_state_of_another_version_of_the_optimizer_is_refused_in_words(of_another_version):
    like = {"variables": {"params": {"w": jnp.ones(2)}, "batch_stats": {}}, "totals": {"loss": jnp.zeros(())}}
    like["optimizer"] = ({"mu": jnp.ones(2), "nu": jnp.ones(2)},)
    saved = to_save({**like, "optimizer": of_another_version})
    with pytest.raises(InputError, match="has other parts than this version makes"):
        restored(like, saved)
    assert restored(like, to_save(like))["optimizer"][0]["mu"].tolist() == [1, 1]


@pytest.mark.parametrize("url", ["gs://bucket/run", "s3://bucket/run", "file:///runs/vgg"])
def test_an_address_of_a_bucket_is_not_taken_for_a_directory(url):
    with pytest.raises(InputError, match="mount the bucket"):
        check_directory(Path(url))
