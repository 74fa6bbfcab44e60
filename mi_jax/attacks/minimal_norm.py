"""Robustness beyond one radius: the distance to the nearest adversarial image, and robust accuracy over eps."""

import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mi_jax import checks
from mi_jax.attacks.adaptive_radius import DDN, FMN
from mi_jax.attacks.autoattack import autoattack
from mi_jax.attacks.autoattack_plan import Budget
from mi_jax.attacks.engine.input_checks import (
    Model,
    check_batch,
    check_distance,
    check_reach,
    check_variables,
    logits_of,
)
from mi_jax.attacks.engine.run import predict, run
from mi_jax.attacks.fab import FAB
from mi_jax.attacks.losses import misclassified
from mi_jax.attacks.threat_model import check_norm, diameter
from mi_jax.batches import BATCH_SIZE, map_batches
from mi_jax.errors import InputError
from mi_jax.parallel import Mesh
from mi_jax.typing import Images, Key, LogitsFn

Method = Literal["fab", "fmn", "ddn"]


class MinimalNorm(NamedTuple):
    """The nearest adversarial image found for each image.

    Attributes:
        distance: [b], pixel units; 0 where the clean image is misclassified, infinite where nothing was found.
        images: [b h w c], clean where nothing was found.
        warnings: as in `AttackResult`.
    """

    distance: jax.Array
    images: Images
    warnings: tuple[str, ...]


class RobustAccuracyCurve(NamedTuple):
    """Robust accuracy over eps, an upper bound.

    Attributes:
        eps: [e], ascending, pixel units.
        accuracy: [e], robust accuracy.
        warnings: as in `AutoAttackResult`.
    """

    eps: np.ndarray
    accuracy: np.ndarray
    warnings: tuple[str, ...]


def minimal_norm(
    logits_fn: LogitsFn,
    variables: Any,
    x: Any,
    y: Any,
    key: Key | int,
    *,
    norm: str = "linf",
    method: Method | str = "fab",
    steps: int = 100,
    restarts: int = 1,
    targets: int | None = None,
) -> MinimalNorm:
    """Distance from each image to the nearest adversarial one that a minimal-norm attack finds.

    An upper bound on the true minimal distance.

    Args:
        logits_fn, variables, x, y, key: as for `pgd`.
        norm: `linf`, `l2` or `l1`; `ddn` minimises only `l2`.
        method: `fab` (Croce and Hein 2020b), `fmn` (Pintor et al. 2021) or `ddn` (Rony et al. 2019), with the default
            settings of `FAB`, `FMN` or `DDN`.
        steps: iterations.
        restarts: independent starts of `fab`; the others start only at the clean image.
        targets: number of highest wrong classes that are attacked one by one, 0 for an untargeted attack; None for the
            usual choice: with `fab` 9, or all if there are fewer, else 0.

    Raises:
        InputError: as `pgd`.

    Examples:
        >>> weights = jnp.array([[1.0, -1.0]])
        >>> model = lambda w, x: (x.reshape(len(x), -1) - 0.25) @ w  # the boundary is at 0.25
        >>> x = jnp.array([0.5, 0.75]).reshape(2, 1, 1, 1)
        >>> minimal_norm(model, weights, x, jnp.array([0, 0]), 0).distance.round(2)
        Array([0.25, 0.5 ], dtype=float32)
    """
    norm = check_norm(norm)
    checks.one_of("method", method, get_args(Method))
    if method != "fab" and restarts != 1:
        raise InputError(f"restarts is {restarts!r}, but {method!r} has a single start; use method='fab'.")
    check_variables(variables)
    images, labels = check_batch(x, y)
    model = Model(logits_fn)
    if method == "fab":
        classes = jax.eval_shape(functools.partial(logits_of, model), variables, images[:1]).shape[1]
        usual, attack = min(9, classes - 1), functools.partial(FAB, restarts=restarts)
    else:
        usual, attack = 0, {"fmn": FMN, "ddn": DDN}[method]
    config = attack(norm, diameter(norm, images.shape), steps=steps, targets=usual if targets is None else targets)
    result = run(logits_fn, variables, images, labels, key, config=config)
    clean = jnp.asarray(_clean_errors(logits_fn, variables, images, labels))
    distance = jnp.where(clean, 0, jnp.where(result.success, result.perturbation_norm, jnp.inf))
    nearest = jnp.where(clean[:, None, None, None], images, result.images)
    return MinimalNorm(distance, nearest, result.warnings)


def robust_accuracy_curve(
    logits_fn: LogitsFn,
    variables: Any,
    x: Any,
    y: Any,
    key: Key | int,
    *,
    norm: str = "linf",
    eps: ArrayLike | Sequence[ArrayLike],
    version: Sequence[Any] | str = ("apgd-ce", "fab-t"),
    budget: Budget | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> RobustAccuracyCurve:
    """Robust accuracy at several radii, by a search for the radius at which each image is first broken.

    Every image is attacked at the middle of the radii that are open for it. Where it survives, the smaller ones count
    as survived; where it is broken, all that contain the image found count as broken. For e radii this takes about
    log2(e) evaluations, each of all open images at once with a radius per image, by programs compiled once.

    Args:
        logits_fn, variables, x, y, key: as for `autoattack`.
        norm: `linf`, `l2` or `l1`.
        eps: radii in pixel units of [0, 1]; 0 is the clean accuracy.
        version, budget, batch_size, mesh: as for `autoattack`; `standard` is stronger and slower than the default.

    Returns:
        The curve, which never increases.

    Raises:
        InputError: as `autoattack`, and for an empty `eps`.
    """
    norm = check_norm(norm)
    try:
        radii = np.sort(np.asarray(eps, float).ravel())
    except (TypeError, ValueError):
        raise InputError(f"Invalid eps {eps!r}: expected radii in pixel units, such as [2/255, 4/255].") from None
    if not len(radii):
        raise InputError("eps is empty; give at least one radius in pixel units of [0, 1], such as [2/255, 4/255].")
    check_variables(variables)
    images, labels = check_batch(x, y, on_host=True)
    for radius in radii:
        check_distance("eps", float(radius), norm)
    check_reach("eps", radii, diameter(norm, images.shape))
    correct = ~_clean_errors(logits_fn, variables, images, labels)
    # Robust at radii[: low], broken at radii[high:].
    low = np.full(len(labels), np.count_nonzero(radii == 0))
    high = np.where(correct, len(radii), 0)
    key, warnings = checks.key(key), []
    while len(left := np.flatnonzero(low < high)):
        middle = (low[left] + high[left]) // 2
        result = autoattack(
            logits_fn, variables, images[left], labels[left], key,
            norm=norm, eps=radii[middle], version=version, budget=budget, batch_size=batch_size, mesh=mesh,
        )  # fmt: skip
        low[left] = np.where(result.success, low[left], middle + 1)
        containing = np.searchsorted(radii * (1 + 1e-5), result.perturbation_norm)
        high[left] = np.where(result.success, np.minimum(middle, containing), high[left])
        warnings += result.warnings
    accuracy = np.mean(high[:, None] > np.arange(len(radii)), axis=0)
    return RobustAccuracyCurve(radii, accuracy, tuple(dict.fromkeys(warnings)))


def _clean_errors(logits_fn: LogitsFn, variables: Any, images: Any, labels: Any) -> np.ndarray:
    """Whether each image is misclassified without an attack [b]. Raises `InputError` for logits that do not fit."""
    predictions = functools.partial(predict, Model(logits_fn), variables)
    logits = map_batches(lambda x: predictions(jnp.asarray(x), None), images, batch_size=min(BATCH_SIZE, len(labels)))
    checks.logits(logits, labels)
    return np.asarray(misclassified(logits, jnp.asarray(labels)))
