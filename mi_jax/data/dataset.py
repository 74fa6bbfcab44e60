"""A data set: two splits of uint8 images with labels and known factors, and ways to cut them into parts."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import jax
import numpy as np
from jaxtyping import Int32, UInt8

from mi_jax import checks
from mi_jax.data.augmentation import to_float
from mi_jax.errors import InputError


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set, held on the host.

    Attributes:
        images: uint8 pixels, channels last.
        labels: the class of each image, from 0.
        factors: for images whose content is known, the class of each cue ("shape", "texture", "colour"); else empty.

    Raises:
        InputError: when there is not one label, and one value of each factor, per image.
    """

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int32[np.ndarray, " n"]
    factors: Mapping[str, Int32[np.ndarray, " n"]] = field(default_factory=dict)

    def __post_init__(self):
        for name, values in {"labels": self.labels, **self.factors}.items():
            if len(values) != len(self.images):
                raise InputError(
                    "A split needs one label and one value of each factor per image; "
                    f"got {len(self.images)} images and {name} of length {len(values)}."
                )

    def to_float(self) -> jax.Array:
        """The images as float32 in [0, 1], on the device."""
        return to_float(self.images)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray | slice) -> "Split":
        """The images at `index`, in that order, with their labels and factors."""
        factors = {name: values[index] for name, values in self.factors.items()}
        return Split(images=self.images[index], labels=self.labels[index], factors=factors)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split, and the names of their classes."""

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """How many classes there are, whether or not each occurs in a (limited) split."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels


def balanced_order(labels: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """A seeded shuffle of 0..n-1 in which every prefix holds the classes as evenly as their sizes allow.

    The images of each class are shuffled, then taken in rounds, one of each class that still has any, with the classes
    in random order within a round.
    """
    rng = np.random.default_rng(seed)
    turn = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        turn[members] = rng.permutation(len(members))
    return np.lexsort((rng.random(len(labels)), turn))


def first_balanced(dataset: Dataset, limit: int | None) -> Dataset:
    """The data set with each split cut to the first `limit` images of its `balanced_order`; all of it for None."""
    if limit is None:
        return dataset
    check_limit(limit)
    return replace(
        dataset,
        train=dataset.train.take(balanced_order(dataset.train.labels)[:limit]),
        test=dataset.test.take(balanced_order(dataset.test.labels)[:limit]),
    )


def check_limit(limit: int | None) -> None:
    """Raises `InputError` unless `limit` is None or a whole number from 1."""
    if limit is not None:
        checks.count("limit", limit)


def stratified_rows(labels: np.ndarray, share: float) -> np.ndarray:
    """The indices of a share of the images, ascending: the same in every call, with every class in proportion.

    Each class gives its share, rounded; but never all of it, and at least one image of two or more unless the whole
    part is too small to hold one of each class.

    Args:
        labels: int `[n]`.
        share: in [0, 1).

    Raises:
        InputError: for labels that are not integers `[n]`, and a share outside [0, 1).

    Examples:
        >>> labels = np.repeat([0, 1, 2], [960, 20, 20])
        >>> np.bincount(labels[stratified_rows(labels, 0.02)]).tolist()
        [19, 1, 1]
    """
    checks.share("share", share)
    given = checks.array(labels, name="Labels")
    labels = np.asarray(checks.labels(given, np.size(given)))
    rng = np.random.default_rng(0)
    classes = np.unique(labels)
    least = int(round(share * len(labels)) >= len(classes) and share > 0)
    taken = [np.zeros(0, np.int64)]
    for label in classes:
        members = rng.permutation(np.flatnonzero(labels == label))
        taken.append(members[: min(max(round(share * len(members)), least), len(members) - 1)])
    return np.sort(np.concatenate(taken))


def stratified_split(split: Split, test_share: float) -> tuple[Split, Split]:
    """A fixed division into training and test parts by `stratified_rows`, each in its original order."""
    rows = stratified_rows(split.labels, test_share)
    return split.take(np.delete(np.arange(len(split)), rows)), split.take(rows)
