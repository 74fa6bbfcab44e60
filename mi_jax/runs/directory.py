"""The directory of a resumable job (a run, a sweep, a benchmark): its lock, configuration, provenance and stages.

config.json      what was asked for                  provenance.json  commands, versions, devices, digest of the data
progress.json    completed stages, under a digest, with a copy of the configuration
records.jsonl    checkpoints/<training>/<seed>/<step>/  figures/  tables/  report.html  tensorboard/
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mi_jax import processes, records
from mi_jax.errors import InputError
from mi_jax.files import printable, write_json
from mi_jax.runs import provenance
from mi_jax.runs.run_files import PROVENANCE, read_object, write_progress


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
        write_progress(self.path, progress)

    def pin_data(self, sha256: str) -> None:
        """Notes the digest of the data set, or compares it with the one noted before.

        Raises:
            InputError: when it is another one, or not the same in all processes.
        """
        if processes.any_of(processes.agree(sha256) != sha256):
            raise InputError(
                "The processes of this job read different data sets under the same name; give all of them the same one."
            )
        noted = processes.on_first(lambda: read_object(self.path / PROVENANCE).get("data_sha256"))
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
        path = self.path / PROVENANCE
        found, here = read_object(path), provenance.of_this_command(command=command, data_dir=data_dir)
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
        path = self.path / PROVENANCE
        write_json(path, {**read_object(path), "end": provenance.now()})


@processes.by_first
def begun_by_this_job(path: Path) -> bool:
    """Whether SLURM requeued this job and this job created the run."""
    job = os.environ.get("SLURM_JOB_ID")
    if os.environ.get("SLURM_RESTART_COUNT", "0") == "0" or job is None:
        return False
    return read_object(path / PROVENANCE).get("slurm_job") == job
