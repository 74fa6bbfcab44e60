"""Decoded data sets on disk: complete splits as .npy files, checked by SHA-256 when they are read.

Does not need TFDS, so that a machine with only the cache can train.
"""

import contextlib
import hashlib
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mi_jax.data.dataset import Dataset, Split
from mi_jax.errors import InputError
from mi_jax.files import sync, user_cache

META = "meta.json"
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
_INCOMPLETE = ".incomplete-"
_ABANDONED_SECONDS = 24 * 3600
"""Another process may still be writing what is younger."""


def root() -> Path:
    """`$XDG_CACHE_HOME/mi_jax/data`, or the same under ~/.cache.

    Raises:
        InputError: when neither is known.
    """
    cache = user_cache()
    if cache is None:
        raise InputError("There is no home directory for decoded data sets; set XDG_CACHE_HOME to a directory.")
    return cache / "data"


def entry_path(name: str, version: str, fingerprint: str) -> Path:
    """The folder of a decoded data set, named by the fingerprint of its source."""
    return root() / name.replace("/", "--") / f"{version}-{fingerprint}"


def entries(name: str, version: str | None = None) -> list[Path]:
    """The folders that hold decoded copies of a data set, of the given version or pattern of versions."""
    found = (root() / name.replace("/", "--")).glob(f"{version or '[0-9]*'}-*/{META}")
    return sorted(meta.parent for meta in found)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(dataset: Dataset, entry: Path) -> None:
    """Writes a data set to the cache atomically: a reader sees all of it or nothing.

    If the cache cannot be written (read-only, full disk), reports it on stderr and continues.
    """
    arrays = (dataset.train.images, dataset.train.labels, dataset.test.images, dataset.test.labels)
    partial = None
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(entry.parent)
        partial = Path(tempfile.mkdtemp(prefix=_INCOMPLETE, dir=entry.parent))
        for stem, array in zip(ARRAYS, arrays, strict=True):
            np.save(partial / f"{stem}.npy", array, allow_pickle=False)
        digests = {f"{stem}.npy": _sha256(partial / f"{stem}.npy") for stem in ARRAYS}
        meta = {"name": dataset.name, "class_names": dataset.class_names, "sha256": digests}
        (partial / META).write_text(json.dumps(meta, indent=1))
        for file in partial.iterdir():
            sync(file)
        sync(partial)
        _move(partial, entry)
        sync(entry.parent)
    except OSError as error:
        print(f"{dataset.name} is not cached and will be decoded again next time: {error}", file=sys.stderr)
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    """Removes what processes that were killed had begun to write."""
    for left in folder.glob(f"{_INCOMPLETE}*"):
        with contextlib.suppress(FileNotFoundError):  # another process removed it
            if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def _move(partial: Path, entry: Path) -> None:
    """Moves a finished folder into place, unless another process was first."""
    try:
        partial.rename(entry)
    except OSError:
        if not entry.exists():
            raise


def read(entry: Path) -> Dataset:
    """The data set in a cache folder.

    Raises:
        InputError: when a file is missing, unreadable or has another checksum; gives the command that removes it.
    """
    try:
        meta = json.loads((entry / META).read_text())
        name, class_names, digests = meta["name"], tuple(meta["class_names"]), dict(meta["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _corrupt(entry, META, "it cannot be read") from error
    arrays = {}
    for stem in ARRAYS:
        file = f"{stem}.npy"
        try:
            if _sha256(entry / file) != digests.get(file):
                raise _corrupt(entry, file, "its checksum is wrong")
            arrays[stem] = np.load(entry / file, allow_pickle=False)
        except OSError as error:
            raise _corrupt(entry, file, "it cannot be read") from error
    return Dataset(
        name=name,
        train=Split(images=arrays["train_images"], labels=arrays["train_labels"]),
        test=Split(images=arrays["test_images"], labels=arrays["test_labels"]),
        class_names=class_names,
    )


def _corrupt(entry: Path, file: str, why: str) -> InputError:
    return InputError(
        f"The cached data set {entry} is damaged ({file}: {why}); remove it with `rm -r '{entry}'` and run again."
    )
