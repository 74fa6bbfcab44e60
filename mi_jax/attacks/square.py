"""Square attack (Andriushchenko et al. 2020): random search over square windows, without gradients.

The schedule and the acceptance rule are here; what a proposal looks like in each norm is in `windows`.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from mi_jax.attacks import square_proposals
from mi_jax.attacks.engine.input_checks import check_count, check_eps
from mi_jax.attacks.engine.run import BLOCK, AttackStep, Evaluate, Rows, run
from mi_jax.attacks.losses import at, best_other
from mi_jax.attacks.results import AttackResult
from mi_jax.attacks.threat_model import Norm, Scalar, check_norm, per_image
from mi_jax.errors import InputError
from mi_jax.typing import Images, Key, LogitsFn


@dataclasses.dataclass(frozen=True)
class Square:
    """Settings of the Square attack on the margin loss.

    norm, eps (pixel units), restarts as in `PGD`. queries: proposals tried after the start. p_init: share of the
    image that the first windows cover. rescale_schedule: shrink the windows in step with `queries` instead of at
    the fixed counts of the paper's 10,000. Raises `InputError` for values outside these.
    """

    norm: Norm | str = "linf"
    eps: float = 8 / 255
    queries: int = 5000
    restarts: int = 1
    p_init: float = 0.8
    rescale_schedule: bool = False

    def __post_init__(self):
        check_norm(self.norm)
        check_eps(self.eps, self.norm)
        check_count("queries", self.queries, 1)
        check_count("restarts", self.restarts, 1)
        if not 0 < self.p_init <= 1:
            raise InputError(f"p_init must lie in (0, 1]; got {self.p_init!r} (0.8 is usual).")


class SquareState(NamedTuple):
    """Per-row state: the image of least margin so far, that margin, and whether it is misclassified."""

    images: Images
    margin: Float[Array, " r"]
    found: Bool[Array, " r"]


def begin(config: Square, rows: Rows, bits: Array, eps: Scalar) -> SquareState:
    """State before the first query, at stripes (Linf) or a grid of tiles (L2)."""
    start = square_proposals.stripes if config.norm == "linf" else square_proposals.tiles
    draw = square_proposals.start_draw(bits, rows.images.shape, config.norm)
    nothing = jnp.full(len(rows.images), jnp.inf, rows.images.dtype)
    return SquareState(start(rows.images, draw, eps), nothing, jnp.zeros(len(nothing), bool))


def advance(evaluate: Evaluate, config: Square, rows: Rows, state: SquareState, bits, first, count, eps) -> SquareState:
    """Make queries first..first + count - 1; query 0 is the start, the others change a window of the best image."""
    shape = rows.images.shape
    schedule = square_proposals.Schedule.of(window_sides(config, shape), config.norm)

    def iteration(i, s):
        draw = square_proposals.step_draw(bits[:, i % BLOCK], schedule.side(i), shape, config.norm)
        candidate = jnp.where(i == 0, s.images, square_proposals.propose(s.images, rows.images, draw, schedule, i, eps))
        return accept(s, candidate, evaluate(candidate, i), rows)

    return jax.lax.fori_loop(first, first + count, iteration, state)


def accept(s: SquareState, candidate: Images, logits: Array, rows: Rows) -> SquareState:
    """Take a candidate of lower margin z_y - max_{i != y} z_i; a misclassified row stays as it is."""
    margin = at(logits, rows.labels) - best_other(logits, rows.labels)
    take = ((margin < s.margin) | (margin <= 0)) & ~s.found
    wrong = jnp.argmax(logits, axis=1) != rows.labels
    return SquareState(
        images=jnp.where(per_image(take), candidate, s.images),
        margin=jnp.where(take, margin.astype(s.margin.dtype), s.margin),
        found=s.found | (take & wrong),
    )


def window_sides(config: Square, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Side of the window at each query [queries + 1]; entry 0 is the start's and unused.

    The covered share p_init is halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 queries.
    """
    height, width = shape[1], shape[2]
    sides = [1]
    for query in range(config.queries):
        elapsed = int(query / config.queries * 10_000) if config.rescale_schedule else query
        halvings = sum(elapsed > mark for mark in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000))
        side = round(math.sqrt(config.p_init / 2**halvings * height * width))
        if config.norm == "l2":
            side = max(side, 3)
            side += 1 - side % 2
        sides.append(min(max(side, 1), height, width))
    return tuple(sides)


ATTACK_STEP = AttackStep(
    begin=begin,
    advance=advance,
    iterations=lambda config: config.queries + 1,
    start_words=lambda config, shape: square_proposals.start_words(shape, config.norm),
    step_words=lambda config, shape: square_proposals.step_words(shape, config.norm),
)


def square(
    logits_fn: LogitsFn, variables: Any, x: ArrayLike, y: ArrayLike, key: Key, *, config: Square, eps: Any = None
) -> AttackResult:
    """Attack images by random search on the margin (Andriushchenko et al. 2020); uses logits, never gradients.

    Arguments, `eps` and errors as for `pgd`. Where no query succeeds the image of least margin is returned.
    Raises `InputError` also for eps = 0, and for L2 on images with a side below 5 pixels.
    """
    return run(ATTACK_STEP, config, logits_fn, variables, x, y, key, eps)
