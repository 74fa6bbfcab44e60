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


def test_the_notebooks_show_what_they_are_about(outputs, finished_run):
    """One test, so that one process starts one kernel."""
    quickstart = outputs("quickstart")
    for layer in mj.checkpoints.restore(finished_run, training="at").network.layers:
        assert layer in quickstart
    assert "robust accuracy" in quickstart
    assert "apgd-ce" in quickstart or "autoattack" in quickstart, "each attack is named"

    attacks = outputs("attacks")
    assert "(20, 5):" in attacks, "the attacks grow stronger with effort"
    assert "robust accuracy" in attacks

    assert "I(T; Y) = 0.623 bits" in outputs("estimators")

    own = outputs("own_network")
    for shown in ("conv1", "hidden", "i_ty_certified_upper", "robust accuracy", "adversarial"):
        assert shown in own, shown

    results = outputs("results")
    for path in (FOLDER.parent / "experiments" / "results").glob("*/config.json"):
        assert path.parent.name in results
    for number in ("1", "2a", "2b", "3", "4"):
        assert f">{number}</th>" in results, number
