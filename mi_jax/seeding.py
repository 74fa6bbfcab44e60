"""The independent random keys of a seed."""

from typing import Literal

import jax

from mi_jax.typing import Key

Stream = Literal["evaluation", "studies", "held_out", "random_target"]
_STREAMS: dict[Stream, int] = {"evaluation": 1, "studies": 2, "held_out": 3, "random_target": 4}
"""Never renumbered, or numbers measured earlier are not reproduced."""


def stream_key(seed: int, stream: Stream) -> Key:
    """The random key of a seed for one purpose; training uses the splits of `jax.random.key(seed)` itself.

    Args:
        seed: seed of the network.
        stream: `evaluation` for the attacks on finished networks, `studies`, `held_out` for the attack on held-out
            images, or `random_target` for the classes that targeted attacks aim at.
    """
    return jax.random.fold_in(jax.random.key(seed), _STREAMS[stream])
