"""The JSON form of configurations: nothing is lost on the way, nothing unknown is accepted."""

import dataclasses
import json
from pathlib import Path
from typing import ClassVar, Literal

import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax.errors import InputError
from mi_jax.runs import json_codec


@dataclasses.dataclass(frozen=True)
class Inner:
    norm: Literal["linf", "l2"] = "linf"
    eps: float = 8 / 255


@dataclasses.dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = Inner()
    levels: tuple[float, ...] = (1.0, 2.0)
    shape: tuple[int, int] = (3, 4)
    limit: int | None = None
    on: bool = False


def test_round_trip_through_json_is_the_identity_and_hashable():
    outer = Outer("a", Inner("l2", 0.1), (0.5,), (1, 2), 7, True)
    again = json_codec.from_dict(Outer, json.loads(json.dumps(json_codec.to_dict(outer))))
    assert again == outer
    assert hash(again) == hash(outer)


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), np.array(0.5), jnp.float32(0.5)])
def test_numbers_of_numpy_and_jax_are_written_as_pythons(number):
    outer = Outer("a", Inner(eps=number), (number,), (np.int64(1), np.int32(2)), np.int64(3), np.bool_(True))  # pyright: ignore[reportArgumentType]
    written = json_codec.to_dict(outer)
    assert json.loads(json.dumps(written)) == written
    assert json_codec.from_dict(Outer, written) == Outer("a", Inner(eps=0.5), (0.5,), (1, 2), 3, True)


@pytest.mark.parametrize("value", [{1}, np.zeros(2), Path("a")])
def test_what_json_cannot_hold_is_refused_by_name(value):
    with pytest.raises(InputError, match=r"^inner\.eps is .*; expected a number, text, True, False, None, or a tuple"):
        json_codec.to_dict(Outer("a", Inner(eps=value)))


def test_absent_keys_take_their_default_and_integers_become_floats():
    read = json_codec.from_dict(Outer, {"name": "b", "inner": {"eps": 1}, "levels": [2]})
    assert read == Outer("b", Inner(eps=1.0), (2.0,))
    assert isinstance(read.inner.eps, float)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"name": "a", "epss": 1}, r"Outer has the unknown key 'epss'; its keys are name, inner"),
        ({"rho": 1, "noise": 2}, r"Outer is of another command, as it has the key 'noise'; its keys are name, inner"),
        ({"name": "a", "inner": {"epz": 1}}, r"Outer\.inner has the unknown key 'epz'"),
        ({"inner": {}}, r"Outer lacks the key 'name'"),
        ({"name": "a", "inner": {"norm": "l1"}}, r"Outer\.inner\.norm is 'l1'; expected one of 'linf', 'l2'"),
        ({"name": "a", "limit": "many"}, r"Outer\.limit is 'many'; expected int or null"),
        ({"name": "a", "levels": [1, "x"]}, r"Outer\.levels\[1\] is 'x'; expected float"),
        ({"name": "a", "shape": [1]}, r"Outer\.shape is \[1\]"),
        ({"name": "a", "on": 1}, r"Outer\.on is 1; expected bool"),
        ({"name": "a", "levels": [10**400]}, r"Outer\.levels\[0\] is 10+; expected float"),
        ({"name": "a", "limit": True}, r"Outer\.limit is True"),
        (["a"], r"Outer is \['a'\]; expected an object"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(data, sentence):
    with pytest.raises(InputError, match=sentence):
        json_codec.from_dict(Outer, data)


@dataclasses.dataclass(frozen=True)
class Renamed:
    RENAMED: ClassVar = {"rulers": "noise"}

    noise: tuple[str, ...] = ()
    epochs: Literal["auto"] | tuple[int, ...] = "auto"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"rulers": "fixed, trace", "epochs": "1,5"}, Renamed(("fixed", "trace"), (1, 5))),
        ({"noise": "none"}, Renamed()),
        ({"noise": [], "epochs": [3]}, Renamed((), (3,))),
    ],
)
def test_old_names_and_lists_written_as_text_are_read(data, expected):
    assert json_codec.from_dict(Renamed, data) == expected
