"""Settings of the whole suite: CPU, one compile cache, strict promotion of dtypes and ranks."""

import jax
import pytest


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)
