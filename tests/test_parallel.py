"""Which platform code is traced for."""

import jax

from mi_jax import parallel


def test_backend_follows_the_default_device_set_by_the_user():
    assert parallel.backend() == jax.default_backend()
    with jax.default_device(jax.devices("cpu")[0]):
        assert parallel.backend() == "cpu"
    with jax.default_device("cpu"):
        assert parallel.backend() == "cpu"
