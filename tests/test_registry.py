"""Registering again: the same definition replaces an entry, another one is refused."""

import dataclasses
import sys
import types

import pytest

from mi_jax.attacks import APGD, ATTACKS, Attack, register
from mi_jax.errors import InputError
from mi_jax.registry import Registry

CELL = """
class Square:
    sides = {sides}

def area(side):
    return {sides} * side
"""


def module(name, sides, file=None):
    """A module `name`, as if its source had just been executed."""
    made = types.ModuleType(name)
    if file is not None:
        made.__file__ = file
    exec(CELL.format(sides=sides), vars(made))
    return made


@pytest.mark.parametrize("attribute", ["Square", "area"])
def test_a_notebook_cell_run_again_replaces_its_entry_and_aliases_in_place(attribute):
    shapes = Registry("shape")
    shapes.register("square", getattr(module("__main__", 3), attribute), aliases=("box",))
    shapes.register("circle", 0)
    mended = getattr(module("__main__", 4), attribute)
    shapes.register("square", mended, aliases=("quadrilateral",))
    assert shapes["square"] is shapes["quadrilateral"] is mended
    assert list(shapes) == ["square", "circle"]
    assert "box" not in shapes


def test_a_module_imported_under_two_names_replaces_its_entries(monkeypatch):
    shapes = Registry("shape")
    for name in ("shapes_of_mine", "package.shapes_of_mine"):
        loaded = module(name, 4, file="/somewhere/shapes_of_mine.py")
        monkeypatch.setitem(sys.modules, name, loaded)
        shapes.register("square", loaded.Square)
    assert shapes["square"] is loaded.Square


def test_an_entry_of_another_module_another_name_or_another_value_is_refused():
    shapes, first = Registry("shape"), module("first", 4)
    shapes.register("square", first.Square, aliases=("box",))
    shapes.register("one", 1)
    shapes.register("one", 1)
    for name, entry in (
        ("square", module("second", 4).Square),
        ("square", first.area),
        ("box", first.Square),
        ("one", 2),
    ):
        with pytest.raises(ValueError, match=f"The shape '{name}' is registered already"):
            shapes.register(name, entry)
    with pytest.raises(ValueError, match="'one' is registered already"):
        shapes.register("square", first.Square, aliases=("one",))
    assert shapes["box"] is first.Square


def test_an_attack_defined_again_replaces_itself_but_not_one_of_the_package():
    def define(steps):
        @register("stay")
        @dataclasses.dataclass(frozen=True)
        class Stay(Attack):
            steps: int = 1

        return register("stay-longer", Stay(steps=steps))

    try:
        define(2)
        longer = define(2)
        assert ATTACKS["stay-longer"] is longer
        assert type(ATTACKS["stay"]) is type(longer)
        with pytest.raises(ValueError, match="'apgd-dlr' is registered already"):
            register("apgd-dlr", APGD(loss="dlr", steps=3))
    finally:
        for name in ("stay", "stay-longer"):
            ATTACKS.unregister(name)


@pytest.mark.usefixtures("as_a_user")
def test_what_is_no_name_is_not_there():
    for name in (["pgd"], {"pgd": 1}, None, 3):
        with pytest.raises(InputError, match=r"^There is no attack .*; choose from .*pgd"):
            ATTACKS.get_or_explain(name)
