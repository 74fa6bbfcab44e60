"""Square attack (Andriushchenko et al. 2020): random search over square windows, without gradients.

This module has the schedule and the acceptance rule; `square_proposals` has the proposals of each norm.
"""

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from mi_jax import checks
from mi_jax.attacks import square_proposals
from mi_jax.attacks.attack import Attack, AttackResult, Batch, Outcome, Problem, Words, check_config, register
from mi_jax.attacks.engine.run import run
from mi_jax.attacks.losses import margin, misclassified
from mi_jax.attacks.threat_model import per_image
from mi_jax.typing import Images, Key, LogitsFn


class SquareState(NamedTuple):
    """Per-row state: the image of smallest margin z_y - max_{i != y} z_i so far, that margin, and success."""

    images: Images
    margin: Float[Array, " r"]
    found: Bool[Array, " r"]


def accept(s: SquareState, candidate: Images, logits: Array, batch: Batch) -> SquareState:
    """Accepts a candidate of smaller margin z_y - max_{i != y} z_i; a misclassified row no longer changes."""
    lead = -margin(logits, batch.labels)
    take = ((lead < s.margin) | (lead <= 0)) & ~s.found & jnp.isfinite(jnp.max(logits, axis=1))
    wrong = misclassified(logits, batch.labels)
    return SquareState(
        images=jnp.where(per_image(take), candidate, s.images),
        margin=jnp.where(take, lead.astype(s.margin.dtype), s.margin),
        found=s.found | (take & wrong),
    )


@register("square")
@dataclasses.dataclass(frozen=True)
class Square(Attack):
    """Settings of the Square attack (Andriushchenko et al. 2020) on the margin.

    Attributes:
        norm, eps, restarts: as in `PGD`.
        queries: proposals tried after the start.
        p_init: share of the image that the first windows cover.
        rescale_schedule: scale the schedule of window sizes, which the paper gives for 10,000 queries, to `queries`.

    Raises:
        InputError: for values outside these.
    """

    queries: int = 5000
    restarts: int = 1
    p_init: float = 0.8
    rescale_schedule: bool = False

    effort: ClassVar[str] = "queries"
    budget: ClassVar[dict[str, str]] = {"queries": "square_queries"}
    uses_gradients: ClassVar[bool] = False

    def __post_init__(self):
        super().__post_init__()
        checks.portion("p_init", self.p_init, usual="0.8")
        checks.flag("rescale_schedule", self.rescale_schedule)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raises `InputError` for L2 and L1 on images with a side below 5 pixels, where the start does not fit."""
        super().check_shape(shape)
        if self.norm != "linf":
            square_proposals.tile_side(shape[0], shape[1])

    def start_words(self, shape: tuple[int, ...]) -> int:
        """Words for the stripes or tiles."""
        return square_proposals.start_words(shape, str(self.norm))

    def step_words(self, shape: tuple[int, ...]) -> int:
        """Words for one proposal."""
        return square_proposals.step_words(shape, str(self.norm))

    def initial_state(self, problem: Problem, words: Words) -> SquareState:
        """State before the first query, with stripes (Linf) or a grid of tiles (L2, L1) added to the image."""
        assert words is not None
        clean, norm = problem.clean, problem.threat.norm
        start = square_proposals.stripes if norm == "linf" else square_proposals.tiles
        draw = square_proposals.start_draw(words, clean.shape, norm)
        nothing = jnp.full(len(clean), jnp.inf, clean.dtype)
        return SquareState(start(clean, draw, problem.threat), nothing, jnp.zeros(len(nothing), bool))

    def step(self, problem: Problem, state: SquareState, i: Any, words: Words) -> SquareState:
        """One query: the start at first, then the best image with one window changed."""
        assert words is not None
        shape, norm = problem.clean.shape, problem.threat.norm
        schedule = square_proposals.Schedule.of(window_sides(self, shape), norm)
        draw = square_proposals.step_draw(words, schedule.side(i), shape, norm)
        proposal = square_proposals.propose(state.images, problem.clean, draw, schedule, i, problem.threat)
        candidate = jnp.where(i == 0, state.images, proposal)
        return accept(state, candidate, problem.logits(candidate, i), problem.batch)

    def outcome(self, state: SquareState) -> Outcome:
        """The image of smallest margin."""
        return Outcome(state.images, state.found)


def window_sides(config: Square, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Side of the window at each query [queries + 1]; entry 0 belongs to the start and is not used.

    The share of the image that a window covers, at first p_init, is halved after 10, 50, 200, 500, 1000, 2000, 4000,
    6000 and 8000 queries.
    """
    height, width = shape[1], shape[2]
    sides = [1]
    for query in range(config.queries):
        elapsed = int(query / config.queries * 10_000) if config.rescale_schedule else query
        halvings = sum(elapsed > mark for mark in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000))
        side = round(math.sqrt(config.p_init / 2**halvings * height * width))
        if config.norm != "linf":
            side = max(side, 3)
            side += 1 - side % 2
        sides.append(min(max(side, 1), height, width))
    return tuple(sides)


def square(
    logits_fn: LogitsFn,
    variables: Any,
    x: Any,
    y: Any,
    key: Key | int,
    *,
    config: Square,
    eps: ArrayLike | None = None,
) -> AttackResult:
    """Attacks images by random search on the margin (Andriushchenko et al. 2020), with logits but no gradients.

    Args:
        logits_fn, variables, x, y: as for `pgd`.
        key: a random key or a seed.
        config: settings.
        eps: replaces that of the configuration, with one number or one per image [b]; may be traced.

    Returns:
        An adversarial image where a query found one, else the image of smallest margin.

    Raises:
        InputError: as `pgd`, and for eps = 0, and for L2 and L1 on images with a side below 5 pixels.
    """
    check_config(config, Square)
    return run(logits_fn, variables, x, y, key, config=config, eps=eps)
