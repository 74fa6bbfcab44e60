"""One door to every data set: `load(name)`. Where images come from is in `digits`, `shapetex` and `tfds_source`."""

from pathlib import Path

from mi_jax.data import cache, digits, preparation, shapetex, tfds_source
from mi_jax.data.dataset import Dataset, check_limit, first_balanced
from mi_jax.data.tfds_source import Reference
from mi_jax.errors import InputError


def load(name: str, *, data_dir: str | Path | None = None, limit: int | None = None) -> Dataset:
    """A data set by name, whole splits as uint8 arrays on the host.

    TFDS sets must have been prepared once (`experiments/prepare_data.py`). They are decoded at the first call (some 20
    s for 60,000 small images, shown on stderr) and kept under `$XDG_CACHE_HOME/mi_jax/data` or ~/.cache; from then on
    neither TFDS nor the prepared files are needed. A changed source is decoded anew.

    Args:
        name: "shapetex" (drawn, see `mi_jax.data.shapetex`), "digits" (scikit-learn's) or a TFDS image-classification
            set: "cifar10", "mnist", "fashion_mnist", "svhn_cropped", "stl10", "cifar100", ..., also with a
            configuration or a version ("cifar10_corrupted/brightness_1", "cifar10:3.0.2").
        data_dir: where TFDS sets are prepared; `$TFDS_DATA_DIR` or ~/tensorflow_datasets where it is left out. The
            cache of a set that is no longer there is used only where this is left out.
        limit: keep the first so many images of each split in a shuffle that is always the same and in which every
            prefix holds the classes as evenly as they last: small parts are balanced and nested.

    Raises:
        InputError: where the name is unknown, the set is not prepared, or in a format that needs TensorFlow, or no
            classification of images of one size, where the cache is damaged, or the limit is no whole number from 1.
    """
    check_limit(limit)
    if name == "shapetex":
        return shapetex.dataset(limit=limit)
    if name == "digits":
        return first_balanced(digits.dataset(), limit)
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
    """The one cached copy; a choice among several would be a guess at which images are meant."""
    if len(cached) > 1:
        copies = ", ".join(str(entry) for entry in cached)
        raise InputError(
            f"{name} is cached from several sources ({copies}): say which with --data-dir, or remove all but one."
        )
    return cached[0]


def _not_there(name: str, root: Path, data_dir: str | Path | None, *, is_cached: bool) -> InputError:
    if is_cached:
        return InputError(f"{name} is not in {root}, but a decoded copy is cached: leave out --data-dir to use it.")
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
