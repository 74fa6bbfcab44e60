"""Projected gradient ascent in the Linf and L2 ball: PGD with restarts, FGSM, and the bare loop for training.

`ascend` is the loop alone; `perturb` adds a loss; `pgd` adds restarts and the books. Model-free beyond `logits_fn`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mi_jax.attacks.engine.chunks import chunked_map
from mi_jax.attacks.engine.input_checks import (
    check_batch,
    check_class_indices,
    check_count,
    check_eps,
    check_logits,
    check_model,
    check_step,
    logits_of,
)
from mi_jax.attacks.losses import Loss, check_loss, loss_of
from mi_jax.attacks.results import AttackResult
from mi_jax.attacks.threat_model import Norm, StartLaw, check_norm, length, project_image, random_perturbation, steepest
from mi_jax.errors import InputError
from mi_jax.typing import Images, Key, Labels, LogitsFn


@dataclasses.dataclass(frozen=True)
class PGD:
    """Settings of projected gradient ascent (Madry et al. 2018).

    Attributes:
        norm: of the ball, `linf` or `l2`.
        eps: radius of the ball, pixel units of [0, 1].
        steps: gradient steps; 0 means no attack.
        step_size: length of a step, pixel units of [0, 1].
        random_start: begin at a random point of the ball.
        restarts: independent starts, of which the pointwise worst is kept.
        loss: what is maximised: `ce`, `dlr`, `cw` (margin) or `kl` (from the clean prediction).
        keep: return the `last` iterate, or the `best` (misclassified first, then highest loss) of all.
        start_law: of the random point, see `norms.random_perturbation`.

    Raises:
        InputError: for values outside these.
    """

    norm: Norm | str = "linf"
    eps: float = 8 / 255
    steps: int = 10
    step_size: float = 2 / 255
    random_start: bool = True
    restarts: int = 1
    loss: Loss | str = "ce"
    keep: Literal["last", "best"] | str = "last"
    init: StartLaw | str = "uniform"

    def __post_init__(self):
        check_norm(self.norm)
        check_eps(self.eps, self.norm)
        check_count("steps", self.steps, 0)
        check_count("restarts", self.restarts, 1)
        check_loss(self.loss)
        if not (math.isfinite(self.step_size) and self.step_size > 0):
            raise InputError(f"step_size must be a positive number; got {self.step_size!r} (2/255 is usual).")
        for name, allowed in (("keep", ("last", "best")), ("init", ("uniform", "radius", "gaussian"))):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} {getattr(self, name)!r} is unknown; use one of {', '.join(allowed)}.")
        if self.restarts > 1 and not self.random_start:
            raise InputError("restarts > 1 without random_start would repeat one attack; set random_start=True.")
        if self.loss == "kl" and self.steps and not self.random_start:
            raise InputError("The loss 'kl' has no gradient at the clean image; set random_start=True.")


Objective = Callable[[Images, Any], tuple[jax.Array, Any]]
"""`objective(images, state) -> (losses [b], state)`."""


def ascend(
    objective: Objective,
    images: Images,
    key: Key | None = None,
    *,
    config: PGD,
    eps: ArrayLike | None = None,
    step_size: ArrayLike | None = None,
    start: Images | None = None,
    state: Any = (),
) -> tuple[Images, Any]:
    """Climb `objective` from the images and return the last iterate and the state: exactly `steps` gradients.

    The loop for training: nothing but the gradient with respect to the input is computed. `objective` maps
    (images [b h w c], state) to (losses [b], state); `state` carries what a forward pass updates (batch
    statistics) and is () otherwise. `eps` and `step_size` replace the config's and may be traced. The first point
    is `start` if given, brought into the ball, else drawn with `key` if the config asks for a random start. Only
    norm, eps, steps, step_size, random_start and start_law of the config are used.
    """
    radius, stride = _sizes(images, config, eps, step_size)
    if config.steps == 0:
        return images, state
    first = _first_point(images, key, config, radius, start)

    def total(x, carried):
        losses, carried = objective(x, carried)
        return jnp.sum(losses), carried

    def step(carry, _):
        x, carried = carry
        gradient, carried = jax.grad(total, has_aux=True)(x, carried)
        return (_move(x, images, gradient, radius, stride, config.norm), carried), None

    (last, state), _ = jax.lax.scan(step, (first, state), length=config.steps)
    return jax.lax.stop_gradient(last), state


def perturb(
    logits_fn: LogitsFn,
    variables: Any,
    x: Images,
    y: Labels,
    key: Key | None = None,
    *,
    config: PGD,
    eps: ArrayLike | None = None,
    step_size: ArrayLike | None = None,
) -> Images:
    """Adversarial images [b h w c] for training: the last iterate of one PGD run, and no bookkeeping.

    2 K forward-equivalents for K steps (one more forward for `kl`). Traceable; checks nothing about values.
    Raises `InputError` for a config with restarts or `keep="best"`, which only `pgd` serves.
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
    x: ArrayLike,
    y: ArrayLike,
    key: Key | None = None,
    *,
    config: PGD,
    targets: ArrayLike | None = None,
    start: ArrayLike | None = None,
    eps: ArrayLike | None = None,
    step_size: ArrayLike | None = None,
) -> AttackResult:
    """Attack images by projected gradient ascent (Madry et al. 2018), restarts folded into the batch.

    `logits_fn(variables, x)` gives logits [b k]; x [b h w c] float in [0, 1]; y [b] int; `key` is needed for a
    random start. `targets` [b] makes the attack targeted. `start` [b h w c], brought into the ball, replaces the
    first point. `eps` and `step_size` replace the config's and may be traced: a sweep or a `vmap` over them compiles
    once. Pure and traceable; called outside of jit it compiles itself, once for each `logits_fn` object, config and
    shape (so define `logits_fn` once, not in the call). Raises `InputError` for images outside [0, 1], labels that do
    not fit, NaN logits, probabilities in place of logits, or a missing key.
    """
    images, labels = check_batch(x, y)
    check_model(logits_fn)
    if eps is not None:
        check_eps(eps, config.norm)
    if step_size is not None:
        check_step(step_size)
    if targets is not None:
        targets = check_batch(x, targets)[1]
    if start is not None:
        start = jnp.asarray(start)
        if start.shape != images.shape:
            raise InputError(f"start must have the images' shape {images.shape}; got {start.shape}.")
        start = start.astype(images.dtype)
    if config.steps and config.random_start and start is None and key is None:
        raise InputError("A random start needs a key; give key=jax.random.key(0) or set random_start=False.")
    radius, stride = _sizes(images, config, eps, step_size)
    # eps and step_size travel as arrays, so the compiled function must not depend on them through the config.
    shape_of_attack = dataclasses.replace(config, eps=0.0, step_size=1.0)
    folds = config.restarts if config.steps and start is None else 1
    if start is None:
        start = jnp.tile(images, (folds, 1, 1, 1))
        if config.steps:
            start = _first_point(start, key, config, radius, None)
    result = _run(logits_fn, shape_of_attack, folds, variables, images, labels, targets, start, radius, stride)
    check_logits(result.logits, labels)
    if targets is not None:
        check_class_indices("Targets", targets, result.logits.shape[1])
    return result


def fgsm(
    logits_fn: LogitsFn,
    variables: Any,
    x: ArrayLike,
    y: ArrayLike,
    *,
    eps: ArrayLike,
    norm: Norm | str = "linf",
    loss: Loss | str = "ce",
    targets: ArrayLike | None = None,
) -> AttackResult:
    """One step of length eps from the clean image along the steepest direction (Goodfellow et al. 2015).

    Arguments and errors as for `pgd`; eps may be traced.
    """
    config = PGD(norm=norm, eps=0.0, steps=1, step_size=1.0, random_start=False, loss=loss)
    return pgd(logits_fn, variables, x, y, config=config, targets=targets, eps=eps, step_size=eps)


def _sizes(images: Images, config: PGD, eps: ArrayLike | None, step_size: ArrayLike | None):
    radius = config.eps if eps is None else eps
    stride = config.step_size if step_size is None else step_size
    return jnp.asarray(radius, images.dtype), jnp.asarray(stride, images.dtype)


def _first_point(images: Images, key: Key | None, config: PGD, eps: jax.Array, start: Images | None) -> Images:
    if start is not None:
        return project_image(start, images, eps, config.norm)
    if not config.random_start:
        return images
    if key is None:
        raise InputError("A random start needs a key; give key=jax.random.key(0) or set random_start=False.")
    return _random_start(key, images, eps, config.norm, config.init)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _random_start(key: Key, images: Images, eps: jax.Array, norm: str, law: str) -> Images:
    # Compiled apart from the attack: compiling the generator takes longer than compiling a small model's loop.
    return jnp.clip(images + random_perturbation(key, images.shape, images.dtype, eps, norm, law), 0, 1)


def _move(x: Images, clean: Images, gradient: Images, eps: jax.Array, step_size: jax.Array, norm: str) -> Images:
    return project_image(x + step_size * steepest(gradient, norm), clean, eps, norm)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _run(logits_fn, config: PGD, folds, variables, images, labels, targets, start, eps, step_size) -> AttackResult:
    def fold(a: jax.Array) -> jax.Array:
        return jnp.tile(a, (folds,) + (1,) * (a.ndim - 1))

    def climb(start, clean, y, *goal):
        return _climb(logits_fn, config, variables, start, clean, y, eps, step_size, *goal)

    goal = () if targets is None else (fold(targets),)
    chosen, history = chunked_map(climb, start, fold(images), fold(labels), *goal)
    return _worst_restart(chosen, history.T, images, labels, folds, config.norm)


def _climb(logits_fn, config: PGD, variables, start, clean, y, eps, step_size, goal=None):
    """The kept point of each row, (images, losses, logits), and the losses on the way there [r, steps + 1]."""
    reference = logits_of(logits_fn, variables, clean) if config.loss == "kl" else None
    losses_of = loss_of(config.loss, y, targets=goal, reference=reference)

    def total(x):
        logits = logits_of(logits_fn, variables, x)
        losses = losses_of(logits)
        return jnp.sum(losses), (losses, logits)

    def step(carry, _):
        x, best = carry
        gradient, (losses, logits) = jax.grad(total, has_aux=True)(x)
        if config.keep == "best":
            best = _better(best, (x, losses, logits), y)
        return (_move(x, clean, gradient, eps, step_size, config.norm), best), losses

    x, best = project_image(start, clean, eps, config.norm), ()
    if config.keep == "best":
        losses, logits = jax.tree.map(jnp.zeros_like, jax.eval_shape(total, x)[1])
        best = (x, losses - jnp.inf, logits)
    (x, best), history = jax.lax.scan(step, (x, best), length=config.steps)
    _, (losses, logits) = total(x)
    chosen = _better(best, (x, losses, logits), y) if config.keep == "best" else (x, losses, logits)
    return chosen, jnp.concatenate([history, losses[None]]).T


def _better(best, other, labels: Labels):
    """Pointwise worse for the model: misclassified before correct, then the higher loss."""
    best_wrong, other_wrong = (jnp.argmax(point[2], axis=1) != labels for point in (best, other))
    # The start of the comparison has loss -inf and no logits worth reading.
    best_wrong &= best[1] > -jnp.inf
    replace = (other_wrong & ~best_wrong) | ((other_wrong == best_wrong) & (other[1] > best[1]))
    return jax.tree.map(lambda b, o: jnp.where(replace.reshape((-1,) + (1,) * (o.ndim - 1)), o, b), best, other)


def _worst_restart(chosen, history, images: Images, labels: Labels, folds: int, norm: str) -> AttackResult:
    x, losses, logits = (a.reshape((folds, len(labels), *a.shape[1:])) for a in chosen)
    history = history.reshape((-1, folds, len(labels)))
    wrong = jnp.argmax(logits, axis=2) != labels
    eligible = wrong | ~jnp.any(wrong, axis=0)
    winner = jnp.argmax(jnp.where(eligible, losses, -jnp.inf), axis=0)
    each = jnp.arange(len(labels))
    return AttackResult(
        images=x[winner, each],
        success=wrong[winner, each],
        loss=losses[winner, each],
        step_loss=history[:, winner, each],
        perturbation_norm=length(x[winner, each] - images, norm),
        logits=logits[winner, each],
    )
