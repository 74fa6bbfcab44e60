"""The data sets that come with the package, by name; each is registered by a module of `mi_jax.data`."""

from collections.abc import Callable

from mi_jax.data.dataset import Dataset
from mi_jax.registry import Registry

DATASETS: Registry[Callable[..., Dataset]] = Registry("data set", package="mi_jax.data")
"""Functions `(*, limit: int | None) -> Dataset`; `limit` is that of `mi_jax.data.load`."""
register = DATASETS.registering
