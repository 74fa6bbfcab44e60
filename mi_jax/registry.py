"""Entries by name: how architectures, attacks, estimators, objectives, studies and figures are found."""

import difflib
import functools
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from mi_jax.errors import InputError

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Entries by name, in the order in which they were registered; a mapping for everyone who only reads.

    Args:
        kind: what an entry is, in one word for messages: `estimator`, `study`, ...
        package: dotted name of the package whose modules register entries; they are imported on the first look-up.

    Examples:
        >>> colours = Registry("colour")
        >>> colours.register("red", "#f00", aliases=("crimson",))
        '#f00'
        >>> colours["crimson"], list(colours)
        ('#f00', ['red'])
        >>> colours.get_or_explain("blue")
        Traceback (most recent call last):
        mi_jax.errors.InputError: There is no colour 'blue'; choose from red.
    """

    def __init__(self, kind: str, *, package: str | None = None):
        self.kind = kind
        self._package = package
        self._entries: dict[str, T] = {}
        self._aliases: dict[str, str] = {}
        self._definitions: dict[str, tuple[str, ...]] = {}

    def register(self, name: str, entry: T, *, aliases: tuple[str, ...] = (), defined_by: Any = None) -> T:
        """Adds an entry and returns it; one of the same definition, as from a notebook cell run again, is replaced.

        Args:
            name: under which the entry is found.
            entry: what is found.
            aliases: other names of it.
            defined_by: the function or class that identifies a definition, by its module and qualified name, where the
                entry is an instance of a class that others use too; by default the entry.

        Raises:
            ValueError: when the name or an alias belongs to another definition.
        """
        definition = _definition(entry if defined_by is None else defined_by)
        same = self._definitions.get(name) == definition
        others = {alias: target for alias, target in self._aliases.items() if not (same and target == name)}
        for taken in (name, *aliases):
            if taken in others or (taken in self._entries and not (same and taken == name)):
                raise ValueError(f"The {self.kind} {taken!r} is registered already.")
        self._entries[name], self._definitions[name] = entry, definition
        self._aliases = others | dict.fromkeys(aliases, name)
        return entry

    def unregister(self, name: str) -> None:
        """Removes an entry and its aliases."""
        resolved = self.resolve(name)
        del self._entries[resolved], self._definitions[resolved]
        self._aliases = {alias: target for alias, target in self._aliases.items() if target != resolved}

    def registering(self, name: str, *, aliases: tuple[str, ...] = ()) -> Callable[[Any], Any]:
        """A decorator that registers what it decorates.

        Args:
            name: under which the entry is found.
            aliases: other names of it.

        Returns:
            The decorator, which returns what it is given.

        Raises:
            ValueError: when the name or an alias belongs to another definition.
        """

        def enter(entry: Any) -> Any:
            return self.register(name, entry, aliases=aliases)

        return enter

    def get_or_explain(self, name: str) -> T:
        """The entry of that name or alias, which may be in another case.

        Raises:
            InputError: when there is none; names the choices.
        """
        resolved = self.resolve(name)
        return self._entries[resolved]

    def resolve(self, name: str) -> str:
        """The name behind a name or alias, which may be in another case.

        Raises:
            InputError: when there is none; names the choices.
        """
        self._discover()
        name = name if isinstance(name, str) else str(name)  # no other is known, and a list cannot be looked up
        known = {known.lower(): known for known in (*self._aliases, *self._entries)}
        if name not in self._entries and name not in self._aliases:
            name = known.get(name.lower(), name)
        resolved = self._aliases.get(name, name)
        if resolved not in self._entries:
            near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.75)
            meant = f" Did you mean {known[near[0]]}?" if near else ""
            raise InputError(f"There is no {self.kind} {name!r}; choose from {', '.join(self._entries)}.{meant}")
        return resolved

    def __getitem__(self, name: str) -> T:
        self._discover()
        return self._entries[self._aliases.get(name, name)]

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter(self._entries)

    def __len__(self) -> int:
        self._discover()
        return len(self._entries)

    def _discover(self) -> None:
        """Imports the modules of the package once, in alphabetical order."""
        if self._package is not None:
            package, self._package = importlib.import_module(self._package), None
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{package.__name__}.{module.name}")


def _definition(entry: Any) -> tuple[str, ...]:
    """The file (or the module, where it has none) and the qualified name of a class or function.

    An instance is described by its class and its text.
    """
    if isinstance(entry, functools.partial):
        entry = entry.func
    if not hasattr(entry, "__qualname__"):
        return (*_definition(type(entry)), repr(entry))
    file = getattr(sys.modules.get(entry.__module__), "__file__", None)
    return file or entry.__module__, entry.__qualname__
