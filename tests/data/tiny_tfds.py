"""Writes small TFDS sets as a user would find them on disk: real ArrayRecord files, made without TensorFlow."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds


def png(pixels: np.ndarray) -> io.BytesIO:
    file = io.BytesIO()
    PIL.Image.fromarray(pixels.squeeze()).save(file, "png")
    file.seek(0)
    return file


def pictures(count: int, *, seed: int, shape: tuple[int, int, int] = (5, 4, 3)) -> tuple[np.ndarray, np.ndarray]:
    """Random images and labels 0, 1, 2, 0, ..."""
    images = np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)
    return images, np.arange(count, dtype=np.int32) % 3


def features(shape: tuple[int | None, int | None, int] = (5, 4, 3), **image: Any) -> tfds.features.FeaturesDict:
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=shape, **image),
            "label": tfds.features.ClassLabel(names=["ant", "bee", "cat"]),
        }
    )


def write(
    data_dir: Path,
    name: str,
    splits: Mapping[str, list[dict[str, Any]]],
    *,
    description: Any = None,
    version: str = "1.0.0",
    supervised_keys: tuple[str, str] | None = ("image", "label"),
) -> Path:
    """Prepare a set of the given examples under `data_dir` and return its folder. Image values are PNG files."""
    described = description or features()

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(version)

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=described, supervised_keys=supervised_keys)

        def _split_generators(self, dl_manager):
            return {split: list(enumerate(examples)) for split, examples in splits.items()}

        def _generate_examples(self):
            raise NotImplementedError

    Builder.name = name
    Builder(data_dir=data_dir, file_format="array_record").download_and_prepare()
    return data_dir / name / version


def examples(images: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    return [{"image": png(pixels), "label": int(label)} for pixels, label in zip(images, labels, strict=True)]
