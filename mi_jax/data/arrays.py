"""Your own data sets: arrays in memory, `.npz` files, and folders of images with one folder per class."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mi_jax import checks
from mi_jax.data.dataset import Dataset, Split, stratified_split
from mi_jax.errors import InputError

_SUFFIXES = (".png", ".jpg", ".jpeg")
_OTHER_IMAGES = (".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2", ".avif", ".heic")
"""Images that are not read: to skip them would silently leave out a part of the data."""
_TEST_SPLITS = ("test", "validation", "val")
"""Names of the split on which networks are tested; the first that is there is taken, as from TFDS sets."""
_SPLITS = ("train", *_TEST_SPLITS)
_ARRAYS = tuple(f"{split}_{part}" for split in _SPLITS for part in ("images", "labels"))
"""The images and labels that an archive may hold."""
_DEPTH_IN_PNG = 24
"""Where a PNG file has its number of bits per channel."""
_TEST_SHARE = 0.2
_MOST_CLASSES = 2**20
"""Without names of the classes; larger labels are probably identifiers rather than classes."""


def from_arrays(
    train_images: Any,
    train_labels: Any,
    test_images: Any = None,
    test_labels: Any = None,
    *,
    name: str = "arrays",
    class_names: Sequence[str] | np.ndarray | None = None,
    test_share: float = _TEST_SHARE,
) -> Dataset:
    """A data set of arrays.

    Args:
        train_images: uint8 `[n h w c]`, or `[n h w]` for images of one channel.
        train_labels: integers `[n]`, classes from 0.
        test_images: as `train_images`; None to hold out a share of the training images.
        test_labels: as `train_labels`.
        name: name of the data set.
        class_names: names of the classes; None for their numbers.
        test_share: share of every class that becomes the test split where none is given.

    Raises:
        InputError: for images that are not uint8 or of several sizes, labels or names that do not fit, and names that
            are not UTF-8.

    Examples:
        >>> images, labels = np.zeros((10, 4, 4), np.uint8), np.arange(10) % 2
        >>> dataset = from_arrays(images, labels)
        >>> len(dataset.train), len(dataset.test), dataset.input_shape, dataset.class_names
        (8, 2, (4, 4, 1), ('0', '1'))
    """
    names = _class_names(class_names)
    _check_utf8("The name of the data set", name)
    train = _split("Training", train_images, train_labels, names)
    if (test_images is None) != (test_labels is None):
        raise InputError("Test images and test labels must be given together.")
    if test_images is None:
        checks.share("test_share", test_share)
        train, test = stratified_split(train, test_share)
    else:
        test = _split("Test", test_images, test_labels, names)
    if test.images.shape[1:] != train.images.shape[1:]:
        raise InputError(
            f"Training and test images must have one size; got {_size(train.images)} and {_size(test.images)}."
        )
    count = 1 + max(int(part.labels.max(initial=0)) for part in (train, test))
    return Dataset(name=name, train=train, test=test, class_names=names or tuple(map(str, range(count))))


def from_npz(path: str | Path) -> Dataset:
    """The data set in a NumPy archive.

    Args:
        path: file with the arrays `train_images`, `train_labels` and, if there is a test split, `test_images` and
            `test_labels` (see `from_arrays`), and optionally `class_names`. Without the first two it is a test set.
            Arrays that begin with `validation_`, or else `val_`, are the test split where there is no `test_`.

    Raises:
        InputError: when the file cannot be read, an array is missing or of another split, or the arrays do not fit.
    """
    path = _expanded(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except Exception as error:  # a missing file, no archive, object arrays: several kinds
        raise InputError(f"The archive {path} cannot be read: {_first_line(error)}.") from error
    pairs = {split: [arrays.get(f"{split}_{part}") for part in ("images", "labels")] for split in _SPLITS}
    test_name = next((split for split in _TEST_SPLITS if any(part is not None for part in pairs[split])), "test")
    train, test = pairs["train"], pairs[test_name]
    is_test_set = all(part is None for part in train) and all(part is not None for part in test)
    missing = [key for key in ("train_images", "train_labels") if key not in arrays]
    if missing and not is_test_set:
        raise InputError(f"The archive {path} has no array {missing[0]}; it has {', '.join(arrays) or 'none'}.")
    # Others, such as identifiers, do not matter; these would be another split, or a misspelt one.
    if unknown := [key for key in arrays if key.endswith(("_images", "_labels")) and key not in _ARRAYS]:
        raise InputError(f"The archive {path} has an array {unknown[0]}; expected only {', '.join(_ARRAYS)}.")
    first = test if is_test_set else train
    dataset = from_arrays(*first, *test, name=path.stem, class_names=arrays.get("class_names"))
    return replace(dataset, train=dataset.test.take(slice(0))) if is_test_set else dataset


def from_folder(path: str | Path) -> Dataset:
    """The data set in a folder: `train/<class>/*.png` and `test/<class>/*.png` (or .jpg, .jpeg).

    Classes are the folders of `train` in alphabetical order. Without a folder `test`, a folder `validation` or `val` is
    the test split, and without these a fixed fifth of the training images. Images must have one size; grey ones have
    one channel where all of them are grey. Hidden files and files that are no images are ignored.

    Args:
        path: the folder.

    Raises:
        InputError: when there is no such folder, a class is empty or unknown, the test split holds no image, or an
            image cannot be read or has another format or size; names the file.
    """
    path = _expanded(path)
    root = path / "train"
    try:
        if not root.is_dir():
            raise InputError(f"{path} holds no folder 'train' with one folder of images per class.")
        folders = [folder.name for folder in root.iterdir() if folder.is_dir()]
    except OSError as error:  # a path that is too long, or a folder that may not be read
        raise InputError(f"{root} cannot be read ({error.strerror}); give another folder.") from None
    classes = sorted(name for name in folders if not name.startswith("."))
    if len(classes) < 2:
        raise InputError(f"{root} must hold one folder of images for each of 2 or more classes; found {len(classes)}.")
    train = _files(root, classes)
    test_root = next((path / split for split in _TEST_SPLITS if (path / split).is_dir()), None)
    test = _files(test_root, classes) if test_root else []
    if test_root and not test:
        raise InputError(
            f"{test_root} holds no image ({', '.join(_SUFFIXES)}) of any class; add some, or remove that folder."
        )
    images = _decoded([file for file, _ in (*train, *test)])
    labels = np.array([label for _, label in (*train, *test)], np.int32)
    parts = [(images[: len(train)], labels[: len(train)])]
    if test:
        parts.append((images[len(train) :], labels[len(train) :]))
    return from_arrays(*(array for part in parts for array in part), name=path.resolve().name, class_names=classes)


def _files(root: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """The images under a folder with the index of their class, in the order of class and file name."""
    unknown = sorted(
        folder.name
        for folder in root.iterdir()
        if folder.is_dir() and not folder.name.startswith(".") and folder.name not in classes
    )
    if unknown:
        raise InputError(f"{root / unknown[0]} is a class that the training images do not have.")
    found = []
    for label, name in enumerate(classes):
        there = sorted((root / name).glob("[!.]*"))
        other = next((file for file in there if file.suffix.lower() in _OTHER_IMAGES), None)
        if other is not None:
            raise InputError(f"{other} is not read; convert it to one of {', '.join(_SUFFIXES)}, or remove it.")
        files = [file for file in there if file.suffix.lower() in _SUFFIXES]
        if not files and root.name == "train":
            raise InputError(f"{root / name} holds no image ({', '.join(_SUFFIXES)}).")
        found += [(file, label) for file in files]
    return found


def _decoded(files: list[Path]) -> np.ndarray:
    """uint8 `[n h w c]`: one channel where every file is grey, else three."""
    from PIL import Image

    decoded = []
    for file in files:
        try:
            with Image.open(file) as image:
                image.load()
                if "A" in image.getbands() or "transparency" in image.info:
                    raise InputError(f"{file} has transparent pixels; save it without an alpha channel.")
                # Pillow reduces colours of 16 bits to 8 without a word.
                if image.mode[0] in "IF" or (image.format == "PNG" and file.read_bytes()[_DEPTH_IN_PNG] == 16):
                    raise InputError(f"{file} has more than 8 bits per channel; save it with 8.")
                decoded.append(image.copy())
        except InputError:
            raise
        except Exception as error:  # Pillow raises many kinds for damaged files
            raise InputError(f"{file} cannot be read as an image: {_first_line(error)}.") from error
        if decoded[-1].size != decoded[0].size:
            sizes = " and ".join(f"{height} x {width}" for width, height in (decoded[0].size, decoded[-1].size))
            raise InputError(
                f"{files[0]} and {file} have different sizes ({sizes}); only images of one size can be used."
            )
    mode = "L" if all(image.mode in ("L", "1") for image in decoded) else "RGB"
    pixels = np.stack([np.asarray(image.convert(mode)) for image in decoded])
    return pixels if pixels.ndim == 4 else pixels[..., None]


def _split(what: str, images: Any, labels: Any, class_names: Sequence[str] | None) -> Split:
    given = _array(images, f"{what} images")
    pixels = given[..., None] if given.ndim == 3 else given
    if pixels.ndim != 4 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise InputError(
            f"{what} images must be uint8 of shape [n, h, w, c] or [n, h, w]; got {given.dtype} of shape "
            f"{given.shape}. Scale floats in [0, 1] by 255 and round them."
        )
    name, classes = f"{what} labels", _MOST_CLASSES if class_names is None else len(class_names)
    checked = checks.labels(_array(labels, name), len(pixels), classes=classes, name=name)
    return Split(images=pixels, labels=np.asarray(checked))


def _array(value: Any, name: str) -> np.ndarray:
    """A NumPy array of what `checks.array` takes, or of any other object that NumPy knows to read."""
    is_other = hasattr(value, "__array__") and not hasattr(value, "detach") and not isinstance(value, np.ndarray)
    return np.asarray(checks.array(np.asarray(value) if is_other else value, name=name))


def _class_names(names: Any) -> tuple[str, ...] | None:
    if names is None:
        return None
    is_list = isinstance(names, list | tuple | np.ndarray) and getattr(names, "ndim", 1) == 1
    listed = tuple(
        name.decode(errors="backslashreplace") if isinstance(name, bytes) else str(name)
        for name in (names if is_list else ())
    )
    if not listed:
        raise InputError(f"class_names must be a list with the name of every class, or left out; got {names!r}.")
    for name in listed:
        _check_utf8("The name of the class", name)
    return listed


def _check_utf8(what: str, name: str) -> None:
    """Raises `InputError` for a name that the records and digests of a run could not hold."""
    if not isinstance(name, str):
        raise InputError(f"{what} must be a string, not {type(name).__name__}.")
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = name.encode(errors="backslashreplace").decode()
        raise InputError(f"{what}, {shown}, is not UTF-8 under this locale; choose another name.") from None


def _expanded(path: str | Path) -> Path:
    """A path whose `~` is replaced by the home directory that it stands for."""
    _check_utf8("The path of the data set", str(path) if isinstance(path, os.PathLike) else path)
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{path} begins with the home directory of an unknown user; give the full path.") from None


def _size(images: np.ndarray) -> str:
    return " x ".join(map(str, images.shape[1:]))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
