"""Batches: every row once, whatever the size of a batch, on the device or on the host."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax import batches
from mi_jax.batches import map_batches


@pytest.mark.parametrize("n", [1, 3, 4, 11])
def test_results_too_large_for_the_device_are_the_same_on_the_host(n, monkeypatch):
    def function(x, y):
        assert x.shape == (4, 2)
        return {"sum": x + y[:, None], "half": x.astype(jnp.bfloat16)}

    x, y = jnp.arange(2.0 * n).reshape(n, 2), jnp.arange(1.0 * n)
    on_device = map_batches(function, x, y, batch_size=4)
    assert all(isinstance(leaf, jax.Array) for leaf in on_device.values())
    monkeypatch.setattr(batches, "DEVICE_BYTES", 1)
    on_host = map_batches(function, x, y, batch_size=4)
    for name, leaf in on_host.items():
        assert isinstance(leaf, np.ndarray)
        assert leaf.dtype == on_device[name].dtype
        np.testing.assert_array_equal(leaf, np.asarray(on_device[name]))
    np.testing.assert_array_equal(on_host["sum"], np.asarray(x) + np.arange(n)[:, None])
