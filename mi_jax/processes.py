"""Several processes that run one job: how they find each other, and what they must agree on.

Every process runs the same commands on the same data, and the devices of all share the work. Only the first process
reads and writes the run directory: it sends what it finds there, and what fails, to the others. With a single process
all functions here only call what they are given.
"""

import functools
import os
import pickle
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from mi_jax import checks
from mi_jax.errors import InputError

T = TypeVar("T")
P = ParamSpec("P")
_FIRST_MESSAGE_BYTES = 2**12
_here = threading.local()
"""`alone` is true while this process does what the others only hear of."""


class OtherProcessLost(Exception):
    """A process of this job is gone, so the others cannot continue."""


@dataclass(frozen=True)
class Address:
    """Where the processes of a job meet.

    Attributes:
        coordinator: host and port of the first process; None where JAX finds it, as under SLURM and on Cloud TPU.
        count, index: number of processes, and which of them this one is.
    """

    coordinator: str | None = None
    count: int | None = None
    index: int | None = None


def find(processes: str = "auto", coordinator: str | None = None, index: int | None = None) -> Address | None:
    """Where the processes of this job meet, by the flags of a command; None for a single process.

    Args:
        processes: `auto`, `cluster` (what JAX finds), or how many there are. `auto` is the address in
            `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`, `cluster` in a SLURM step of several
            tasks and where `TPU_WORKER_HOSTNAMES` names several hosts, and a single process elsewhere.
        coordinator: `HOST:PORT` of the first process, where `processes` is a number above 1.
        index: index of this process, from 0, there.

    Raises:
        InputError: for other values, and for those that do not belong together.

    Examples:
        >>> find("2", "10.0.0.1:1234", 0)
        Address(coordinator='10.0.0.1:1234', count=2, index=0)
        >>> find("1")
    """
    checks.string("processes", processes, usual="'auto' or '2'")
    counted = processes.isdecimal() and int(processes) > 0
    if not counted and processes not in ("auto", "cluster"):
        raise InputError(f"Invalid processes {processes!r}: expected auto, cluster, or how many there are.")
    if not counted and (coordinator, index) == (None, None):
        return Address() if processes == "cluster" else _in_environment()
    if processes == "1" and (coordinator, index) == (None, None):
        return None
    host, _, port = (coordinator or "").rpartition(":")
    if not (counted and host and port.isdecimal() and index is not None and 0 <= index < int(processes)):
        raise InputError(
            "Several processes need their number, a coordinator (HOST:PORT of the first) and an index from 0 to one "
            f"less than the number; got {processes!r}, {coordinator!r} and {index!r}."
        )
    return Address(coordinator, int(processes), index) if int(processes) > 1 else None


def _in_environment() -> Address | None:
    """The address that JAX's variables, a SLURM step or a Cloud TPU slice show; None for a single process."""
    if coordinator := os.environ.get("JAX_COORDINATOR_ADDRESS"):
        number, index = (os.environ.get(f"JAX_{name}", "") for name in ("NUM_PROCESSES", "PROCESS_ID"))
        if not number:
            raise InputError(
                f"JAX_COORDINATOR_ADDRESS is {coordinator}, but JAX_NUM_PROCESSES is not set: set it and "
                "JAX_PROCESS_ID, or unset the address."
            )
        return find(number, coordinator, int(index) if index.isdecimal() else None)
    tasks, workers = os.environ.get("SLURM_STEP_NUM_TASKS", "1"), os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return Address() if (tasks.isdecimal() and int(tasks) > 1) or "," in workers else None


def start(address: Address | None) -> None:
    """Joins the processes of this job. To be called before JAX looks for devices; nothing to do for a single process.

    Raises:
        InputError: when the other processes do not come.
    """
    if address is None:
        return
    if (os.environ.get("JAX_PLATFORMS") or "").startswith("cpu"):
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        # With an address, all devices of the host belong to this process; SLURM has one process for each device.
        detection = "deactivate" if address.coordinator else None
        jax.distributed.initialize(
            address.coordinator, address.count, address.index, cluster_detection_method=detection
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(
            f"The processes of this job cannot find each other ({reason}); start as many as were announced, all with "
            "the same address, or state that there is 1 process."
        ) from None


def count() -> int:
    """Number of processes."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the process that reads and writes files, and prints messages."""
    return count() == 1 or jax.process_index() == 0


def on_first(work: Callable[[], T]) -> T:
    """What `work` returns in the first process, the only one that runs it. All processes call this together.

    What `work` raises is raised by all of them. Within `work`, `on_first` just runs what it is given.

    Args:
        work: returns what can be pickled.
    """
    if count() == 1 or getattr(_here, "alone", False):
        return work()
    result, failure = None, None
    if is_first():
        _here.alone = True
        try:
            result = work()
        except Exception as error:
            failure = error
        finally:
            _here.alone = False
    result, failure = _from(0, result, failure)
    if failure is not None:
        raise failure
    return result


def by_first(function: Callable[P, T]) -> Callable[P, T]:
    """A function that only the first process runs, for all, see `on_first`."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        return on_first(lambda: function(*args, **kwargs))

    return wrapped


def together(work: Callable[[], T]) -> T:
    """What `work` returns in this process; what it raises in any process is raised in all, from the first that failed.

    Args:
        work: communicates with no other process.
    """
    if count() == 1:
        return work()
    result, failure = None, None
    try:
        result = work()
    except Exception as error:
        failure = error
    failed = np.flatnonzero(_of_each(failure is not None))
    if len(failed):
        _, failure = _from(int(failed[0]), None, failure)
        assert failure is not None
        raise failure
    return result  # pyright: ignore[reportReturnType]


def any_of(flag: bool) -> bool:
    """Whether the flag is true in any process."""
    return flag if count() == 1 else bool(np.any(_of_each(flag)))


def agree(value: T) -> T:
    """The value of the first process."""
    return on_first(lambda: value)


def _of_each(flag: bool) -> np.ndarray:
    return np.asarray(_communicated(multihost_utils.process_allgather, np.asarray(flag)))


def _from(source: int, result: Any, failure: Exception | None) -> tuple[Any, Exception | None]:
    """What one process has, pickled as bytes in messages of few lengths, each of which is compiled once."""
    sends = jax.process_index() == source
    payload, failure = _pickled(result, failure) if sends else (b"", None)
    head = len(payload).to_bytes(8, "little") + payload
    received = _message(head[:_FIRST_MESSAGE_BYTES], _FIRST_MESSAGE_BYTES, sends)
    length = int.from_bytes(received[:8], "little")
    if length + 8 > _FIRST_MESSAGE_BYTES:
        received += _message(head[_FIRST_MESSAGE_BYTES:], 1 << (length - 1).bit_length(), sends)
    return (result, failure) if sends else pickle.loads(received[8 : 8 + length])


def _message(content: bytes, size: int, sends: bool) -> bytes:
    buffer = np.zeros(size, np.uint8)
    buffer[: len(content)] = np.frombuffer(content, np.uint8)
    return _communicated(multihost_utils.broadcast_one_to_all, buffer, is_source=sends).tobytes()


def _pickled(result: Any, failure: Exception | None) -> tuple[bytes, Exception | None]:
    """The message for other processes, and what is raised here: the failure, or that the result cannot be pickled.

    Where other processes could not build the failure from the message, they get a RuntimeError that describes it.
    """
    if failure is None:
        try:
            return pickle.dumps((result, None)), None
        except Exception as error:  # whatever the objects raise that it holds
            failure = error
    try:
        message = pickle.dumps((None, failure))
        pickle.loads(message)
    except Exception:
        message = pickle.dumps((None, RuntimeError(f"{type(failure).__name__}: {failure}")))
    return message, failure


def _communicated(collective: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a collective operation of JAX returns. Raises `OtherProcessLost` where it fails."""
    try:
        return collective(*args, **kwargs)
    except jax.errors.JaxRuntimeError as error:
        raise OtherProcessLost(str(error).splitlines()[0]) from error
