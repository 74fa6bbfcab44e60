"""Data sets as whole splits of uint8 images, and their augmentation on the device."""

from mi_jax.data import shapetex
from mi_jax.data.augmentation import Augmentation, augment, augmentation_for, to_float
from mi_jax.data.dataset import Dataset, Split, stratified_rows
from mi_jax.data.loading import load
from mi_jax.data.order import epoch_order
from mi_jax.data.preparation import prepare
from mi_jax.data.shapetex import ShapeTex

__all__ = [
    "Augmentation",
    "Dataset",
    "ShapeTex",
    "Split",
    "augment",
    "augmentation_for",
    "epoch_order",
    "load",
    "prepare",
    "shapetex",
    "stratified_rows",
    "to_float",
]
