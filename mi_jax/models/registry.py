"""The names of the architectures. Holds no architecture: each file in `architectures` enters its own here."""

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import Protocol

import jax
from flax import nnx

from mi_jax.errors import InputError
from mi_jax.models.layers import Draws, Pass


class Description(Protocol):
    """What a builder may ask of the network that it builds."""

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        ...

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        ...

    @property
    def width(self) -> float:
        """Multiplier of every layer's width."""
        ...


class Architecture(Protocol):
    """A built network: maps normalised images `[b h w c]` to logits and taps its layers on the way."""

    def __call__(self, x: jax.Array, run: Pass) -> jax.Array:
        """Logits `[b num_classes]`; the last tap is `logits`."""
        ...


Builder = Callable[[Description, Draws], nnx.Module]
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


def builder(arch: str) -> Builder:
    """The function that builds an architecture. Raises InputError for an unknown one."""
    return _BUILDERS[resolve(arch)]
