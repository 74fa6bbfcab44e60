"""Activations that are computed one block of rows at a time, so that a layer is never entirely in memory."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax import checks
from mi_jax.batches import BATCH_SIZE
from mi_jax.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class LazyActivations:
    """Activations `[n, ...]` of a layer, computed again whenever some of their rows are needed.

    `kde` and `noise_variance` take them in place of an array. They hold up to 2 GiB of rows at a time, 8 GiB on an
    accelerator. A layer of r times as much is computed 4 r to 7 r times by one pass of `kde`.

    Attributes:
        function: from row numbers, int `[m]`, to activations `[m, ...]`, float, of NumPy or JAX; the same for the same
            rows. It need not be traceable.
        n: number of rows.
        batch_size: rows of a call; the last row is repeated to fill it.

    Raises:
        InputError: for no function, numbers below 1, and a function that returns another number of rows.

    Examples:
        >>> from mi_jax.information import kde
        >>> images = np.random.default_rng(0).random((40, 6), np.float32)
        >>> layer = LazyActivations(lambda rows: np.maximum(images[rows] - 0.5, 0), n=40, batch_size=16)
        >>> lazy, whole = (kde(t, noise_variance=0.1).i_tx_upper for t in (layer, layer[:]))
        >>> abs(lazy - whole) < 1e-5
        True
    """

    function: Callable[[np.ndarray], Any]
    n: int
    batch_size: int = BATCH_SIZE
    _wide: bool = dataclasses.field(default_factory=lambda: bool(jax.config.jax_enable_x64), repr=False)  # pyright: ignore[reportAttributeAccessIssue]

    def __post_init__(self):
        if not callable(self.function):
            raise InputError(f"function must be a function of row numbers, not {type(self.function).__name__}.")
        checks.count("n", self.n)
        checks.count("batch_size", self.batch_size)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.n

    def __getitem__(self, rows: Any) -> np.ndarray | jax.Array:
        """Compute some rows, [m, features], or one row, [features]; float16 and bfloat16 become float32."""
        asked = np.arange(self.n)[rows]
        rows = asked.ravel()
        starts = range(0, len(rows), self.batch_size)
        places = [np.minimum(np.arange(start, start + self.batch_size), len(rows) - 1) for start in starts]
        with jax.enable_x64(self._wide):  # as at construction: estimates in float64 are made with it enabled
            parts = [self._computed(rows[place]) for place in places] or [self._first[:0]]
            made = (np if isinstance(parts[0], np.ndarray) else jnp).concatenate(parts)[: len(rows)]
            return made.reshape(*asked.shape, made.shape[1])

    @functools.cached_property
    def _first(self) -> np.ndarray | jax.Array:
        return self[:1]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and of features."""
        return self.n, self._first.shape[1]

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the rows."""
        return self._first.dtype

    @property
    def size(self) -> int:
        """Number of activations."""
        return self.n * self.shape[1]

    def _computed(self, rows: np.ndarray) -> np.ndarray | jax.Array:
        from mi_jax.information._input import as_array  # here, as it imports this module

        made = as_array(self.function(rows), "The result of function")
        if not made.ndim or len(made) != len(rows):
            raise InputError(f"function gave an array of shape {made.shape} for {len(rows)} rows; give a row for each.")
        made = made.reshape(len(rows), -1)
        return made.astype(np.float32) if made.dtype in (jnp.bfloat16, np.float16) else made
