"""Where the numbers of a run come from: commands, versions, commit, devices and times of every command."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

from mi_jax import parallel

_PACKAGES = ("mi_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy", "tensorflow-datasets")


def of_this_command(*, command: str, data_dir: str | None) -> dict[str, Any]:
    """What computes from now on, JSON-ready: command, time, commit, versions and devices."""
    return {
        "command": command,
        "data_dir": data_dir,
        "start": now(),
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "device": parallel.describe_devices(),
        "backend": jax.default_backend(),
        "hosts": jax.process_count(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }


def now() -> str:
    """The time, ISO 8601, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the imported source, with `-dirty` behind it if files differ; None outside git."""
    here = Path(__file__).resolve().parent
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=here, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
