"""Projected gradient ascent in the Linf, L2 or L1 ball: PGD with restarts, FGSM, and the loop for training."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from mi_jax import checks
from mi_jax.attacks.attack import Attack, AttackResult, Faults, Outcome, Problem, Words, check_config, register
from mi_jax.attacks.engine import randomness
from mi_jax.attacks.engine.input_checks import check_distance, logits_of
from mi_jax.attacks.engine.run import run
from mi_jax.attacks.losses import Loss, loss_of
from mi_jax.attacks.threat_model import Init, Norm, ThreatModel, per_image
from mi_jax.errors import InputError
from mi_jax.typing import Images, Key, Labels, Logits, LogitsFn


class PGDState(NamedTuple):
    """Per-row state: the iterate with its loss, and the kept image with its loss, logits and success."""

    point: Images
    loss: Float[Array, " r"]
    images: Images
    best_loss: Float[Array, " r"]
    logits: Float[Array, "r k"]
    found: Bool[Array, " r"]
    reference: Logits | None
    faults: Faults


@register("pgd")
@dataclasses.dataclass(frozen=True)
class PGD(Attack):
    """Settings of projected gradient ascent (Madry et al. 2018).

    Attributes:
        norm: norm of the ball, `linf`, `l2` or `l1` (whose steps move 1 % of the pixels).
        eps: radius of the ball, pixel units of [0, 1]; None for 8/255 in Linf, 0.5 in L2 and 12 in L1.
        steps: gradient steps; 0 for no attack.
        step_size: length of a step, pixel units of [0, 1], in L2 and L1 at most 3 eps; None for 2/255 in Linf and
            eps / 4 in L2 and L1.
        random_start: start at a random point of the ball.
        restarts: independent starts; the worst case per image is returned.
        loss: what is maximised: `ce`, `dlr`, `cw` (margin) or `kl` (from the clean prediction).
        keep: return the `last` iterate, or the `best`: misclassified if any is, then of highest loss.
        init: distribution of the random start, see `ThreatModel.start`.

    Raises:
        InputError: for values outside these.

    Examples:
        >>> PGD(norm="l2").eps
        0.5
    """

    steps: int = 10
    step_size: float = None  # pyright: ignore[reportAssignmentType]  # a number once `__post_init__` has run
    random_start: bool = True
    restarts: int = 1
    loss: Loss | str = "ce"
    keep: Literal["last", "best"] | str = "last"
    init: Init | str = "uniform"

    traced: ClassVar[tuple[str, ...]] = ("eps", "step_size")
    allows_zero_eps: ClassVar[bool] = True
    takes_start: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        checks.flag("random_start", self.random_start)
        for name, allowed in (("keep", ("last", "best")), ("init", ("uniform", "radius", "gaussian"))):
            checks.one_of(name, getattr(self, name), allowed)
        if self.restarts > 1 and not self.random_start:
            raise InputError("restarts > 1 without random_start would repeat one attack; set random_start=True.")
        if self.loss == "kl" and self.steps and not self.random_start:
            raise InputError("The loss 'kl' has no gradient at the clean image; set random_start=True.")

    @property
    def gradients(self) -> int:
        """One in each step, as the last iteration only evaluates."""
        return self.steps

    def start_words(self, shape: tuple[int, ...]) -> int:
        """One word for each pixel and channel, and one for the radius."""
        return 1 + shape[0] * shape[1] * shape[2] if self.random_start and self.steps else 0

    def initial_state(self, problem: Problem, words: Words) -> PGDState:
        """State before the first evaluation, at the given start, else at a random one, else at the clean image."""
        clean, threat = problem.clean, problem.threat
        start, rows = clean, len(clean)
        if problem.batch.start is not None:
            start = threat.project(problem.batch.start, clean)
        elif words is not None:
            pixels = words[:, 1:].reshape(clean.shape)
            noise = randomness.normal(pixels) if threat.draws_normal(self.init) else 2 * randomness.uniform(pixels) - 1
            radius = per_image(randomness.uniform(words[:, 0]).astype(clean.dtype))
            start = threat.start(clean, noise.astype(clean.dtype), radius, self.init)
        reference = problem.logits(clean, 0) if self.loss == "kl" else None
        logits = jax.eval_shape(problem.logits, start, 0)
        return PGDState(
            point=start,
            loss=jnp.zeros(rows, start.dtype),
            images=start,
            best_loss=jnp.full(rows, -jnp.inf, start.dtype),
            logits=jnp.zeros(logits.shape, logits.dtype),
            found=jnp.zeros(rows, bool),
            reference=reference,
            faults=Faults.none(rows),
        )

    def step(self, problem: Problem, state: PGDState, i: Any, words: Words) -> PGDState:
        """Evaluates the iterate, keeps it if `keep` says so, and moves on; the last iterate is only evaluated."""

        def ascend_from(point):
            gradient, seen = problem.gradient(point, i, self.loss, state.reference)
            moved = problem.threat.project(point + self.step_size * problem.threat.steepest(gradient), problem.clean)
            return moved, seen, state.faults.add(gradient, seen.wrong)

        def stay(point):
            return point, problem.evaluate(point, i, self.loss, state.reference)[1], state.faults

        point, seen, faults = jax.lax.cond(i < self.steps, ascend_from, stay, state.point)
        if self.keep == "best":
            take = (seen.wrong & ~state.found) | ((seen.wrong == state.found) & (seen.losses > state.best_loss))
            take |= i == 0
            found = state.found | seen.wrong
        else:
            # An iterate at which the model breaks down numerically never replaces one at which it does not.
            take = jnp.isfinite(jnp.max(seen.logits, axis=1)) | (i == 0)
            found = jnp.where(take, seen.wrong, state.found)
        return PGDState(
            point=point,
            loss=seen.losses,
            images=jnp.where(per_image(take), state.point, state.images),
            best_loss=jnp.where(take, seen.losses, state.best_loss),
            logits=jnp.where(take[:, None], seen.logits, state.logits),
            found=found,
            reference=state.reference,
            faults=faults,
        )

    def outcome(self, state: PGDState) -> Outcome:
        """The kept iterate with its logits and loss."""
        return Outcome(state.images, state.found, state.logits, state.best_loss, faults=state.faults)

    def recorded_loss(self, state: PGDState) -> Array:
        """The loss of the last iterate evaluated."""
        return state.loss


Objective = Callable[[Images, Any], tuple[jax.Array, Any]]
"""`objective(images, state) -> (losses [b], state)`."""


def ascend(
    objective: Objective,
    images: Images,
    key: Key | int | None = None,
    *,
    config: PGD,
    eps: ArrayLike | None = None,
    step_size: ArrayLike | None = None,
    start: Images | None = None,
    state: Any = (),
) -> tuple[Images, Any]:
    """Maximises any objective within the ball, for training, with exactly `steps` gradients with respect to the images.

    Args:
        objective: maps (images [b h w c], state) to (losses [b], state).
        images: clean images [b h w c] in [0, 1].
        key: a random key or a seed, for the random start if there is one.
        config: only norm, eps, steps, step_size, random_start and init are used.
        eps, step_size: replace those of the configuration, and may be traced.
        start: first point, projected into the ball; replaces the random start.
        state: what a forward pass updates, such as batch statistics.

    Returns:
        The last iterate [b h w c] and the last state.

    Raises:
        InputError: when a random start has no key.
    """
    if config.steps == 0:
        return images, state
    threat = ThreatModel(str(config.norm), jnp.asarray(config.eps if eps is None else eps, images.dtype))
    step_size = jnp.asarray(config.step_size if step_size is None else step_size, images.dtype)
    first = images
    if start is not None:
        first = threat.project(start, images)
    elif config.random_start:
        first = threat.random_start(checks.key(key), images, config.init)

    def total(x, carried):
        losses, carried = objective(x, carried)
        return jnp.sum(losses), carried

    def step(carry, _):
        x, carried = carry
        gradient, carried = jax.grad(total, has_aux=True)(x, carried)
        return (threat.project(x + step_size * threat.steepest(gradient), images), carried), None

    (last, state), _ = jax.lax.scan(step, (first, state), length=config.steps)
    return jax.lax.stop_gradient(last), state


def perturb(
    logits_fn: LogitsFn,
    variables: Any,
    x: Images,
    y: Labels,
    key: Key | int | None = None,
    *,
    config: PGD,
    eps: ArrayLike | None = None,
    step_size: ArrayLike | None = None,
) -> Images:
    """Adversarial images [b h w c] for training: the last iterate of one PGD run, without statistics.

    Costs K forward and K backward passes for K steps (one more forward pass for `kl`). Traceable; checks no values.

    Args:
        logits_fn, variables, x, y: as for `pgd`.
        key: a random key or a seed, needed for a random start.
        config: settings, with `restarts=1` and `keep="last"`.
        eps, step_size: replace those of the configuration, and may be traced.

    Raises:
        InputError: for a configuration with restarts or `keep="best"`, which only `pgd` supports.
    """
    if config.restarts != 1 or config.keep != "last":
        raise InputError("perturb returns the last iterate of one run; for restarts or keep='best' call pgd.")
    reference = logits_of(logits_fn, variables, x) if config.loss == "kl" else None
    losses = loss_of(config.loss, y, reference=reference)

    def objective(images, state):
        return losses(logits_of(logits_fn, variables, images)), state

    return ascend(objective, x, key, config=config, eps=eps, step_size=step_size)[0]


def pgd(
    logits_fn: LogitsFn,
    variables: Any,
    x: Any,
    y: Any,
    key: Key | int | None = None,
    *,
    config: PGD,
    targets: Any = None,
    start: Any = None,
    index: Any = None,
    eps: ArrayLike | None = None,
    step_size: ArrayLike | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Attacks images by projected gradient ascent (Madry et al. 2018); restarts share one batch.

    Traceable. Outside of jit it compiles once for each model, configuration and shape: define `logits_fn` once, and
    pass its weights as `variables`.

    Args:
        logits_fn: `logits_fn(variables, x)` returns logits [b k]; pure and traceable by JAX.
        variables: first argument of the model.
        x: images [b h w c] in [0, 1].
        y: labels [b].
        key: a random key or a seed, needed for a random start.
        config: settings.
        targets: classes [b] to move towards; `success` still means misclassified.
        start: first points [b h w c] in [0, 1], projected into the ball; they replace the random start and the
            restarts.
        index: number of each image in its data set [b], by default 0, 1, ...: an image's random numbers depend on the
            key and this number alone, so that the result does not depend on how images are split into batches.
        eps, step_size: replace those of the configuration, with one number or one per image [b]; may be traced: a sweep
            or a `vmap` compiles once.
        batch_size: images at once on the device; None for all, which a CPU takes in slices of 128.

    Returns:
        The kept image of the worst restart, with its logits and loss.

    Raises:
        InputError: for images outside [0, 1], labels or targets that do not fit, logits that are NaN, infinite or
            probabilities, and a missing key.

    Examples:
        >>> model = lambda weights, x: x.reshape(len(x), -1) @ weights
        >>> x, y = jnp.full((2, 1, 1, 1), 0.5, jnp.float32), jnp.array([0, 1])
        >>> weights = jnp.array([[1.0, -1.0]])
        >>> pgd(model, weights, x, y, config=PGD(eps=0.1, step_size=0.1, random_start=False)).images.ravel()
        Array([0.4, 0.6], dtype=float32)
    """
    check_config(config, PGD)
    if start is not None:
        config = config.with_values(restarts=1, random_start=False)
    elif config.steps == 0:
        config = config.with_values(restarts=1)
    return run(
        logits_fn, variables, x, y, key,
        config=config, eps=eps, step_size=step_size, targets=targets, start=start, index=index,
        batch_size=batch_size,
    )  # fmt: skip


def fgsm(
    logits_fn: LogitsFn,
    variables: Any,
    x: Any,
    y: Any,
    *,
    eps: ArrayLike,
    norm: Norm | str = "linf",
    loss: Loss | str = "ce",
    targets: Any = None,
) -> AttackResult:
    """One step of length eps from the clean image along the steepest direction (Goodfellow et al. 2015).

    Args:
        logits_fn, variables, x, y, targets: as for `pgd`.
        eps: radius in pixel units of [0, 1]; may be traced.
        norm: `linf`, `l2` or `l1`.
        loss: `ce`, `dlr` or `cw`.

    Raises:
        InputError: as `pgd`.
    """
    checks.one_of("loss", loss, ("ce", "dlr", "cw"))
    config = PGD(norm=norm, steps=1, random_start=False, loss=loss)
    check_distance("eps", eps, config.norm, per_image=True)  # for None, pgd would take a shorter step than the radius
    return pgd(logits_fn, variables, x, y, config=config, targets=targets, eps=eps, step_size=eps)
