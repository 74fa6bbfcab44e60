"""Reads TFDS image-classification sets in ArrayRecord format without TensorFlow.

Finding a prepared set needs no TFDS; decoding it does. `preparation` downloads, `cache` keeps what was decoded.
"""

import contextlib
import fnmatch
import hashlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mi_jax.data.dataset import Dataset, Split, stratified_split
from mi_jax.errors import InputError

CHUNK = 256  # images decoded between two reports of progress
TEST_SHARE = 0.2  # of sets that come in one piece
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_SECONDS_BETWEEN_LINES = 5.0


@dataclass(frozen=True)
class Reference:
    """A TFDS name and version: "name" or "name/config", either followed by ":1.2.3" or a pattern like ":1.*.*"."""

    name: str
    version: str | None

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Parses a name; raises `InputError` for one of another form."""
        match = re.fullmatch(r"([a-z][a-z0-9_]*(?:/[\w.-]+)?)(?::((?:\d+|\*)\.(?:\d+|\*)\.(?:\d+|\*)))?", text)
        if match is None:
            raise InputError(
                f"{text!r} is not the name of a data set; expected shapetex, digits, folder:PATH, npz:PATH, or a TFDS "
                "name such as cifar10, cifar10:3.0.2 or mnist:3.*.*."
            )
        return cls(match[1], match[2])


@dataclass(frozen=True)
class Source:
    """A prepared data set on disk."""

    directory: Path
    version: str
    is_array_record: bool

    @property
    def fingerprint(self) -> str:
        """Digest of the names and contents of all files."""
        digest = hashlib.sha256()
        for file in sorted(path for path in self.directory.iterdir() if path.is_file()):
            digest.update(f"{file.name}:{file.stat().st_size}\n".encode())
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
        return digest.hexdigest()[:16]


def data_root(data_dir: str | Path | None) -> Path:
    """Where TFDS sets are kept: the given folder, else `$TFDS_DATA_DIR`, else ~/tensorflow_datasets.

    Raises:
        InputError: when there is no home directory and no other is given, or it is not a path.
    """
    if data_dir is not None and not isinstance(data_dir, str | os.PathLike):
        raise InputError(f"data_dir is {data_dir!r}; expected the path of a directory, or None.")
    try:
        return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    except RuntimeError:
        raise InputError("There is no home directory for data sets; set TFDS_DATA_DIR to a directory.") from None


def find(reference: Reference, root: Path) -> Source | None:
    """The newest version of a set under `root` that fits the reference, or None.

    Raises:
        InputError: when the set has several configurations and none was named, or it or its metadata is unreadable.
    """
    base = root / reference.name
    try:
        infos = list(base.glob("*/dataset_info.json"))
    except OSError as error:  # a path that is too long, or a folder that may not be read
        raise InputError(
            f"{base} cannot be read ({error.strerror}); correct the name of the data set or its data_dir."
        ) from None
    if not infos:
        infos = list(base.glob("*/*/dataset_info.json"))
        configs = sorted({info.parent.parent.name for info in infos})
        if len(configs) > 1:
            raise InputError(
                f"{base} holds the configurations {', '.join(configs)}: name one, as in {reference.name}/{configs[0]}."
            )
    versions = {info.parent.name: info for info in infos if _VERSION.fullmatch(info.parent.name)}
    if reference.version is not None:
        versions = {v: info for v, info in versions.items() if fnmatch.fnmatchcase(v, reference.version)}
    if not versions:
        return None
    newest = max(versions, key=lambda version: tuple(int(part) for part in version.split(".")))
    try:
        info = json.loads(versions[newest].read_text())
        formats = {info.get("fileFormat", "tfrecord"), *info.get("alternativeFileFormats", [])}
    except (OSError, ValueError, AttributeError, TypeError) as error:  # the last two: no object, or other values
        raise InputError(
            f"{versions[newest]} cannot be read ({error}): remove its folder and prepare again."
        ) from error
    return Source(versions[newest].parent, newest, "array_record" in formats)


def nearby(reference: Reference, root: Path) -> Path | None:
    """A folder one or two levels above `root`, or one below, that holds the set; None if there is none."""
    below = sorted(folder for folder in root.iterdir() if folder.is_dir()) if root.is_dir() else []
    candidates = [root.parent, root.parent.parent, *below]
    return next((folder for folder in candidates if list((folder / reference.name).glob("**/dataset_info.json"))), None)


def decode(source: Source, name: str) -> Dataset:
    """All images of a prepared set as uint8 arrays; progress goes to stderr.

    The test split is "test", or "validation" if there is no test. A set with only "train" is divided 80/20 by
    `stratified_split`; one without "train" has an empty training split.

    Raises:
        InputError: when TFDS is missing, records are unreadable, or these are no labelled images of one size.
    """
    builder = _open(source, name)
    image_key, label_key, class_names = classification_keys(builder.info, name)
    splits = set(builder.info.splits)
    test_name = next((split for split in ("test", "validation") if split in splits), None)
    read = {
        split: _read_split(builder, split, image_key, label_key, name)
        for split in filter(None, ("train", test_name))
        if split in splits
    }
    if not read:
        raise InputError(f"{name} has none of the splits train, test and validation; it has {', '.join(splits)}.")
    for split, part in read.items():
        if part.labels.min() < 0 or part.labels.max() >= len(class_names):
            raise InputError(f"The {split} split of {name} has images without a label, so it cannot be used.")
    if test_name is None:
        train, test = stratified_split(read["train"], TEST_SHARE)
    else:
        test = read[test_name]
        train = read.get("train", test.take(slice(0)))
    if train.images.shape[1:] != test.images.shape[1:]:
        raise _sizes_differ(name, train.images.shape[1:], test.images.shape[1:])
    return Dataset(name=name, train=train, test=test, class_names=class_names)


def _open(source: Source, name: str) -> Any:
    with quiet():
        try:
            import tensorflow_datasets as tfds
        except ImportError as error:
            raise InputError(
                f"Decoding {name} needs TFDS once ({error}): run `pip install tensorflow-datasets array-record`, or "
                "copy the cache from a machine that has it."
            ) from error
        try:
            builder = tfds.builder_from_directory(source.directory)
            # Of a set in several formats, the paths are those of the format that was written first.
            builder.info.set_file_format("array_record", override=True, override_if_initialized=True)
            return builder
        except Exception as error:  # whatever TFDS makes of damaged metadata
            raise InputError(
                f"{source.directory} cannot be read ({_first_line(error)}); remove it and prepare {name} again."
            ) from error


def classification_keys(info: Any, name: str) -> tuple[str, str, tuple[str, ...]]:
    """The features that hold image and label, and the names of the classes.

    Raises:
        InputError: with the reason why the set is no classification of uint8 images of 1 or 3 channels.
    """
    import tensorflow_datasets as tfds

    def unsupported_reason(reason: str) -> InputError:
        return InputError(f"{name} cannot be used for image classification: {reason}.")

    image_key, label_key = (info.supervised_keys or ("image", "label"))[:2]
    features = info.features if isinstance(info.features, tfds.features.FeaturesDict) else {}
    image, label = (
        features[key] if isinstance(key, str) and key in features else None for key in (image_key, label_key)
    )
    if not isinstance(image, tfds.features.Image):
        raise unsupported_reason("its inputs are not images")
    if not isinstance(label, tfds.features.ClassLabel) or not label.num_classes:
        raise unsupported_reason("its images carry no class label")
    pixel_type: Any = image.np_dtype
    shape: Any = image.shape
    if pixel_type != np.uint8:
        raise unsupported_reason(f"its pixels are {np.dtype(pixel_type).name}, not uint8")
    if shape[-1] not in (1, 3):
        raise unsupported_reason(f"its images have {shape[-1]} channels, not 1 or 3")
    return image_key, label_key, tuple(label.names)


def _read_split(builder: Any, split: str, image_key: str, label_key: str, name: str) -> Split:
    count = builder.info.splits[split].num_examples
    if not count:
        raise InputError(f"The {split} split of {name} is empty; remove {builder.data_dir} and prepare {name} again.")
    stored = _stored_records(builder, split)
    if stored != count:
        raise InputError(
            f"The {split} split in {builder.data_dir} holds {stored} of {count} records; remove that folder and "
            f"prepare {name} again."
        )
    labels = np.empty(count, np.int32)
    images = None
    for first, examples in _chunks(builder, split, count, name):
        if images is None:
            images = np.empty((count, *examples[0][image_key].shape), np.uint8)
        for index, example in enumerate(examples, start=first):
            pixels = example[image_key]
            if pixels.shape != images.shape[1:]:
                raise _sizes_differ(name, images.shape[1:], pixels.shape)
            images[index], labels[index] = pixels, example[label_key]
    assert images is not None
    return Split(images=images, labels=labels)


def _stored_records(builder: Any, split: str) -> int:
    """How many records the files of a split hold, whatever the metadata say."""
    from array_record.python.array_record_module import ArrayRecordReader

    total = 0
    for file in builder.info.splits[split].filepaths:
        try:
            reader = ArrayRecordReader(str(file))
            total += reader.num_records()
            reader.close()
        except Exception as error:  # missing and truncated files
            raise InputError(
                f"The {split} split in {builder.data_dir} cannot be decoded ({_first_line(error)}); remove that folder "
                "and prepare it again."
            ) from error
    return total


def _chunks(builder: Any, split: str, count: int, name: str) -> Iterator[tuple[int, list[Any]]]:
    """The examples of a split in order, chunk by chunk, with the index of the first in each."""
    with quiet(), progress(f"Decoding {name} {split} (once)", count) as advance:
        try:
            source = builder.as_data_source(split=split)
            for first in range(0, count, CHUNK):
                examples = source.__getitems__(range(first, min(first + CHUNK, count)))
                yield first, examples
                advance(len(examples))
        except Exception as error:  # truncated records, undecodable images: many kinds from several libraries
            raise InputError(
                f"The {split} split in {builder.data_dir} cannot be decoded ({_first_line(error)}); remove that folder "
                f"and prepare {name} again."
            ) from error


@contextlib.contextmanager
def progress(task: str, total: int) -> Iterator[Callable[[int], None]]:
    """Reports a task of `total` items on stderr: a bar on a terminal, otherwise a line every few seconds.

    The context is a function to be called with the number of items just done.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bar:
            identity = bar.add_task(task, total=total)
            yield lambda count: bar.advance(identity, count)
        return
    done, last = 0, time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            print(f"{task}: {done} of {total}", file=sys.stderr, flush=True)

    print(f"{task}: {total} images", file=sys.stderr, flush=True)
    yield advance


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences TFDS about decoders that are not installed."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _sizes_differ(name: str, *shapes: tuple[int, ...]) -> InputError:
    sizes = " and ".join(" x ".join(str(length) for length in shape) for shape in shapes)
    return InputError(f"{name} has images of different sizes ({sizes}); only sets with images of one size can be used.")
