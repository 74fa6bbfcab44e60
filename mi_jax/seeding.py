"""The random keys of a seed by purpose, and the rows of a fixed random sample."""

from typing import Literal

import jax
import numpy as np

from mi_jax.typing import Key

Stream = Literal["evaluation", "studies", "held_out", "random_target"]
_STREAMS: dict[Stream, int] = {"evaluation": 1, "studies": 2, "held_out": 3, "random_target": 4}
"""Never renumbered, or numbers measured earlier are not reproduced."""


def stream_key(seed: int, stream: Stream) -> Key:
    """The random key of a seed for one purpose; training uses the splits of `jax.random.key(seed)` itself.

    With JAX's default generator, whose split i is the key with i folded in, `evaluation` and `studies` are the keys by
    which training orders and perturbs its images, so these random numbers are not independent of those of training.

    Args:
        seed: seed of the network.
        stream: `evaluation` for the attacks on finished networks, `studies`, `held_out` for the attack on held-out
            images, or `random_target` for the classes that targeted attacks aim at.

    Examples:
        >>> init, order, step = jax.random.split(jax.random.key(0), 3)
        >>> bool(stream_key(0, "evaluation") == order), bool(stream_key(0, "studies") == step)
        (True, True)
    """
    return jax.random.fold_in(jax.random.key(seed), _STREAMS[stream])


def sample_rows(n: int, count: int, *, seed: int = 0) -> np.ndarray:
    """The indices of `count` of `n` rows, drawn without replacement and in order; all if there are no more.

    The first rows would not do: data may be ordered by class. A smaller part is one of every larger part.

    >>> sample_rows(10, 3).tolist(), sample_rows(10, 4).tolist()
    ([2, 4, 6], [2, 4, 6, 7])
    """
    return np.arange(n) if count >= n else np.sort(np.random.default_rng(seed).permutation(n)[:count])
