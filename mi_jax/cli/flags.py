"""Reads flags into configurations: every field of a frozen dataclass is a flag, and its docstring the help.

On top of what tyro does: comma-separated lists for `tuple[X, ...]`, fractions such as 8/255 for numbers, names in any
case, and `--flag=value` for every flag.
"""

import dataclasses
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

C = TypeVar("C")
REGISTRY = ConstructorRegistry()
_FRACTION = re.compile(r"([-+]?\d+(?:\.\d+)?)/([1-9]\d*)")


def parse(
    command: type[C],
    arguments: Sequence[str],
    *,
    program: str,
    default: C | None = None,
    description: str | None = None,
) -> C:
    """Flags as an instance of the dataclass `command`; prints help, or what is wrong, and exits where needed.

    Args:
        command: a dataclass with a docstring; nested dataclasses become dotted flags.
        arguments: the flags, without the program's name.
        program: the program's name in the usage line.
        default: values of the flags that are not given.
        description: shown above the options in place of the docstring's first paragraph.
    """
    given = list(corrected(arguments))
    options: dict[str, Any] = {} if default is None else {"default": default}
    return tyro.cli(
        command, args=given, prog=program, description=description, registry=REGISTRY, compact_help=False, **options
    )


def corrected(arguments: Iterable[str], known: Mapping[str, Callable[[str], bool]] | None = None) -> Iterator[str]:
    """Flags and values apart, negative fractions as decimals, and names in lower case where only that is known.

    Args:
        arguments: the flags, without the program's name.
        known: for a flag that takes names, whether a name is one of them.
    """
    flag = ""
    for argument in separated(arguments):
        if argument.startswith("--"):
            flag = argument.replace("_", "-")
            yield argument
        elif known and flag in known:
            is_known, parts = known[flag], [part.strip() for part in argument.split(",")]
            yield ",".join(part.lower() if is_known(part.lower()) else part for part in parts)
        else:
            yield repr(number(argument)) if argument.startswith("-") and _FRACTION.fullmatch(argument) else argument


def separated(arguments: Iterable[str]) -> Iterator[str]:
    """`--flag=value` as two arguments, so that a misspelt flag is recognised as one."""
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if equals and flag.startswith("--"):
            yield from (flag, value)
        else:
            yield argument


def number(text: str) -> float:
    """A decimal number or a fraction of whole ones.

    Examples:
        >>> number("8/255") == 8 / 255, number("1e-3")
        (True, 0.001)
    """
    fraction = _FRACTION.fullmatch(text)
    try:
        return float(fraction[1]) / float(fraction[2]) if fraction else float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number; expected one such as 0.5 or 8/255") from None


def number_text(value: float) -> str:
    """A number as a person would write it: as a number of 255ths where it is one and has many decimals.

    Examples:
        >>> number_text(8 / 255), number_text(0.25), number_text(4 / 510)
        ('8/255', '0.25', '2/255')
    """
    levels = value * 255
    if len(repr(value)) > 8 and abs(levels - round(levels)) < 1e-9:
        return f"{round(levels)}/255"
    return repr(value)


@REGISTRY.primitive_rule
def _numbers(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    if info.type is not float:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="FLOAT",
        instance_from_str=lambda texts: number(texts[0]),
        is_instance=lambda value: isinstance(value, float) or ("~" if isinstance(value, int) else False),
        str_from_instance=lambda value: [number_text(float(value))],
    )


@REGISTRY.primitive_rule
def _paths(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """A path that is not empty, which would be the current directory, with `~` replaced by the home directory."""
    if info.type is not Path:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda texts: _path(texts[0]),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda value: [str(value)],
    )


def _path(text: str) -> Path:
    if not text:
        raise ValueError("expected a path; for the current directory give .")
    try:  # shells leave the ~ of --flag=~/path to the program
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError("it begins with the home directory of an unknown user; give the full path") from None


@REGISTRY.primitive_rule
def _lists(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """`tuple[X, ...]` as one argument, separated by commas."""
    if info.type_origin is not tuple or typing.get_args(info.type)[1:] != (Ellipsis,):
        return None
    kind = typing.get_args(info.type)[0]
    if typing.get_origin(kind) is Literal:
        known = tuple(map(str, typing.get_args(kind)))
        read: Callable[[str], Any] = lambda text: _choice(text, known)  # noqa: E731
    elif kind in (int, float, str):
        read = number if kind is float else kind
    else:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="A,B,...",
        instance_from_str=lambda texts: tuple(read(part.strip()) for part in texts[0].split(",") if part.strip()),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(map(str, value))],
    )


@REGISTRY.primitive_rule
def _names(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """A `Literal` of strings, in any case."""
    known = typing.get_args(info.type)
    if info.type_origin is not Literal or not all(isinstance(name, str) for name in known):
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + ",".join(known) + "}",
        instance_from_str=lambda texts: _choice(texts[0], known),
        is_instance=lambda value: value in known,
        str_from_instance=lambda value: [value],
    )


def _choice(text: str, known: Sequence[str]) -> str:
    for name in known:
        if name.lower() == text.lower():
            return name
    raise ValueError(f"expected one of {', '.join(known)}")


def in_flags(message: str, command: type) -> str:
    """A message of the library with the fields that it names written as the flags of a command.

    Examples:
        >>> @dataclasses.dataclass
        ... class Command:
        ...     batch_size: int = 1
        ...     overwrite: bool = False
        >>> in_flags("batch_size is 0; pass overwrite=True.", Command)
        '--batch-size is 0; pass --overwrite.'
    """
    names = sorted(_field_names(command), key=len, reverse=True)
    for name in names:
        distinct = "_" in name or "." in name
        pattern = rf"(?<![\w./-]){re.escape(name)}" + (r"(?:=True)?(?![\w/.-]*[\w/-])" if distinct else "=True")
        message = re.sub(pattern, "--" + name.replace("_", "-"), message)
    return message


def _field_names(command: type, prefix: str = "") -> Iterator[str]:
    hints = typing.get_type_hints(command, include_extras=True)
    for field in dataclasses.fields(command):
        hint, name = hints[field.name], field.name
        for extra in getattr(hint, "__metadata__", ()):
            name = getattr(extra, "name", None) if getattr(extra, "name", None) is not None else name
        kind = typing.get_args(hint)[0] if hasattr(hint, "__metadata__") else hint
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            yield from _field_names(kind, f"{prefix}{name}." if name else prefix)
        elif isinstance(name, str):
            yield prefix + name
