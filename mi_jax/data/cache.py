"""Decoded data sets on disk: whole splits as .npy files, checked by SHA-256 whenever they are read.

It needs no TFDS, so that a machine with the cache alone can train. What is in the files is decided by `tfds_source`.
"""

import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from mi_jax.data.dataset import Dataset, Split
from mi_jax.errors import InputError
from mi_jax.files import user_cache

META = "meta.json"
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


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
    """The folder of one decoded data set; a changed source has another fingerprint and so another folder."""
    return root() / name.replace("/", "--") / f"{version}-{fingerprint}"


def entries(name: str, version: str | None = None) -> list[Path]:
    """The folders that hold decoded copies of a data set (of one version, if given), whatever their source."""
    found = (root() / name.replace("/", "--")).glob(f"{version or '[0-9]*'}-*/{META}")
    return sorted(meta.parent for meta in found)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(dataset: Dataset, entry: Path) -> None:
    """Put a data set into the cache in one step: a reader sees all of it or nothing.

    Where the cache cannot be written (read-only, full disk), says so on stderr and goes on: it is a convenience.
    """
    arrays = (dataset.train.images, dataset.train.labels, dataset.test.images, dataset.test.labels)
    partial = None
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".incomplete-", dir=entry.parent))
        for stem, array in zip(ARRAYS, arrays, strict=True):
            np.save(partial / f"{stem}.npy", array, allow_pickle=False)
        digests = {f"{stem}.npy": _sha256(partial / f"{stem}.npy") for stem in ARRAYS}
        meta = {"name": dataset.name, "class_names": dataset.class_names, "sha256": digests}
        (partial / META).write_text(json.dumps(meta, indent=1))
        _move(partial, entry)
    except OSError as error:
        print(f"{dataset.name} is not cached and will be decoded again next time: {error}", file=sys.stderr)
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def _move(partial: Path, entry: Path) -> None:
    """Move a finished folder into place, unless another process was first."""
    try:
        partial.rename(entry)
    except OSError:
        if not entry.exists():
            raise


def read(entry: Path) -> Dataset:
    """The data set in a cache folder.

    Raises:
        InputError: naming the file that is missing, unreadable or not what was written, and the command that mends it.
    """
    try:
        meta = json.loads((entry / META).read_text())
        name, class_names, digests = meta["name"], tuple(meta["class_names"]), meta["sha256"]
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
