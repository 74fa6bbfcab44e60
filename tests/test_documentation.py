"""Every public name is documented: a docstring, and for a function every parameter in it."""

import dataclasses
import importlib
import inspect
import re
from typing import Any

import pytest

import mi_jax as mj

MODULES = [f"mi_jax.{name}" for name in sorted(set(mj.__all__) - {"run", "study", "checkpoints"})] + [
    "mi_jax",
    "mi_jax.cli",
    "mi_jax.data.shapetex",
    "mi_jax.information.benchmark",
    "mi_jax.information.tasks",
    "mi_jax.runs",
    "mi_jax.runs.config",
    "mi_jax.runs.restore",
]
WITH_EXAMPLES = [
    "mi_jax.run",
    "mi_jax.study",
    "mi_jax.data.load",
    "mi_jax.models.create",
    "mi_jax.attacks.pgd",
    "mi_jax.attacks.autoattack",
    "mi_jax.information.kde",
    "mi_jax.information.monte_carlo",
    "mi_jax.information.binning",
    "mi_jax.information.noise_variance",
    "mi_jax.distortions.saturate",
    "mi_jax.distortions.patch_shuffle",
    "mi_jax.distortions.low_pass",
    "mi_jax.distortions.high_pass",
    "mi_jax.records.load",
    "mi_jax.runs.restore.restore",
]


def public(module: str) -> dict[str, Any]:
    """The public functions and classes of a module, by dotted name."""
    found = importlib.import_module(module)
    names = getattr(found, "__all__", [n for n, v in vars(found).items() if getattr(v, "__module__", "") == module])
    objects = {f"{module}.{name}": getattr(found, name) for name in names if not name.startswith("_")}
    return {name: it for name, it in objects.items() if inspect.isclass(it) or inspect.isfunction(inspect.unwrap(it))}


def undocumented(name: str, it: Any) -> list[str]:
    """What is missing in the docstring of a public function or class."""
    doc = it.__doc__ or ""
    if not doc.strip() or (dataclasses.is_dataclass(it) and doc.startswith(f"{getattr(it, '__name__', '')}(")):
        return [f"{name}: no docstring"]
    if inspect.isclass(it):
        return []
    parameters = [p for p in inspect.signature(it).parameters if p not in ("self", "_")]
    return [f"{name}: {p} is not in its docstring" for p in parameters if not re.search(rf"\b{p}\b", doc)]


@pytest.mark.parametrize("module", MODULES)
def test_public_names_have_docstrings_that_name_their_parameters(module):
    assert [line for name, it in public(module).items() for line in undocumented(name, it)] == []


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_functions_of_the_public_surface_have_an_example(name):
    module, _, function = name.rpartition(".")
    assert ">>> " in (getattr(importlib.import_module(module), function).__doc__ or "")


@pytest.mark.parametrize("name", [name for name in WITH_EXAMPLES if name != "mi_jax.study"])
def test_the_help_of_a_public_function_begins_with_a_signature_that_fits_a_screen(name):
    module, _, function = name.rpartition(".")
    signature = str(inspect.signature(getattr(importlib.import_module(module), function)))
    assert len(signature) <= 1500, signature
