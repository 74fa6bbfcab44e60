"""Download and decode a TFDS image-classification set once, so that training needs neither network nor TensorFlow.

python experiments/prepare_data.py --dataset cifar10
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

import mi_jax as mj
from mi_jax import cli


@dataclass(frozen=True)
class Arguments:
    """Download and decode a TFDS image-classification set once."""

    dataset: str
    """A TFDS name: cifar10, mnist, fashion_mnist, svhn_cropped, stl10, cifar100, ..."""
    data_dir: Path | None = None
    """Where the ArrayRecord files go; $TFDS_DATA_DIR or ~/tensorflow_datasets where left out."""


def main() -> int:
    """Prepares the data set and says what is in it; 0 where it can be used."""
    with cli.leaving_cleanly():
        arguments = tyro.cli(Arguments)
        dataset = mj.data.prepare(arguments.dataset, data_dir=arguments.data_dir)
    height, width, channels = dataset.input_shape
    print(
        f"{dataset.name}: {len(dataset.train)} training and {len(dataset.test)} test images of "
        f"{height} x {width} x {channels}, {dataset.num_classes} classes. Train with `--dataset {arguments.dataset}`."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
