"""The notebooks run from the first cell to the last, and say what the run and the theory say."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

import mi_jax as mj

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


@pytest.fixture(scope="module")
def outputs(finished_run) -> Iterator[Callable[[str], str]]:
    """`outputs(name)`: what the cells of a notebook print and show, in one kernel that forgets all names in between."""
    kernel = KernelManager(kernel_name="python3")
    environment = {**os.environ, "MPLBACKEND": "Agg", "MI_JAX_RUN": str(finished_run)}
    kernel.start_kernel(cwd=str(FOLDER), env=environment)

    def run(name: str) -> str:
        notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
        notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
        NotebookClient(notebook, km=kernel, timeout=240).execute()
        return str([cell.get("outputs") for cell in notebook.cells])

    yield run
    kernel.shutdown_kernel(now=True)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_are_committed_without_outputs(name):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    assert all(cell.get("outputs", []) == [] for cell in notebook.cells)


def test_the_quickstart_shows_every_layer_and_the_robust_accuracy(outputs, finished_run):
    text = outputs("quickstart")
    for layer in mj.checkpoints.restore(finished_run, training="at").network.layers:
        assert layer in text
    assert "robust accuracy" in text
    assert "apgd-ce" in text or "autoattack" in text, "each attack is named"


def test_the_attacks_grow_stronger_with_effort(outputs):
    text = outputs("attacks")
    assert "(20, 5):" in text
    assert "robust accuracy" in text


def test_the_estimators_name_the_true_information(outputs):
    assert "I(T; Y) = 0.623 bits" in outputs("estimators")


def test_ones_own_networks_are_measured_attacked_and_tabulated(outputs):
    text = outputs("own_network")
    for shown in ("conv1", "hidden", "i_ty_certified_upper", "robust accuracy", "adversarial"):
        assert shown in text, shown


def test_the_results_show_every_committed_run_and_claim(outputs):
    text = outputs("results")
    for path in (FOLDER.parent / "experiments" / "results").glob("*/config.json"):
        assert path.parent.name in text
    for number in ("1", "2a", "2b", "3", "4"):
        assert f">{number}</th>" in text, number
