"""How a race is timed: one side at a time, after a rest, and how fast the machine multiplies matrices."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

REST = 0.5
"""Seconds before each timed call, lest threads of the other side still spin."""


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a call to its end on every device, after a rest, and what it returned."""
    time.sleep(REST)
    began = time.perf_counter()
    result = jax.block_until_ready(run())
    return time.perf_counter() - began, result


def matmul_rate(side: int = 2048, repeats: int = 5) -> float:
    """Operations a second of a square product in full float32, the best of some."""
    a = jax.random.normal(jax.random.key(0), (side, side))
    product = jax.jit(lambda a: jnp.dot(a, a, precision=lax.Precision.HIGHEST))
    product(a).block_until_ready()
    return 2.0 * side**3 / min(timed(lambda: product(a))[0] for _ in range(repeats))
