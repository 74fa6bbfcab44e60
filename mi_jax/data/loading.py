"""One door to every data set: `load(name)`."""

from pathlib import Path

from mi_jax.data import digits, shapetex
from mi_jax.data.dataset import Dataset, check_limit, first_balanced


def load(name: str, *, data_dir: str | Path | None = None, limit: int | None = None) -> Dataset:
    """The data set called `name`: "shapetex" or "digits" (each split balanced and cut to `limit` images)."""
    check_limit(limit)
    if name == "shapetex":
        return shapetex.dataset(limit=limit)
    return first_balanced(digits.dataset(), limit)
