"""Verified checkpoints of one training: the only module that calls orbax. Knows arrays and steps, not networks.

Orbax restores a data file with a flipped bit without complaint, so every step carries the SHA-256 of its leaves and
a step whose digest does not match is passed over for the one before it.
"""

import dataclasses
import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from mi_jax.errors import InputError

State = dict[str, Any]
_OS_ERROR = re.compile(r"os_error_code='(\d+)'")


@dataclasses.dataclass(frozen=True)
class Saved:
    """One restored step: nested dict of numpy arrays, its metadata, and why newer steps were passed over."""

    step: int
    state: State
    metadata: dict[str, Any]
    passed_over: tuple[str, ...] = ()


def digest(state: State) -> str:
    """SHA-256 (hex) over path, dtype, shape and bytes of every leaf, in the order of the paths."""
    total = hashlib.sha256()
    leaves = [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state)]
    for path, leaf in sorted(leaves, key=lambda pair: pair[0]):
        array = np.ascontiguousarray(leaf)
        total.update(f"{path}|{array.dtype.name}|{np.shape(leaf)}|".encode())
        total.update(array.tobytes())
    return total.hexdigest()


class Checkpoints:
    """The steps saved below one directory; the newest two are kept, and those named in `keep`.

    Args:
        directory: made on the first save; need not exist before.
        keep: steps that are never deleted, so that a notebook can look back on them.
    """

    def __init__(self, directory: Path, *, keep: Iterable[int] = ()):
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # what orbax logs as an error it also raises
        policies = [checkpoint_managers.LatestN(2), checkpoint_managers.CustomSteps(sorted(keep))]
        self._directory = directory.resolve()
        self._options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies), create=True
        )
        self._opened: ocp.CheckpointManager | None = None

    def steps(self) -> list[int]:
        """The saved steps, oldest first."""
        return sorted(self._manager().all_steps()) if self._directory.is_dir() else []

    def save(self, step: int, state: State, metadata: dict[str, Any]) -> None:
        """Starts to write a step (string-keyed nested dict of arrays); it counts only once it is whole on disk.

        Raises:
            OSError: what the file system said to this save or to the one before it.
        """
        host = jax.tree.map(np.asarray, jax.device_get(state))
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(host),
            metadata=ocp.args.JsonSave({**metadata, "sha256": digest(host)}),
        )
        with _os_errors(self._directory):
            self._manager().save(step, args=items, force=True)

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
            raise InputError(f"No intact checkpoint: {'; '.join(damaged)}. Start the run anew with --overwrite.")
        return None

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
        if metadata.pop("sha256", None) != digest(state):
            return f"{place} does not match its SHA-256"
        return Saved(step, state, metadata)

    def discard_after(self, step: int) -> None:
        """Deletes the steps newer than `step`, so that a run that goes on from it can save them again."""
        for later in [s for s in self.steps() if s > step]:
            self._manager().delete(later)

    def wait(self) -> None:
        """Returns when every started save is on disk; raises what went wrong in the background."""
        if self._opened is not None:
            with _os_errors(self._directory):
                self._opened.wait_until_finished()

    def close(self) -> None:
        """Waits for the saves under way and lets go of the directory; raises what went wrong in the background."""
        if self._opened is not None:
            opened, self._opened = self._opened, None
            with _os_errors(self._directory):
                try:
                    opened.wait_until_finished()
                finally:
                    opened.close()

    def _manager(self) -> ocp.CheckpointManager:
        if self._opened is None:
            self._opened = ocp.CheckpointManager(self._directory, options=self._options)
        return self._opened


def restore_together(stores: Sequence[Checkpoints]) -> tuple[list[Saved], list[str]]:
    """The newest step that is intact in every store, one `Saved` for each, and why newer steps are not.

    The first list is empty where there is no such step. Steps that one store lacks are passed over without a word.
    """
    damaged: list[str] = []
    for step in sorted(set.intersection(*(set(store.steps()) for store in stores)), reverse=True):
        read = [store.read(step) for store in stores]
        if len(found := [saved for saved in read if isinstance(saved, Saved)]) == len(stores):
            return found, damaged
        damaged += [reason for reason in read if isinstance(reason, str)]
    return [], damaged


@contextmanager
def _os_errors(directory: Path) -> Iterator[None]:
    """Raises as `OSError` what orbax's own writer says in a `ValueError` of the file system, such as a full disk."""
    try:
        yield
    except ValueError as error:
        told = _OS_ERROR.search(str(error))
        if told is None:
            raise
        code = int(told[1])
        raise OSError(code, os.strerror(code), str(directory)) from error
