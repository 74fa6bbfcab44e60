"""Lists in configurations: tuples in Python, lists in JSON, and one argument with commas on a command line."""

from collections.abc import Callable, Collection
from typing import Annotated, Any, Literal

from tyro.constructors import PrimitiveConstructorSpec

from mi_jax.errors import InputError


def split_commas(text: str) -> tuple[str, ...]:
    """The parts between commas, without blanks; none for an empty text or for `none`.

    Examples:
        >>> split_commas("nt, at"), split_commas("none")
        (('nt', 'at'), ())
    """
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    return () if parts == ("none",) else parts


def _one_argument(metavar: str, read: Callable[[str], Any], write: Callable[[Any], str]) -> PrimitiveConstructorSpec:
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda arguments: read(arguments[0]),
        is_instance=lambda value: isinstance(value, tuple | str),
        str_from_instance=lambda value: [write(value)],
    )


def _epochs(text: str) -> Any:
    return "auto" if text == "auto" else tuple(int(part) for part in split_commas(text))


Names = Annotated[
    tuple[str, ...], _one_argument("NAME[,NAME...]", split_commas, lambda names: ",".join(names) or "none")
]
"""Names, which a command line takes as one argument with commas."""
Epochs = Annotated[
    Literal["auto"] | tuple[int, ...],
    _one_argument("auto|EPOCH[,EPOCH...]", _epochs, lambda e: e if isinstance(e, str) else ",".join(map(str, e))),
]
"""Numbers of epochs, which a command line takes as one argument with commas; or `auto`."""


def check_names(name: str, value: tuple[str, ...], choices: Collection[str]) -> None:
    """Checks that names are among the choices, each at most once.

    Raises:
        InputError: otherwise.

    Examples:
        >>> check_names("trainings", ("nt", "ta"), ("nt", "at"))
        Traceback (most recent call last):
        mi_jax.errors.InputError: Invalid trainings 'nt,ta': expected some of nt, at.
    """
    given = ",".join(value)
    if not set(value) <= set(choices):
        raise InputError(f"Invalid {name} {given!r}: expected some of {', '.join(choices)}.")
    if len(set(value)) != len(value):
        raise InputError(f"Invalid {name} {given!r}: expected each name once.")
