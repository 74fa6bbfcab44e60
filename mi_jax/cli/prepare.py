"""`mi-jax prepare`: a TFDS data set, downloaded and decoded once; training then needs no network or TensorFlow."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mi_jax import data
from mi_jax.cli import flags
from mi_jax.cli.session import flags_in_messages


@dataclass(frozen=True)
class PrepareCommand:
    """Downloads and decodes an image-classification set of TensorFlow Datasets once.

    Attributes:
        dataset: its TFDS name: cifar10, mnist, fashion_mnist, svhn_cropped, stl10, cifar100, ...
        data_dir: where the ArrayRecord files go; $TFDS_DATA_DIR or ~/tensorflow_datasets by default.
    """

    dataset: str
    data_dir: Path | None = None


def main(arguments: Sequence[str], *, program: str) -> None:
    """Prepares the data set and prints what is in it."""
    command = flags.parse(PrepareCommand, arguments, program=program)
    with flags_in_messages(PrepareCommand):
        dataset = data.prepare(command.dataset, data_dir=command.data_dir)
    height, width, channels = dataset.input_shape
    print(
        f"{dataset.name}: {len(dataset.train)} training and {len(dataset.test)} test images of "
        f"{height} x {width} x {channels}, {dataset.num_classes} classes. Train with `--dataset {command.dataset}`."
    )
