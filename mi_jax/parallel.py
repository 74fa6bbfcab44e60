"""Devices: which there are, how a batch is shared between them, and where compiled programs are cached."""

import math
import os
import re
import stat
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mi_jax import processes
from mi_jax.errors import InputError
from mi_jax.files import user_cache

Mesh = jax.sharding.Mesh


def backend() -> str:
    """The platform that code traced now will run on: that of `jax.default_device` if set, else JAX's default."""
    device = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    if device is None:
        return jax.default_backend()
    return str(getattr(device, "platform", device))


def devices() -> list[Any]:
    """The devices of all processes of this job.

    Raises:
        InputError: when JAX cannot use the platform that it was given, such as `cuda` without a GPU.
    """
    try:
        return jax.devices()
    except RuntimeError as error:
        asked = jax.config.values.get("jax_platforms")
        raise InputError(
            f"JAX cannot use the platform {asked!r} here ({str(error).splitlines()[0].rstrip('.')}); set JAX_PLATFORMS "
            "to a platform of this machine, such as cpu, or unset it."
        ) from None


def make_mesh(spec: str) -> Mesh | None:
    """The mesh that `spec` describes; None for one device.

    Args:
        spec: `auto` (all devices of all processes), `none`, `data=N` (N devices share each batch), or `seed=M,data=N`
            (M groups of N devices share the seeds that are trained in parallel; each group has its own batch).

    Raises:
        InputError: another text, more devices than there are, or fewer than all where there are several processes.
    """
    available = devices()
    match = re.fullmatch(r"(?:seed=([1-9]\d*),)?data=([1-9]\d*)", spec)
    if spec not in ("auto", "none") and not match:
        raise InputError(f"Invalid mesh {spec!r}: expected auto, none, data=N, or seed=M,data=N for M x N devices.")
    sizes = (int(match[1] or 1), int(match[2])) if match else (1, len(available) if spec == "auto" else 1)
    count = math.prod(sizes)
    if count > len(available):
        raise InputError(f"The mesh asks for {count} devices; this machine offers {len(available)}.")
    if processes.count() > 1 and count < len(available):
        raise InputError(f"The mesh must have all {len(available)} devices of the processes of this job; give auto.")
    if count == 1:
        return None
    chosen = np.asarray(available[:count]).reshape(sizes)
    return Mesh(chosen, ("seed", "data"), axis_types=(AxisType.Auto,) * 2)


def with_automatic_axes(mesh: Mesh | None) -> Mesh | None:
    """The mesh with axes that the compiler shards, as `jax.make_mesh` alone does not make them.

    Raises:
        InputError: for anything but a mesh or None.
    """
    if mesh is None:
        return None
    if not isinstance(mesh, Mesh):
        raise InputError(f"mesh must be a jax.sharding.Mesh or None, not {mesh!r}; call mi_jax.parallel.make_mesh.")
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))


def mesh_of(tree: Any) -> Mesh | None:
    """The mesh over which arrays of a pytree are spread or copied; None where they are on one device, or traced."""
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer):
            mesh = getattr(leaf.sharding, "mesh", None)
            if isinstance(mesh, Mesh) and mesh.size > 1:
                return mesh
    return None


def over_seeds(mesh: Mesh | None, tree: Any, seeds: int) -> Any:
    """The states of some seeds, stacked along the first axis of every leaf, shared over the mesh's axis `seed`.

    A copy on each device where the groups of devices cannot have equal parts, and where there is one seed, which has no
    axis; on the default device without a mesh.
    """
    shared = mesh is not None and seeds > 1 and "seed" in mesh.shape and seeds % mesh.shape["seed"] == 0
    return _placed(mesh, tree, PartitionSpec("seed") if shared else PartitionSpec())


def over_batch(mesh: Mesh | None, x: jax.Array) -> jax.Array:
    """The array with its first axis shared out over the mesh, whatever its length; as it is without one. In jit."""
    if mesh is None:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec("data")))


def spread(mesh: Mesh | None, tree: Any) -> Any:
    """A pytree that jit returns, with the first axis of every leaf shared out over the mesh; as it is without one.

    Where the devices could not have equal parts, or belong to several processes, each has a copy of the entire leaf.
    """
    if mesh is None:
        return tree

    def placed(leaf: jax.Array) -> jax.Array:
        shared = len(leaf) % mesh.size == 0 and not mesh.is_multi_process
        spec = PartitionSpec(mesh.axis_names) if shared else PartitionSpec()
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, spec))

    return jax.tree.map(placed, tree)


def sharded(mesh: Mesh | None, tree):
    """A pytree with the first axis of every leaf shared out over all devices; on the default device without a mesh.

    The length of that axis must be a multiple of the number of devices. Every process of a mesh gives the whole tree.
    """
    return _placed(mesh, tree, PartitionSpec(mesh.axis_names) if mesh else PartitionSpec())


def replicated(mesh: Mesh | None, tree):
    """A pytree with a copy of every leaf on each device of the mesh; on the default device without one."""
    return _placed(mesh, tree, PartitionSpec())


def _placed(mesh: Mesh | None, tree, spec: PartitionSpec):
    if mesh is None:
        return jax.device_put(tree)
    sharding = NamedSharding(mesh, spec)
    if not mesh.is_multi_process:
        return jax.device_put(tree, sharding)

    def placed(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        host = np.asarray(leaf)  # each process has the whole: nothing is sent between them
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(placed, tree)


def on_host(array: jax.Array | np.ndarray) -> np.ndarray:
    """An array in NumPy, gathered where parts of it are on devices of other processes, which then all call this."""
    if not isinstance(array, jax.Array) or array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def keep_compiled_programs() -> None:
    """Caches compiled programs between processes, in the user's cache directory unless JAX has another.

    The directory is closed to other users, as programs in it are run; without a home there is none.
    """
    if jax.config.values.get("jax_compilation_cache_dir") is None:
        directory = _private(user_cache())
        if directory is not None:
            jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    devices()


def _private(cache: Path | None) -> Path | None:
    """The directory of compiled programs, which only this user can write; None where there can be none."""
    if cache is None:
        return None
    try:
        cache.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        for directory in (cache, cache / "xla"):
            directory.mkdir(mode=0o700, exist_ok=True)
            found = directory.stat()
            if found.st_uid != os.getuid():
                return None
            if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                directory.chmod(0o700)
    except OSError:
        return None
    return cache / "xla"


def describe_devices() -> str:
    """The devices in words, such as `1 x NVIDIA H100 80GB HBM3`."""
    there = devices()
    return f"{len(there)} x {there[0].device_kind}"
