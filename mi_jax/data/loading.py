"""`load(name)`: every data set by its name."""

from pathlib import Path

from mi_jax.data import arrays, cache, preparation, tfds_source
from mi_jax.data.dataset import Dataset, check_limit, first_balanced
from mi_jax.data.registry import DATASETS
from mi_jax.data.tfds_source import Reference
from mi_jax.errors import InputError

_FILES = {"folder": arrays.from_folder, "npz": arrays.from_npz}


def load(name: str, *, data_dir: str | Path | None = None, limit: int | None = None) -> Dataset:
    """Loads a data set by name, with complete splits as uint8 arrays on the host.

    TFDS sets must have been prepared once (`mi_jax.data.prepare`). They are decoded at the first call (some 20 s for
    60,000 small images, shown on stderr) and kept under `$XDG_CACHE_HOME/mi_jax/data` or ~/.cache; from then on neither
    TFDS nor the prepared files are needed. A changed source is decoded again.

    Args:
        name: a registered data set ("shapetex", "digits"); "folder:PATH", see `arrays.from_folder`; "npz:PATH", see
            `arrays.from_npz`; or a TFDS image-classification set: "cifar10", "mnist", "fashion_mnist",
            "svhn_cropped", "stl10", "cifar100", ..., also with a configuration, a version or a pattern of versions
            ("cifar10_corrupted/brightness_1", "cifar10:3.0.2", "mnist:3.*.*").
        data_dir: where TFDS sets are prepared; `$TFDS_DATA_DIR` or ~/tensorflow_datasets if None. The cache of a set
            whose source is gone is used only then.
        limit: keep so many images of each split, in a fixed shuffle in which every prefix is as balanced over classes
            as their sizes allow: smaller parts are balanced and nested in larger ones.

    Returns:
        The data set, with at most `limit` images in each split.

    Raises:
        InputError: when the name is unknown or no string, the set is not prepared, needs TensorFlow, or is no
            classification of images of one size, when the cache is damaged, or the limit is no whole number from 1.

    Examples:
        >>> dataset = load("digits", limit=100)
        >>> dataset.train.images.shape, dataset.num_classes
        ((100, 8, 8, 1), 10)
    """
    check_limit(limit)
    if not isinstance(name, str):
        raise InputError(
            f"A data set is named by a string, such as 'digits', 'folder:PATH' or 'npz:PATH'; got {name!r}."
        )
    kind, _, path = name.partition(":")
    if kind in _FILES and path:
        return first_balanced(_FILES[kind](path), limit)
    if name in DATASETS:
        return DATASETS[name](limit=limit)
    return first_balanced(_tfds(name, data_dir), limit)


def _tfds(name: str, data_dir: str | Path | None) -> Dataset:
    reference = Reference.parse(name)
    root = tfds_source.data_root(data_dir)
    source = tfds_source.find(reference, root)
    if source is not None and source.is_array_record:
        return preparation.decoded(source, reference.name)
    cached = cache.entries(reference.name, reference.version)
    if cached and data_dir is None:
        return cache.read(_only(cached, name))
    if source is not None:
        raise preparation.tfrecord_error(name, root)
    raise _not_there(name, root, data_dir, is_cached=bool(cached))


def _only(cached: list[Path], name: str) -> Path:
    """The one cached copy."""
    if len(cached) > 1:
        copies = ", ".join(str(entry) for entry in cached)
        raise InputError(f"{name} is cached from several sources ({copies}); give data_dir, or remove all but one.")
    return cached[0]


def _not_there(name: str, root: Path, data_dir: str | Path | None, *, is_cached: bool) -> InputError:
    if is_cached:
        return InputError(f"{name} is not in {root}, but a decoded copy is cached; leave out data_dir to use it.")
    near = tfds_source.nearby(Reference.parse(name), root)
    if near is not None:
        return InputError(f"{name} is not in {root}, but it is in {near}; give that as data_dir.")
    try:
        preparation.check_known(name)
    except InputError as error:
        return error
    except ImportError:
        return InputError(
            f"{name} is neither in {root} nor in the cache {cache.root()}: copy it there from a machine with TFDS, or "
            f"run `pip install tensorflow-datasets array-record` and `{preparation.command(name, data_dir)}`."
        )
    return InputError(f"{name} is not in {root}: run `{preparation.command(name, data_dir)}` once.")
