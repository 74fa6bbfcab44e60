"""The order of training images as a pure function of key and epoch, so that a run can stop and go on anywhere."""

from typing import Any

import jax
from jaxtyping import Array, Int32

from mi_jax.typing import Key


def epoch_order(key: Key, epoch: Any, n: int) -> Int32[Array, " n"]:
    """The order in which an epoch visits `n` images: a permutation of 0..n-1 that depends on nothing but its arguments.

    Traceable in `key` and `epoch`; `n` is a Python integer.

    Args:
        key: of the run (one per seed); the same key may serve every epoch.
        epoch: which epoch, from 0.
        n: how many images there are.
    """
    return jax.random.permutation(jax.random.fold_in(key, epoch), n)
