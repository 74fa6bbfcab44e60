"""The JSON form of frozen dataclasses that hold configurations."""

import contextlib
import dataclasses
import types
import typing
from typing import Any, Literal, TypeVar, Union

from mi_jax.errors import InputError
from mi_jax.options import split_commas

C = TypeVar("C")


def to_dict(config: Any) -> dict[str, Any]:
    """The JSON-ready nested dict of a frozen dataclass; tuples become lists, numbers of NumPy and JAX those of Python.

    Args:
        config: an instance of a dataclass whose fields are numbers, strings, booleans, None, tuples of these,
            or further such dataclasses.

    Raises:
        InputError: for a field that is none of these.

    Examples:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Step:
        ...     size: float = 0.5
        >>> to_dict(Step())
        {'size': 0.5}
    """
    return _encode(config, "")


def from_dict(cls: type[C], data: Any, *, where: str = "") -> C:
    """The instance of dataclass `cls` that `data` (as made by `to_dict`) describes. Absent keys take their default.

    Keys that a class had before, in its class attribute `RENAMED` (old name to new), and text with commas in place of
    a list are read, too.

    Raises:
        InputError: on an unknown key, a missing one without a default, or a value of another type.
    """
    name = where or cls.__name__
    if not isinstance(data, dict):
        raise InputError(f"{name} is {data!r}; expected an object with the fields of {cls.__name__}.")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
    renamed = getattr(cls, "RENAMED", {})
    data = {renamed.get(key, key): value for key, value in data.items()}
    unknown = sorted(set(data) - set(fields))
    if unknown:
        known = f"its keys are {', '.join(fields)}"
        if len(unknown) > max(1, len(data) // 2):
            raise InputError(f"{name} is of another command, as it has the key {unknown[0]!r}; {known}.")
        raise InputError(f"{name} has the unknown key {unknown[0]!r}; {known}.")
    hints = typing.get_type_hints(cls)
    values = {key: _decode(hints[key], value, f"{name}.{key}") for key, value in data.items()}
    missing = [
        f.name
        for f in fields.values()
        if f.name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InputError(f"{name} lacks the key {missing[0]!r}.")
    return cls(**values)


def _encode(value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: _encode(getattr(value, name), f"{where}.{name}" if where else name) for name in names}
    if isinstance(value, list | tuple):
        return [_encode(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, dict):
        return {key: _encode(v, f"{where}.{key}") for key, v in value.items()}
    if hasattr(value, "dtype") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is not None and not isinstance(value, bool | int | float | str):
        raise InputError(f"{where} is {value!r}; expected a number, text, True, False, None, or a tuple of these.")
    return value


def _decode(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _decode(arguments[0], value, where)
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where=where)  # pyright: ignore[reportArgumentType]
    if origin in (Union, types.UnionType):
        return _decode_union(arguments, value, where)
    if origin is Literal:
        if value in arguments:
            return value
    elif origin is tuple and isinstance(value, str) and arguments[-1] is Ellipsis:
        return _decode_text(arguments[0], value, where)
    elif origin is tuple and isinstance(value, list | tuple):
        inner = [arguments[0]] * len(value) if len(arguments) == 2 and arguments[1] is Ellipsis else arguments
        if len(inner) == len(value):
            return tuple(_decode(h, v, f"{where}[{i}]") for i, (h, v) in enumerate(zip(inner, value, strict=True)))
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
    elif hint in (int, bool, str) and type(value) is hint:
        return value
    elif hint is type(None) and value is None:
        return None
    raise InputError(f"{where} is {value!r}; expected {_type_name(hint)}.")


def _decode_text(hint: Any, text: str, where: str) -> tuple[Any, ...]:
    """Text with commas, as configurations held it in place of a list."""
    try:
        return tuple(hint(part) for part in split_commas(text))
    except ValueError:
        raise InputError(f"{where} is {text!r}; expected a list of {_type_name(hint)}.") from None


def _decode_union(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    for hint in arguments:
        try:
            return _decode(hint, value, where)
        except InputError:
            continue
    raise InputError(f"{where} is {value!r}; expected {' or '.join(map(_type_name, arguments))}.")


def _type_name(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    return "null" if hint is type(None) else getattr(hint, "__name__", str(hint))
