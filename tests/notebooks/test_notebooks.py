"""The notebooks run from the first cell to the last, and say what the run and the theory say."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import mi_jax as mj

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def outputs(name: str) -> str:
    """What the cells of a notebook print and show."""
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(FOLDER)}}).execute()
    return str([cell.get("outputs") for cell in notebook.cells])


@pytest.fixture
def on_a_finished_run(finished_run, monkeypatch):
    monkeypatch.setenv("MI_JAX_RUN", str(finished_run))


@pytest.fixture(autouse=True)
def without_a_display(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_are_committed_without_outputs(name):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    assert all(cell.get("outputs", []) == [] for cell in notebook.cells)


def test_the_quickstart_shows_every_layer_and_the_robust_accuracy(finished_run, on_a_finished_run):
    text = outputs("quickstart")
    for layer in mj.checkpoints.restore(finished_run, training="at").network.layers:
        assert layer in text
    assert "robust accuracy" in text
    assert "apgd-ce" in text or "autoattack" in text, "each attack is named"


def test_the_attacks_grow_stronger_with_effort(on_a_finished_run):
    text = outputs("attacks")
    assert "(20, 5):" in text
    assert "robust accuracy" in text


def test_the_estimators_name_the_true_information():
    assert "I(T; Y) = 0.623 bits" in outputs("estimators")


def test_ones_own_networks_are_measured_attacked_and_tabulated(on_a_finished_run):
    text = outputs("own_network")
    for shown in ("conv1", "hidden", "i_ty_certified_upper", "robust accuracy", "adversarial"):
        assert shown in text, shown
