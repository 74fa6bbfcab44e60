"""Prepares TFDS sets: downloads them, writes ArrayRecord files, and fills the cache of decoded images.

The only step that needs the network and TensorFlow.
"""

import difflib
import importlib.util
import socket
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from mi_jax import checks
from mi_jax.data import cache, tfds_source
from mi_jax.data.dataset import Dataset
from mi_jax.data.registry import DATASETS
from mi_jax.data.tfds_source import Reference, Source
from mi_jax.errors import InputError


def command(name: str, data_dir: str | Path | None) -> str:
    """The command that prepares a data set."""
    where = f" --data-dir '{data_dir}'" if data_dir is not None else ""
    return f"python experiments/prepare_data.py --dataset {name}{where}"


def decoded(source: Source, name: str) -> Dataset:
    """The data set of a prepared source, from the cache, or decoded and put there."""
    entry = cache.entry_path(name, source.version, source.fingerprint)
    if entry.exists():
        return cache.read(entry)
    dataset = tfds_source.decode(source, name)
    cache.write(dataset, entry)
    return dataset


def prepare(name: str, *, data_dir: str | Path | None = None) -> Dataset:
    """Download and decode a TFDS set unless this has been done, and check that it can be read.

    Args:
        name: a TFDS image-classification set, such as "cifar10"; "shapetex" and "digits" need no preparation.
        data_dir: where the ArrayRecord files go; `$TFDS_DATA_DIR` or ~/tensorflow_datasets where it is left out.

    Raises:
        InputError: where the name is unknown or no string, the set is no image classification, TensorFlow or the
            network is missing, the download fails, or the folder holds the set in another format.
    """
    checks.string("name", name, usual="cifar10")
    if name.startswith(("npz:", "folder:")):
        raise InputError(f"{name} is read from disk and needs no preparation; train with `--dataset {name}`.")
    reference = Reference.parse(name)
    if reference.name in DATASETS:
        raise InputError(f"{name} is built in and needs no preparation.")
    root = tfds_source.data_root(data_dir)
    source = tfds_source.find(reference, root)
    if source is None:
        _download(name, root)
        source = tfds_source.find(reference, root)
    if source is None or not source.is_array_record:
        raise tfrecord_error(name, root)
    return decoded(source, reference.name)


def tfrecord_error(name: str, root: Path) -> InputError:
    """The error for a set in a format that only TensorFlow reads."""
    return InputError(
        f"{root} holds {name} as TFRecord files, which need TensorFlow in every run: prepare it once as ArrayRecord in "
        f"another folder with `{command(name, root.parent / 'array_records')}`."
    )


def _download(name: str, root: Path) -> None:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise InputError(
            f"Preparing {name} needs TFDS ({error}): run `pip install tensorflow-datasets tensorflow-cpu`."
        ) from error
    check_known(name)
    if importlib.util.find_spec("tensorflow") is None:
        raise InputError(
            f"Preparing {name} needs TensorFlow once (training does not): run `pip install tensorflow-cpu`, then "
            f"`{command(name, root)}`."
        )
    with tfds_source.quiet():
        builder = tfds.builder(name, data_dir=root, file_format="array_record")
        tfds_source.classification_keys(builder.info, name)
        _check_network(name, builder)
        print(f"Downloading and preparing {name} in {root}", file=sys.stderr, flush=True)
        try:
            builder.download_and_prepare()
        except Exception as error:  # network, checksums, disks, manual downloads: TFDS has no common class
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise InputError(f"{name} could not be prepared in {root}: {reason}.") from error


def check_known(name: str) -> None:
    """Raise `InputError`, with similar names, where TFDS has no set of this name."""
    import tensorflow_datasets as tfds

    known = tfds.list_builders(with_community_datasets=False)
    plain = name.split(":")[0].split("/")[0]
    if plain in known:
        return
    alike = difflib.get_close_matches(plain, [*DATASETS, *known], n=3)
    hint = f"; did you mean {' or '.join(alike)}?" if alike else ": see https://www.tensorflow.org/datasets/catalog."
    raise InputError(f"There is no data set {plain!r} ({', '.join(DATASETS)}, or one of TFDS){hint}")


def _check_network(name: str, builder: Any) -> None:
    """Looks up the first host once; the downloader itself would retry for a quarter of an hour."""
    if urllib.request.getproxies():
        return
    hosts = [urllib.parse.urlsplit(url).hostname for url in builder.url_infos or {}]
    host = next((host for host in hosts if host), None)
    if host is None:
        return
    try:
        socket.getaddrinfo(host, 443)
    except OSError as error:
        raise InputError(
            f"Preparing {name} needs the network, and {host} cannot be reached ({error}): run this on a machine with "
            f"internet access and copy its cache, {cache.root() / name.replace('/', '--')}, to the same place here."
        ) from error
