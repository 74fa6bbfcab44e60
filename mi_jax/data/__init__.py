"""Data sets as complete splits of uint8 images, and their augmentation on the device."""

from mi_jax.data import shapetex
from mi_jax.data.arrays import from_arrays, from_folder, from_npz
from mi_jax.data.augmentation import Augmentation, augment, augmentation_for, epoch_order, to_float
from mi_jax.data.dataset import Dataset, Split, stratified_rows
from mi_jax.data.loading import load
from mi_jax.data.preparation import prepare
from mi_jax.data.registry import DATASETS, register
from mi_jax.data.shapetex import ShapeTex

__all__ = [
    "DATASETS",
    "Augmentation",
    "Dataset",
    "ShapeTex",
    "Split",
    "augment",
    "augmentation_for",
    "epoch_order",
    "from_arrays",
    "from_folder",
    "from_npz",
    "load",
    "prepare",
    "register",
    "shapetex",
    "stratified_rows",
    "to_float",
]
