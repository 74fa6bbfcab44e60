"""The directory of a resumable job (a run, a sweep, a benchmark): its lock, configuration, provenance and stages.

config.json      what was asked for                  provenance.json  commands, versions, devices, digest of the data
progress.json    completed stages, under a digest, with a copy of the configuration
records.jsonl    checkpoints/<training>/<seed>/<step>/  figures/  tables/  report.html  tensorboard/
"""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mi_jax import processes, records
from mi_jax.errors import InputError
from mi_jax.files import PART, json_digest, printable, write_json
from mi_jax.runs import json_codec, provenance

_CONFIG, _PROVENANCE, _PROGRESS = "config.json", "provenance.json", "progress.json"
_OWN_FILES = (_CONFIG, _PROVENANCE, _PROGRESS, records.FILE_NAME, records.PUBLISHED_NAME)
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextmanager
def disk_errors_explained(path: Path) -> Iterator[None]:
    """Turns errors of the file system (full, read-only, forbidden, no directory) into one `InputError`."""
    try:
        yield
    except OSError as error:
        again = "start the same command again to resume"
        reasons = {
            errno.ENOSPC: f"the disk is full: free some space and {again}",
            errno.EDQUOT: f"the quota is used up: free some space and {again}",
            errno.EIO: f"the disk failed: {again}",
            errno.ESTALE: f"the file server lost it: {again}",
            errno.EROFS: "the file system is read-only: choose another directory",
            errno.EACCES: "permission is denied: choose another directory",
            errno.EPERM: "permission is denied: choose another directory",
            errno.ENAMETOOLONG: "the name is too long: choose another directory",
            errno.ENOTDIR: "part of the path is a file: choose another directory",
            errno.EEXIST: "it is a file, not a directory: choose another directory",
            errno.EISDIR: "it is a directory, not a file: remove it, or choose another directory",
            errno.EFBIG: "the file is larger than the file system or a limit allows: choose another directory",
            errno.EMFILE: f"too many files are open: raise the limit (`ulimit -n`) and {again}",
            errno.ETIMEDOUT: f"the file server did not answer: {again}",
            errno.EBUSY: f"it is in use: {again}",
            errno.ELOOP: "its links form a loop: choose another directory",
            errno.ENOENT: "it is missing, or cannot be made there: choose another directory",
        }
        if error.errno not in reasons:
            raise
        place = Path(error.filename2 or error.filename or path)  # the second is the file that another is to replace
        leads_nowhere = os.path.islink(place) and not os.path.exists(place)
        reason = "it is a broken link: remove it" if leads_nowhere else reasons[error.errno]
        raise InputError(f"Cannot read or write {place}: {reason}.") from error


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        InputError: when the file is missing, cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} is missing: {path.parent} is not a run directory.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None
    except (ValueError, RecursionError) as error:  # no JSON, not UTF-8, or a number of too many digits
        raise InputError(f"{path} is damaged ({error}); restore it, or choose another directory.") from None


def saved_config(path: Path) -> Any:
    """What `config.json` of a directory holds or, where that is damaged, its copy in `progress.json`.

    Raises:
        InputError: when the directory is not a run's, or there is no intact copy.
    """
    try:
        found = read_json(path / _CONFIG)
        if not isinstance(found, dict):
            raise InputError(f"{path / _CONFIG} is damaged (not an object); restore it, or choose another directory.")
        return found
    except InputError:
        progress = _read_progress(path)
        if progress is None or "config" not in progress:
            raise
        return progress["config"]


def _read_progress(path: Path) -> dict[str, Any] | None:
    """The content of `progress.json`; None where it is missing or does not match its digest."""
    try:
        found = read_json(path / _PROGRESS)
    except InputError:
        return None
    if not isinstance(found, dict):
        return None
    digest = found.pop("sha256", None)
    if digest != json_digest(found) and not (digest is None and set(found) == {"completed", "records_bytes"}):
        return None
    return found


def completed_stages(path: Path) -> list[str] | None:
    """The stages that `progress.json` counts as completed; None where it is missing or damaged."""
    progress = _read_progress(path)
    return None if progress is None else progress["completed"]


def records_bytes(path: Path) -> int | None:
    """The length of the records of completed stages; None where `progress.json` does not say."""
    progress = _read_progress(path)
    return None if progress is None else progress["records_bytes"]


def check_records(path: Path) -> None:
    """Rejects a directory whose records are shorter than those of its completed stages were.

    Raises:
        InputError: when they are, or are damaged.
    """
    records.check_length(path, records_bytes(path) or 0)


def set_records_bytes(path: Path, length: int) -> None:
    """Notes another length, where there is an intact `progress.json`, for records that were written again."""
    progress = _read_progress(path)
    if progress is not None:
        _write_progress(path, {**progress, "records_bytes": length})


def _write_progress(path: Path, progress: dict[str, Any]) -> None:
    write_json(path / _PROGRESS, {**progress, "sha256": json_digest(progress)})


class Growth(NamedTuple):
    """How a job may be continued with more of something than it was started with, such as seeds."""

    field: str
    """Number in the configuration that may be larger than before."""
    reopened: tuple[str, ...]
    """Stages that are done again, as they are about all."""


class RunDir:
    """A directory that one process writes, from `open_run`: the first one of a job, while the others follow.

    Attributes:
        path: the directory.
        is_locked: false where the file system cannot lock, so that nothing keeps another process out.
        records_bytes: length of the records when the newest stage was completed.
        grown_from: how many there were, each time that the job was continued with more, see `Growth`.
    """

    def __init__(self, path: Path, config: dict[str, Any], *, is_locked: bool, progress: dict[str, Any] | None):
        self.path, self.is_locked, self._config = path, is_locked, config
        self._completed: list[str] = progress["completed"] if progress else []
        self.records_bytes: int = progress["records_bytes"] if progress else records.size(path)
        self._data_sha256: str | None = progress.get("data_sha256") if progress else None
        self.grown_from: list[int] = progress.get("grown_from", []) if progress else []
        self._side_by_side: bool | None = progress.get("side_by_side") if progress else None

    @property
    def name(self) -> str:
        """The name of the directory, by which its records name the run; bytes that are not UTF-8 are escaped."""
        return printable(self.path.resolve().name)

    def checkpoints(self, training: str, seed: int) -> Path:
        """Where the steps of one training are saved."""
        return self.path / "checkpoints" / training / str(seed)

    def is_complete(self, stage: str) -> bool:
        """Whether a stage (`train/nt/0`, `report`, ...) is done and its records are written."""
        return stage in self._completed

    def stage(self, name: str, work: Callable[[], None]) -> None:
        """Does a stage unless it is complete, and marks it, with the records written up to then, as complete."""
        if not self.is_complete(name):
            work()
            self.complete(name)

    def complete(self, stage: str) -> None:
        """Marks a stage, and the records written up to now, as complete; survives a kill."""
        self._completed.append(stage)
        self.write_progress()

    def reopen(self, *stages: str) -> None:
        """Marks stages as not complete; all records stay, and count until they are measured again."""
        self._completed = [stage for stage in self._completed if stage not in stages]
        self.write_progress()

    def grow(self, count: int, *reopened: str) -> None:
        """Notes that there were `count` and are to be more, and reopens stages that are about all."""
        self.grown_from = sorted({*self.grown_from, count})
        self._completed = [stage for stage in self._completed if stage not in reopened]
        self._save_progress(self.records_bytes)

    def completed(self, prefix: str) -> list[str]:
        """The completed stages whose names begin with the given text."""
        return [stage for stage in self._completed if stage.startswith(prefix)]

    def drop_unfinished(self) -> None:
        """Cuts off the records of a stage that an interruption left unfinished."""
        processes.on_first(lambda: records.truncate(self.path, self.records_bytes))

    @contextmanager
    def dropping_unfinished(self) -> Iterator[None]:
        """Cuts off the records of unfinished stages where an exception ends the block."""
        try:
            yield
        except BaseException:
            self.drop_unfinished()
            raise

    def write_progress(self) -> None:
        """Writes `progress.json`."""
        self.records_bytes = self._write_progress()

    @processes.by_first
    def _write_progress(self) -> int:
        """Writes `progress.json`, and returns the length of the records that it counts as written."""
        length = records.size(self.path)
        self._save_progress(length)
        return length

    def _save_progress(self, length: int) -> None:
        progress = {
            "completed": self._completed,
            "records_bytes": length,
            "data_sha256": self._data_sha256,
            "config": self._config,
            "grown_from": self.grown_from,
            "side_by_side": self._side_by_side,
        }
        _write_progress(self.path, progress)

    def pin_data(self, sha256: str) -> None:
        """Notes the digest of the data set, or compares it with the one noted before.

        Raises:
            InputError: when it is another one, or not the same in all processes.
        """
        if processes.any_of(processes.agree(sha256) != sha256):
            raise InputError(
                "The processes of this job read different data sets under the same name; give all of them the same one."
            )
        noted = processes.on_first(lambda: _readable(self.path / _PROVENANCE).get("data_sha256"))
        before = self._data_sha256 or noted
        if before not in (None, sha256):
            raise InputError(
                f"{self.path} holds a run on other images under the same name: the data set has the digest "
                f"{sha256[:12]}, it had {str(before)[:12]}. Restore the data set, or run in another directory."
            )
        if self._data_sha256 is None:
            self._data_sha256 = sha256
            self.write_progress()

    def pin_side_by_side(self, usual: bool) -> bool:
        """Whether seeds are trained in parallel: as when the run was begun, on whatever devices it is continued.

        Seeds that were trained in turn have no step in common, from which they could be continued in parallel.
        """
        if self._side_by_side is None:
            trained = self.completed("train/")
            self._side_by_side = any("," in stage for stage in trained) if trained else usual
            processes.on_first(lambda: self._save_progress(self.records_bytes))
        return self._side_by_side

    @processes.by_first
    def note_start(self, *, command: str, data_dir: str | None, say: Callable[[str], None]) -> None:
        """Notes in `provenance.json` what computes from now on; a damaged file is started again."""
        path = self.path / _PROVENANCE
        found, here = _readable(path), provenance.of_this_command(command=command, data_dir=data_dir)
        found = found if isinstance(found.get("resumed"), list) else {}
        if path.exists() and "resumed" not in found:
            say(f"{path} is damaged; it is rewritten without the entries of earlier commands.")
        if "resumed" in found:
            found = {**found, "resumed": [*found["resumed"], here]}
        else:
            found = {**here, "resumed": [], "end": None}
        write_json(path, {**found, "data_sha256": self._data_sha256})

    @processes.by_first
    def note_end(self) -> None:
        """Notes in `provenance.json` that everything is done."""
        path = self.path / _PROVENANCE
        write_json(path, {**_readable(path), "end": provenance.now()})


@processes.by_first
def begun_by_this_job(path: Path) -> bool:
    """Whether SLURM requeued this job and this job created the run."""
    job = os.environ.get("SLURM_JOB_ID")
    if os.environ.get("SLURM_RESTART_COUNT", "0") == "0" or job is None:
        return False
    return _readable(path / _PROVENANCE).get("slurm_job") == job


def _readable(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where it is missing or damaged."""
    try:
        found = read_json(path)
    except InputError:
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def open_run(
    path: Path,
    config: Any,
    *,
    overwrite: bool = False,
    growth: Growth | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[RunDir]:
    """Opens a new or unfinished directory with exactly this configuration for writing, and releases it on leaving.

    Files that a kill left half-written are removed; a damaged `config.json` or `progress.json` is rebuilt.

    Args:
        path: the directory; made when absent.
        config: frozen dataclass; what `config.json` holds or must hold. An option that the file lacks counts as its
            default.
        overwrite: deletes an earlier run there first; never deletes a directory that is not a run's.
        growth: in what the configuration may ask for more than the directory was begun with.
        say: called with a sentence for people.

    Raises:
        InputError: when the path is a file, holds other things than a run, belongs to another configuration, is being
            written by another process, or cannot be written.
    """
    with disk_errors_explained(path), ExitStack() as until_left:
        yield processes.on_first(lambda: _open(path, config, overwrite, growth, say, until_left))


def _open(
    path: Path,
    config: Any,
    overwrite: bool,
    growth: Growth | None,
    say: Callable[[str], None],
    until_left: ExitStack,
) -> RunDir:
    """The directory, locked until the stack is left."""
    wanted = json_codec.to_dict(config)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; expected a directory, new or of an earlier run.")
    # A kill in the first write leaves the lock and a part of config.json: not yet a run, but nothing else either.
    found = path.is_dir() and not all(map(_is_of_first_write, path.iterdir()))
    is_run = any((path / name).exists() for name in (_CONFIG, _PROGRESS))
    if found and not is_run:
        raise InputError(f"{path} holds files that do not belong to a run; choose a new directory.")
    if is_run and overwrite:
        _require_run(path, wanted)
    path.mkdir(parents=True, exist_ok=True)
    lock, is_locked = _lock(path)
    until_left.callback(os.close, lock)
    if not is_locked:
        say(f"The file system of {path} cannot lock; make sure that no other process writes there.")
    if is_run and overwrite:
        _clear(path)
    if is_run and not overwrite:
        return _opened(path, type(config), wanted, is_locked=is_locked, growth=growth, say=say)
    _remove_leftovers(path)
    write_json(path / _CONFIG, wanted)
    fresh = RunDir(path, wanted, is_locked=is_locked, progress={"completed": [], "records_bytes": 0})
    fresh.write_progress()
    return fresh


def _is_of_first_write(entry: Path) -> bool:
    return entry.name == ".lock" or (entry.name.startswith(_CONFIG) and entry.name.endswith(PART))


def _opened(
    path: Path,
    kind: type,
    wanted: dict[str, Any],
    *,
    is_locked: bool,
    growth: Growth | None,
    say: Callable[[str], None],
) -> RunDir:
    """The directory of an earlier run of this configuration."""
    saved = saved_config(path)
    before = json_codec.to_dict(json_codec.from_dict(kind, saved, where=str(path / _CONFIG)))
    more = {growth.field: max(before[growth.field], wanted[growth.field])} if growth else {}
    _require_same({**before, **more}, wanted, path)
    _remove_leftovers(path)
    if _readable(path / _CONFIG) != saved:
        say(f"{path / _CONFIG} was damaged; it is rebuilt from its copy in {_PROGRESS}.")
        write_json(path / _CONFIG, saved)
    check_records(path)
    progress = _read_progress(path)
    if progress is None and (path / records.FILE_NAME).exists():
        records.append(path, [])  # drops the part of a line that a kill left
    run = RunDir(path, wanted, is_locked=is_locked, progress=progress)
    if progress is None:
        say(
            f"{path / _PROGRESS} is missing or damaged; it is rebuilt: trained networks are kept, "
            "and what was measured on them afterwards is measured again."
        )
        run.write_progress()
    if growth and before != wanted:
        run.grow(before[growth.field], *growth.reopened)
        # Last: killed before it, the same command grows the job again, and the earlier one completes it as it was.
        write_json(path / _CONFIG, wanted)
        say(f"{path} is continued with {growth.field} {wanted[growth.field]} in place of {before[growth.field]}.")
    return run


def _lock(path: Path) -> tuple[int, bool]:
    """The open lock file, and whether it is locked: some network file systems cannot."""
    lock = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return lock, False
        os.close(lock)
        if not isinstance(error, BlockingIOError):
            raise
        raise InputError(f"Another process is writing {path}; wait for it, or choose another directory.") from None
    return lock, True


def _remove_leftovers(path: Path) -> None:
    """Removes what killed saves left: parts of files, and directories of steps that were not completed."""
    for folder in ("", "figures/", "tables/", "checkpoints/*/*/"):
        for part in path.glob(f"{folder}*.[0-9]*-[0-9]*{PART}"):
            part.unlink(missing_ok=True)
    for step in path.glob("checkpoints/*/*/*.orbax-checkpoint-tmp*"):
        shutil.rmtree(step)


def _require_run(path: Path, wanted: dict[str, Any]) -> None:
    """Raises `InputError` where nothing but the name `config.json` speaks for a run: other programs have one too."""
    has_records = any((path / name).exists() for name in (records.FILE_NAME, records.PUBLISHED_NAME))
    config = _readable(path / _CONFIG)
    # One of an older version lacks a few keys; that of another program may share a few, such as `epochs`.
    like_ours = config.keys() <= wanted.keys() and len(config) > len(wanted) / 2
    if _read_progress(path) is None and not has_records and not like_ours:
        raise InputError(f"{path / _CONFIG} is not of a run, so nothing was deleted; choose a new directory.")


def _clear(path: Path) -> None:
    """Deletes what a run wrote; a directory that is a link is emptied of it and stays."""
    # config.json goes last: until then the directory is still known for a run's.
    seeds = [seed for seed in path.glob("checkpoints/*/*") if seed.name.isdigit() and seed.is_dir()]
    for seed in seeds:
        for entry in list(seed.iterdir()):
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    for pattern in ("figures/*.png", "figures/*.svg", "tables/*.csv", "tensorboard/*/events.out.tfevents.*"):
        for file in path.glob(pattern):
            file.unlink()
    for directory in ("checkpoints", "figures", "tables", "tensorboard"):
        if not (path / directory).is_symlink():
            shutil.rmtree(path / directory, ignore_errors=True)
    for name in ("report.html", *(file.name for file in path.glob("*.npz")), *reversed(_OWN_FILES)):
        (path / name).unlink(missing_ok=True)


def _require_same(old: dict[str, Any], new: dict[str, Any], path: Path) -> None:
    lines = list(differences(old, new))
    if lines:
        raise InputError(
            f"{path} holds a run of another configuration ({'; '.join(lines[:3])}"
            f"{f'; and {len(lines) - 3} more' if len(lines) > 3 else ''}); "
            "choose another directory, or overwrite it."
        )


def differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    """Phrases such as `seeds was 2, now 4`, one for each value in which two nested dicts differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            yield from differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield f"{name} was {old!r}, now {new!r}"
