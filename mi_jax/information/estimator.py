"""What every estimator of the panel is: a function (t, other) -> `Estimate`, found by name in one registry.

No estimator is defined here. To add one, put a file with a `@register`ed function into `panel/`; nothing else changes.
"""

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import jax
import numpy as np

from mi_jax.errors import InputError
from mi_jax.information._input import as_array

Target = Literal["input", "label", "continuous"]
"""What T shares information with: the input (uniform over the rows), an int label, or another float array."""
Kind = Literal["value", "lower", "upper", "heuristic"]
"""Whether the number estimates the information, bounds it on the population or the rows, or is another functional."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """One number in nats, with all that is needed to judge it."""

    estimator: str
    value: float
    stderr: float | None
    """Standard error, None where the estimator has none to offer."""
    kind: Kind
    n: int
    """Samples the value was computed from."""
    settings: Mapping[str, Any]
    details: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """By-products: cross-entropy, accuracy, saturation, ..."""


class EstimatorFunction(Protocol):
    """I(t; other): other is None for the input, int [n] for labels, float [n, ...] for a continuous variable."""

    def __call__(self, t: Any, other: Any = None, *, key: jax.Array, **options: Any) -> Estimate: ...  # noqa: D102


@dataclasses.dataclass(frozen=True)
class Estimator:
    """An entry of the registry."""

    name: str
    function: Callable[..., Estimate]
    targets: tuple[Target, ...]


_REGISTRY: dict[str, Estimator] = {}


def register(name: str, *, targets: tuple[Target, ...]) -> Callable[[Callable[..., Estimate]], Callable[..., Estimate]]:
    """Enter a function into the registry under a name that is not taken."""

    def enter(function: Callable[..., Estimate]) -> Callable[..., Estimate]:
        if name in _REGISTRY:
            raise ValueError(f"an estimator named {name!r} exists already")
        _REGISTRY[name] = Estimator(name, function, targets)
        return function

    return enter


def estimators(target: Target | None = None) -> dict[str, Estimator]:
    """Return all estimators by name, or those for one target.

    Examples:
      >>> sorted(estimators("continuous"))
      ['infonce', 'ksg', 'nwj', 'renyi', 'sliced', 'smile']
    """
    package = importlib.import_module("mi_jax.information.estimators")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return {name: entry for name, entry in _REGISTRY.items() if target is None or target in entry.targets}


def target_of(other: Any) -> Target:
    """Tell what an argument `other` stands for: None, integers or floats."""
    if other is None:
        return "input"
    return "label" if np.issubdtype(as_array(other).dtype, np.integer) else "continuous"


def host_generator(key: jax.Array) -> np.random.Generator:
    """Return a NumPy generator seeded by a JAX key, for estimators that work on the host."""
    return np.random.default_rng(np.asarray(jax.random.bits(key, (4,))))


def estimate(name: str, t: Any, other: Any = None, *, key: jax.Array, **options: Any) -> Estimate:
    """Estimate I(T; other) in nats by the estimator of that name.

    t: [n, ...] float. other: None for the input (then `noise_variance` is an option where the estimator needs noise),
    int labels [n], or float [n, ...]. Raises InputError for an unknown name and for a target the estimator lacks.
    """
    known = estimators()
    if name not in known:
        raise InputError(f"there is no estimator {name!r}: choose one of {', '.join(sorted(known))}.")
    target = target_of(other)
    if target not in known[name].targets:
        raise InputError(f"{name} has no target {target!r}: it knows {', '.join(known[name].targets)}.")
    return known[name].function(t, other, key=key, **options)
