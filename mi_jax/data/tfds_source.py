"""Reads TFDS image-classification sets in ArrayRecord format without TensorFlow.

Finding a prepared set needs no TFDS, only decoding it does. Downloading is left to `preparation`, keeping to `cache`.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mi_jax.data.dataset import Dataset, Split, stratified_split
from mi_jax.data.progress import progress
from mi_jax.errors import InputError

CHUNK = 256  # images decoded between two reports of progress
TEST_SHARE = 0.2  # of sets that come in one piece
_VERSION = re.compile(r"\d+\.\d+\.\d+")


@dataclass(frozen=True)
class Reference:
    """A TFDS name taken apart: "name", "name/config", either with ":1.2.3" behind."""

    name: str
    version: str | None

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Take a name apart; raises `InputError` where it has no such form."""
        match = re.fullmatch(r"([a-z][a-z0-9_]*(?:/[\w.-]+)?)(?::(\d+\.\d+\.\d+))?", text)
        if match is None:
            raise InputError(
                f"{text!r} is no name of a data set: expected shapetex, digits or a TFDS name such as cifar10 or "
                "cifar10:3.0.2."
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
        """Changes with the metadata and with the name or size of any file; the records themselves are not read."""
        digest = hashlib.sha256()
        for file in sorted(path for path in self.directory.iterdir() if path.is_file()):
            digest.update(f"{file.name}:{file.stat().st_size}\n".encode())
            if file.suffix in (".json", ".txt"):
                digest.update(file.read_bytes())
        return digest.hexdigest()[:16]


def data_root(data_dir: str | Path | None) -> Path:
    """Where TFDS sets are kept: the given folder, else `$TFDS_DATA_DIR`, else ~/tensorflow_datasets.

    Raises:
        InputError: when there is no home directory and no other is given.
    """
    try:
        return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    except RuntimeError:
        raise InputError("There is no home directory for data sets; set TFDS_DATA_DIR to a directory.") from None


def find(reference: Reference, root: Path) -> Source | None:
    """The newest (or the named) version of a set under `root`, or None where there is none.

    Raises:
        InputError: where the set comes in several configurations and none was named, or its metadata is unreadable.
    """
    base = root / reference.name
    infos = list(base.glob("*/dataset_info.json"))
    if not infos:
        infos = list(base.glob("*/*/dataset_info.json"))
        configs = sorted({info.parent.parent.name for info in infos})
        if len(configs) > 1:
            raise InputError(
                f"{base} holds the configurations {', '.join(configs)}: name one, as in {reference.name}/{configs[0]}."
            )
    versions = {info.parent.name: info for info in infos if _VERSION.fullmatch(info.parent.name)}
    if reference.version is not None:
        versions = {version: info for version, info in versions.items() if version == reference.version}
    if not versions:
        return None
    newest = max(versions, key=lambda version: tuple(int(part) for part in version.split(".")))
    try:
        info = json.loads(versions[newest].read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{versions[newest]} cannot be read ({error}): remove its folder and prepare again."
        ) from error
    formats = {info.get("fileFormat", "tfrecord"), *info.get("alternativeFileFormats", [])}
    return Source(versions[newest].parent, newest, "array_record" in formats)


def decode(source: Source, name: str) -> Dataset:
    """All images of a prepared set as uint8 arrays; progress goes to stderr.

    The test split is "test", or "validation" where there is no test; a set with "train" alone is divided 80/20,
    stratified and always in the same way.

    Raises:
        InputError: where TFDS is missing, records are unreadable, or these are no labelled images of one size.
    """
    builder = _open(source, name)
    image_key, label_key, class_names = classification_keys(builder.info, name)
    splits = set(builder.info.splits)
    if "train" not in splits:
        raise InputError(f"{name} has no training split (it has {', '.join(sorted(splits))}), so it cannot be used.")
    test_name = next((split for split in ("test", "validation") if split in splits), None)
    train = _read_split(builder, "train", image_key, label_key, name)
    if test_name is None:
        train, test = stratified_split(train, TEST_SHARE)
    else:
        test = _read_split(builder, test_name, image_key, label_key, name)
    if train.images.shape[1:] != test.images.shape[1:]:
        raise _sizes_differ(name, train.images.shape[1:], test.images.shape[1:])
    for split, part in (("train", train), (test_name or "test", test)):
        if part.labels.min() < 0 or part.labels.max() >= len(class_names):
            raise InputError(f"The {split} split of {name} has images without a label, so it cannot be used.")
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
            return tfds.builder_from_directory(source.directory)
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


def _chunks(builder: Any, split: str, count: int, name: str) -> Iterator[tuple[int, list[Any]]]:
    """The examples of a split in order, with the index of the first of each chunk."""
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
def quiet() -> Iterator[None]:
    """Keep TFDS from announcing which decoder it has not got."""
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
