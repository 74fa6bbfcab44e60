"""Timing of calls, and of matrix products as the machine's reference rate."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

REST = 0.5
"""Seconds to sleep before each timed call, so that threads of the other package no longer spin."""


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a call, until every device has finished, and its result."""
    time.sleep(REST)
    began = time.perf_counter()
    result = jax.block_until_ready(run())
    return time.perf_counter() - began, result


def matmul_rate(side: int = 2048, repeats: int = 5) -> float:
    """Operations per second of a square matrix product in full float32, the best of several."""
    a = jax.random.normal(jax.random.key(0), (side, side))
    product = jax.jit(lambda a: jnp.dot(a, a, precision=lax.Precision.HIGHEST))
    product(a).block_until_ready()
    return 2.0 * side**3 / min(timed(lambda: product(a))[0] for _ in range(repeats))
