"""The interface of an estimator, a function (t, other) -> `Estimate`, and the registry that finds it by name.

A module in `estimators/` with a `@register`ed function adds an estimator, as does the decorator in any other module.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import numpy as np

from mi_jax import checks
from mi_jax.errors import InputError
from mi_jax.information._input import Target, target_of
from mi_jax.registry import Registry
from mi_jax.typing import Key

Kind = Literal["value", "lower", "upper", "heuristic"]
"""Whether the number estimates the information, bounds it on the population or the rows, or is another functional."""
Limit = Literal["saturated", "sample size", "dimension", "batch size", "training"]
"""What puts a value out of an estimator's range.

saturated: the value is at the ceiling that the number of samples sets. sample size: the samples leave the information
of the population open. dimension: neighbourhoods or kernels of the rows are not local. batch size: a variational bound
is near the logarithm of its batch. training: the second half of the training still moved the value much, or a network
without any would give a better one.
"""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """One number in nats, with what is needed to assess it."""

    estimator: str
    value: float
    stderr: float | None
    """Standard error; None where the estimator has none."""
    kind: Kind
    n: int
    """Number of samples."""
    settings: Mapping[str, Any]
    details: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """By-products: cross-entropy, accuracy, saturation, ..."""
    unreliable: Limit | None = None
    """The limit that the estimator is beyond on these data; None where none of its rules applies."""


@dataclasses.dataclass(frozen=True)
class Estimator:
    """An entry of the registry: what `register` was given."""

    name: str
    function: Callable[..., Estimate]
    targets: tuple[Target, ...]
    adds_noise: tuple[Target, ...] = ()
    label: str = ""
    title: str = ""
    description: str = ""
    studied: bool = True
    slow: bool = False
    max_samples: int | None = None


ESTIMATORS: Registry[Estimator] = Registry("estimator", package="mi_jax.information.estimators")
"""All estimators by name."""


def register(
    name: str,
    *,
    targets: tuple[Target, ...],
    adds_noise: tuple[Target, ...] = (),
    label: str | None = None,
    title: str | None = None,
    description: str = "",
    studied: bool = True,
    slow: bool = False,
    max_samples: int | None = None,
) -> Callable[[Callable[..., Estimate]], Callable[..., Estimate]]:
    """Return a decorator that registers a function as an estimator, so that `estimate` and the benchmark find it.

    Args:
        name: name of the estimator.
        targets: what it measures information about: any of "input", "label" and "continuous".
        adds_noise: the targets for which it needs the option `noise_variance`, the noise that it adds to t itself.
        label: short name in figures; by default `name`.
        title: title of its panel in figures; by default `label`.
        description: one phrase for captions on what it measures, such as "held-out lower bound by a linear probe".
        studied: whether the study `estimators` measures I(T;Y) of every layer by it, if it adds no noise for labels.
        slow: whether the benchmark repeats it less often, as for estimators that train a model.
        max_samples: most samples on which the benchmark runs it; None for any number.

    Raises:
        ValueError: when the name is taken.
    """

    def enter(function: Callable[..., Estimate]) -> Callable[..., Estimate]:
        short = label or name
        entry = Estimator(
            name, function, targets, adds_noise, short, title or short, description, studied, slow, max_samples
        )
        ESTIMATORS.register(name, entry, defined_by=function)
        return function

    return enter


def estimators_for(target: Target) -> tuple[str, ...]:
    """Return the names of the estimators that support a target.

    Args:
        target: "input", "label" or "continuous".

    Examples:
        >>> sorted(estimators_for("continuous"))
        ['denoiser', 'infonce', 'ksg', 'nwj', 'renyi', 'sliced', 'smile']
    """
    return tuple(name for name, entry in ESTIMATORS.items() if target in entry.targets)


def limit_of(saturated: bool, undersampled: bool) -> Limit | None:
    """Return the limit that two flags of a result stand for; saturation is the more serious one."""
    return "saturated" if saturated else "sample size" if undersampled else None


def host_generator(key: Key | int) -> np.random.Generator:
    """Return a NumPy generator seeded by a JAX key, for estimators that run on the host."""
    return np.random.default_rng(np.asarray(jax.random.bits(checks.key(key), (4,))))


def estimate(name: str, t: Any, other: Any = None, *, key: Key | int, **options: Any) -> Estimate:
    """Estimate I(T; other) in nats by the estimator of that name.

    Args:
        name: name of a registered estimator.
        t: activations [n, ...], float.
        other: None for the input (then `noise_variance` is an option where the estimator needs noise), int labels [n],
            or float [n, ...].
        key: JAX random key, or a seed.
        **options: options of the estimator.

    Raises:
        InputError: for an unknown name, a target that the estimator does not support, and invalid input.

    Examples:
        >>> import jax, numpy as np
        >>> t = np.array([[1.0], [-1.0]])
        >>> round(estimate("kde_upper", t, noise_variance=1.0, key=jax.random.key(0)).value, 4)
        0.5662
    """
    estimator, target = ESTIMATORS.get_or_explain(name), target_of(other)
    if target not in estimator.targets:
        supported = ", ".join(estimator.targets)
        raise InputError(f"The estimator {name!r} has no target {target!r}; choose from {supported}.")
    return estimator.function(t, other, key=checks.key(key), **options)
