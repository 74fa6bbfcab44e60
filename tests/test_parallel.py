"""Which platform code is traced for, and where compiled programs are kept."""

import os
import stat

import jax
import pytest

from mi_jax import parallel
from mi_jax.errors import InputError


def test_backend_follows_the_default_device_set_by_the_user():
    assert parallel.backend() == jax.default_backend()
    with jax.default_device(jax.devices("cpu")[0]):
        assert parallel.backend() == "cpu"
    with jax.default_device("cpu"):
        assert parallel.backend() == "cpu"


def test_a_platform_that_is_not_there_is_one_sentence(monkeypatch):
    def fail():
        raise RuntimeError("Unable to initialize backend 'cuda': no GPU.\nmore")

    monkeypatch.setattr(jax, "devices", fail)
    with pytest.raises(InputError, match=r"cannot use the platform .* \(Unable .* no GPU\); set JAX_PLATFORMS"):
        parallel.make_mesh("auto")


@pytest.mark.parametrize("text", ["", "all", "data=0", "seed=2", "data=2,seed=2", "data=2 "])
def test_a_mesh_that_makes_no_sense_is_refused(text):
    with pytest.raises(InputError, match="expected auto, none, data=N, or seed=M,data=N"):
        parallel.make_mesh(text)


def test_more_devices_than_there_are_are_refused():
    with pytest.raises(InputError, match="asks for 1024 devices"):
        parallel.make_mesh("seed=32,data=32")


@pytest.fixture
def cache_of_programs(monkeypatch):
    """JAX's configuration without a cache, restored afterwards; calls `keep_compiled_programs` and gives the cache."""
    before = (
        jax.config.values["jax_compilation_cache_dir"],
        jax.config.values["jax_persistent_cache_min_compile_time_secs"],
    )

    def keep():
        jax.config.update("jax_compilation_cache_dir", None)
        parallel.keep_compiled_programs()
        return jax.config.values["jax_compilation_cache_dir"]

    yield keep
    jax.config.update("jax_compilation_cache_dir", before[0])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", before[1])


def test_nobody_else_can_write_compiled_programs_whatever_the_umask(tmp_path, monkeypatch, cache_of_programs):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    umask = os.umask(0)
    try:
        assert cache_of_programs() == str(tmp_path / "cache" / "mi_jax" / "xla")
        for part in ("", "mi_jax", "mi_jax/xla"):
            assert stat.S_IMODE((tmp_path / "cache" / part).stat().st_mode) == 0o700
        (tmp_path / "cache" / "mi_jax" / "xla").chmod(0o777)
        cache_of_programs()
        assert stat.S_IMODE((tmp_path / "cache" / "mi_jax" / "xla").stat().st_mode) == 0o700
    finally:
        os.umask(umask)


def test_programs_are_not_kept_where_another_user_owns_the_cache(tmp_path, monkeypatch, cache_of_programs):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    own = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    assert cache_of_programs() is None
