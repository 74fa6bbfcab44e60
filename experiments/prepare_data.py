"""Download and decode a TFDS image-classification set once, so that training needs neither network nor TensorFlow.

python experiments/prepare_data.py --dataset cifar10
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

import mi_jax as mj
from mi_jax.errors import InputError


@dataclass(frozen=True)
class Arguments:
    """Download and decode a TFDS image-classification set once."""

    dataset: str
    """A TFDS name: cifar10, mnist, fashion_mnist, svhn_cropped, stl10, cifar100, ..."""
    data_dir: Path | None = None
    """Where the ArrayRecord files go; $TFDS_DATA_DIR or ~/tensorflow_datasets where left out."""


def main() -> int:
    """Prepare the data set and say what is in it; 0 where it can be used, 2 where something is wrong."""
    arguments = tyro.cli(Arguments)
    try:
        dataset = mj.data.prepare(arguments.dataset, data_dir=arguments.data_dir)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    height, width, channels = dataset.input_shape
    print(
        f"{dataset.name}: {len(dataset.train)} training and {len(dataset.test)} test images of "
        f"{height} x {width} x {channels}, {dataset.num_classes} classes. Train with `--dataset {arguments.dataset}`."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
