"""Verified checkpoints of one training of one seed, in orbax's format.

Orbax restores a data file with a flipped bit without complaint, so every step carries the SHA-256 of its leaves and of
its metadata, and a step whose digest does not match is passed over for the one before it.
"""

import dataclasses
import errno
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from mi_jax import processes
from mi_jax.errors import InputError
from mi_jax.files import json_digest, write_json
from mi_jax.training import HeldOutAccuracy, best
from mi_jax.typing import Variables

State = dict[str, Any]
_BEST = "best.json"
_UNREADABLE = "[]\\"
"""Characters with which orbax's reader does not find again what its writer wrote."""
_ALONE = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
_OVERHEAD_BYTES = 2**20
"""Space that a step takes in addition to its arrays: manifests and metadata."""
_OS_ERROR = re.compile(r"os_error_code='(\d+)'")


@dataclasses.dataclass(frozen=True)
class Saved:
    """One restored step: nested dict of numpy arrays, its metadata, and why newer steps were skipped."""

    step: int
    state: State
    metadata: dict[str, Any]
    passed_over: tuple[str, ...] = ()


def digest(state: State, metadata: dict[str, Any] | None = None) -> str:
    """SHA-256 (hex) over path, dtype, shape and bytes of every leaf, in the order of the paths, and over metadata."""
    total = hashlib.sha256()
    if metadata is not None:
        total.update(json.dumps(metadata, sort_keys=True).encode())
    leaves = [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state)]
    for path, leaf in sorted(leaves, key=lambda pair: pair[0]):
        array = np.ascontiguousarray(leaf)
        total.update(f"{path}|{array.dtype.name}|{np.shape(leaf)}|".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def check_directory(directory: Path) -> None:
    """Raises `InputError` where checkpoints below a directory could not be read again, because of its name."""
    if url := re.match(r"[a-z][a-z0-9+.-]*:/", str(directory), re.IGNORECASE):
        raise InputError(
            f"Checkpoints cannot be kept in {directory}: {url[0]}/ is no directory of this machine; mount the bucket "
            "and give the path of a directory in it."
        )
    name = os.path.realpath(directory)  # `resolve` raises where links lead in a circle
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"Checkpoints cannot be kept in {name.encode(errors='backslashreplace').decode()}: the path is not UTF-8 "
            "under this locale; choose another directory."
        ) from None
    if found := sorted(set(name) & set(_UNREADABLE)):
        raise InputError(
            f"Checkpoints cannot be kept in {name}: the path contains {' and '.join(found)}; choose another directory."
        )


class Checkpoints:
    """The steps saved below one directory; the newest two are kept, and those named in `keep`.

    With several processes, the first does all I/O and broadcasts the result.

    Args:
        directory: made on the first save; need not exist before.
        keep: steps that are never deleted, so that a notebook can look back on them.
    """

    def __init__(self, directory: Path, *, keep: Iterable[int] = ()):
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # what orbax logs as an error it also raises
        check_directory(directory)
        policies = [checkpoint_managers.LatestN(2), checkpoint_managers.CustomSteps(sorted(keep))]
        self._directory = directory.resolve()
        self._options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
            create=processes.count() == 1,
            multiprocessing_options=_ALONE if processes.count() > 1 else ocp.options.MultiprocessingOptions(),
        )
        self._opened: ocp.CheckpointManager | None = None

    @processes.by_first
    def steps(self) -> list[int]:
        """The saved steps, oldest first."""
        return sorted(self._manager().all_steps()) if self._directory.is_dir() else []

    @processes.by_first
    def save(self, step: int, state: State, metadata: dict[str, Any]) -> None:
        """Starts to write a step (string-keyed nested dict of arrays); it counts only once it is complete on disk.

        Raises:
            OSError: what the file system said to this save or to the one before it.
        """
        host = jax.tree.map(np.asarray, jax.device_get(state))
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(host),
            metadata=ocp.args.JsonSave({**metadata, "sha256": digest(host, metadata)}),
        )
        # A disk that fills up while orbax writes makes its threads print tracebacks.
        self.wait()
        self._require_space(sum(leaf.nbytes for leaf in jax.tree.leaves(host)))
        with _os_errors(self._directory):
            self._manager().save(step, args=items, force=True)

    @processes.by_first
    def restore(self, step: int | None = None) -> Saved | None:
        """The newest intact step, or the one asked for; None where nothing was ever saved.

        Raises:
            InputError: when the step asked for is absent or damaged, or when steps exist and none is intact.
        """
        steps = self.steps()
        if step is not None:
            if step not in steps:
                raise InputError(f"{self._directory} holds no step {step}; it holds {steps or 'none'}.")
            steps = [step]
        damaged: list[str] = []
        for candidate in reversed(steps):
            saved = self.read(candidate)
            if isinstance(saved, Saved):
                return dataclasses.replace(saved, passed_over=tuple(damaged))
            damaged.append(saved)
        if damaged:
            raise InputError(
                f"No intact checkpoint: {'; '.join(damaged)}. The command that started the run trains it again."
            )
        return None

    @processes.by_first
    def read(self, step: int) -> Saved | str:
        """One step as it was saved, or in words why it is not intact: files that are missing, cut off or changed.

        Raises:
            OSError: when the file system failed, which says nothing of the step.
        """
        place = self._directory / str(step)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(), metadata=ocp.args.JsonRestore())
        try:
            with _os_errors(self._directory):
                read = self._manager().restore(step, args=items)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            return f"{place} cannot be read ({type(error).__name__})"
        except (OSError, MemoryError):
            raise
        except Exception as error:  # orbax raises many kinds for a file that is cut off: each means "not intact"
            return f"{place} cannot be read ({type(error).__name__})"
        state, metadata = read["state"], dict(read["metadata"])
        # Checkpoints of earlier versions carry the digest of the state alone.
        if metadata.pop("sha256", None) not in (digest(state, metadata), digest(state)):
            return f"{place} does not match its SHA-256"
        return Saved(step, state, metadata)

    @processes.by_first
    def discard_after(self, step: int) -> None:
        """Deletes the steps newer than `step`, so that a run that resumes from it can save them again.

        The newest goes first: a kill then leaves no gap, which nothing would fill.
        """
        for later in [s for s in reversed(self.steps()) if s > step]:
            self._manager().delete(later)

    @processes.by_first
    def name_best(self, epoch: HeldOutAccuracy) -> None:
        """Writes `best.json` next to the steps, once that of the epoch is on disk."""
        self.wait()
        named = dataclasses.asdict(epoch)
        write_json(self._directory / _BEST, {**named, "sha256": json_digest(named)})

    @processes.by_first
    def best_step(self) -> int | None:
        """The step that `best.json` names; None where that is missing or damaged, or the step is not there."""
        try:
            found = json.loads((self._directory / _BEST).read_bytes())
            intact = found.pop("sha256", None) in (None, json_digest(found))
            return found["step"] if intact and found["step"] in self.steps() else None
        except (FileNotFoundError, ValueError, AttributeError, KeyError, TypeError):
            return None

    @processes.by_first
    def find_best(self, training: str) -> HeldOutAccuracy:
        """The best epoch by the held-out accuracies that the newest step carries, where `best.json` does not state it.

        Args:
            training: objective, see `mi_jax.training.best`.

        Raises:
            InputError: when there is no step after an epoch, or the newest is damaged.
        """
        steps = self.steps()
        newest = self.read(steps[-1]) if steps else "there is no checkpoint"
        if isinstance(newest, str):
            raise InputError(f"The best epoch of {training} is not known: {newest}.")
        history = [HeldOutAccuracy(**end) for end in newest.metadata.get("held_out", ())]
        if not history:
            raise InputError(f"The best epoch of {training} is not known: the newest checkpoint names none.")
        return best(history, training)

    @processes.by_first
    def wait(self) -> None:
        """Returns when every started save is on disk; raises what went wrong in the background."""
        if self._opened is not None:
            with _os_errors(self._directory):
                self._opened.wait_until_finished()

    @processes.by_first
    def close(self) -> None:
        """Waits for pending saves and closes the manager; raises what went wrong in the background."""
        if self._opened is not None:
            opened, self._opened = self._opened, None
            with _os_errors(self._directory):
                try:
                    opened.wait_until_finished()
                finally:
                    opened.close()

    def _require_space(self, size: int) -> None:
        """Raises the error of a full disk where so many bytes, and what orbax adds to them, may not find room."""
        there = next(path for path in (self._directory, *self._directory.parents) if path.exists())
        if shutil.disk_usage(there).free < size + _OVERHEAD_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._directory))

    def _manager(self) -> ocp.CheckpointManager:
        if self._opened is None:
            if not self._options.create:
                self._directory.mkdir(parents=True, exist_ok=True)
            self._opened = ocp.CheckpointManager(self._directory, options=self._options)
        return self._opened


def restore_together(stores: Sequence[Checkpoints]) -> tuple[list[Saved], list[str]]:
    """The newest step that is intact in every store, one `Saved` for each, and why newer steps are not.

    The first list is empty where there is no such step. Steps that one store lacks are silently skipped.
    """
    damaged: list[str] = []
    for step in sorted(set.intersection(*(set(store.steps()) for store in stores)), reverse=True):
        read = [store.read(step) for store in stores]
        if len(found := [saved for saved in read if isinstance(saved, Saved)]) == len(stores):
            return found, damaged
        damaged += [reason for reason in read if isinstance(reason, str)]
    return [], damaged


def to_save(member: Any) -> State:
    """A seed's training state with string keys only, so that it is restored without an example of its structure.

    `variables` are those to evaluate; where they are an average, `trained` are those that training continues from.
    """
    optimizer = {
        jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(member["optimizer"])
    }
    saved = {"variables": member["variables"], "optimizer": optimizer, "totals": member["totals"]}
    if "average" in member:
        saved |= {"variables": member["average"], "trained": member["variables"]}
    return saved


def restored(like: Any, saved: State) -> Any:
    """The inverse of `to_save`, in the structure of `like`.

    Raises:
        InputError: when the state has other parts or shapes, as another version of a library makes it.
    """
    if _shapes(saved) != _shapes(to_save(like)):
        raise InputError(
            "The saved state of the optimizer or the network has other parts than this version makes; resume with the "
            "versions of jax, optax and mi_jax in provenance.json, or choose another directory."
        )
    optimizer = jax.tree_util.tree_map_with_path(
        lambda path, _: jnp.asarray(saved["optimizer"][jax.tree_util.keystr(path)]), like["optimizer"]
    )
    member = {
        "variables": variables_of(saved),
        "optimizer": optimizer,
        "totals": jax.device_put(saved["totals"]),
    }
    if "average" in like:
        member |= {"variables": variables_of(saved, "trained"), "average": member["variables"]}
    return member


def _shapes(state: State) -> dict[str, tuple[int, ...]]:
    return {jax.tree_util.keystr(path): np.shape(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


def variables_of(saved: State, name: str = "variables") -> Variables:
    """The variables on the device, with the empty dict that orbax leaves out of a network without batch statistics."""
    return jax.device_put({"batch_stats": {}, **saved[name]})


@contextmanager
def _os_errors(directory: Path) -> Iterator[None]:
    """Raises as `OSError` what orbax's writer reports of the file system, such as a full disk, in a `ValueError`."""
    try:
        yield
    except ValueError as error:
        found = _OS_ERROR.search(str(error))
        if found is None:
            raise
        code = int(found[1])
        raise OSError(code, os.strerror(code), str(directory)) from error
