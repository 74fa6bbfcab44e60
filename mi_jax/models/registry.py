"""The names of the architectures. Holds no architecture: each file in `architectures` enters its own here."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from flax import nnx

from mi_jax.errors import InputError
from mi_jax.models.layers import NormalStream


@dataclass(frozen=True)
class ModelSpec:
    """What a builder is told: the number of logits, the shape of an image, and the multiplier of the widths."""

    num_classes: int
    input_shape: tuple[int, int, int]
    width: float


Builder = Callable[[ModelSpec, NormalStream], nnx.Module]
_BUILDERS: dict[str, Builder] = {}
_ALIASES: dict[str, str] = {}


def register(name: str, *aliases: str) -> Callable[[Builder], Builder]:
    """Enters a builder under a name: `@register("lenet")` above `def build(description, draws) -> nnx.Module`."""

    def enter(build: Builder) -> Builder:
        _BUILDERS[name] = build
        _ALIASES.update(dict.fromkeys(aliases, name))
        return build

    return enter


@cache
def architectures() -> tuple[str, ...]:
    """The names that `create` takes, aliases left out."""
    package = importlib.import_module("mi_jax.models.architectures")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return tuple(_BUILDERS)


def resolve(arch: str) -> str:
    """The name behind a name or alias. Raises InputError for an unknown one."""
    known = architectures()
    name = _ALIASES.get(arch, arch)
    if name not in known:
        raise InputError(f"unknown architecture {arch!r}; choose from {', '.join([*known, *_ALIASES])}.")
    return name


def build(arch: str, description: ModelSpec, draws: NormalStream) -> nnx.Module:
    """The module of an architecture: called with normalised images and a `ForwardContext`, it gives logits and taps its layers.

    Raises InputError for an unknown name, or a width that leaves nothing.
    """
    return _BUILDERS[resolve(arch)](description, draws)
