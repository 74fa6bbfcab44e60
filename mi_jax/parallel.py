"""Devices: which there are, how a batch is shared between them, and where compiled programs are kept.

One process; knows neither networks nor data sets.
"""

import os
import re
from pathlib import Path

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mi_jax.errors import InputError

Mesh = jax.sharding.Mesh


def backend() -> str:
    """The platform that code traced now will run on: that of `jax.default_device` if set, else JAX's default."""
    device = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    if device is None:
        return jax.default_backend()
    return device if isinstance(device, str) else device.platform


def make_mesh(spec: str) -> Mesh | None:
    """The mesh that `spec` describes: `auto` (all devices; None if there is one), `none`, or `data=N`.

    Raises:
        InputError: another text, or more devices than there are.
    """
    available = jax.devices()
    if spec == "none":
        return None
    if spec == "auto":
        count = len(available)
    else:
        match = re.fullmatch(r"data=([1-9]\d*)", spec)
        if not match:
            raise InputError(f"mesh is {spec!r}; expected auto, none, or data=N for N devices.")
        count = int(match[1])
    if count > len(available):
        raise InputError(f"mesh asks for {count} devices; this machine offers {len(available)}.")
    if count == 1:
        return None
    return Mesh(np.asarray(available[:count]), ("data",), axis_types=(AxisType.Auto,))


def over_batch(mesh: Mesh | None, x: jax.Array) -> jax.Array:
    """The array with its first axis shared out over the mesh; as it is without one."""
    if mesh is None:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec("data")))


def replicated(mesh: Mesh | None, tree):
    """A pytree with a copy of every leaf on each device of the mesh; on the default device without one."""
    if mesh is None:
        return jax.device_put(tree)
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def keep_compiled_programs() -> None:
    """Keeps compiled programs between processes, below the user's cache directory unless JAX is told otherwise."""
    if jax.config.values.get("jax_compilation_cache_dir") is None:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(base / "mi_jax" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def describe_devices() -> str:
    """The devices in words, such as `1 x NVIDIA H100 80GB HBM3`."""
    devices = jax.devices()
    return f"{len(devices)} x {devices[0].device_kind}"
