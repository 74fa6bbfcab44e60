"""The notebook runs from the first cell to the last on a run directory, and says what the run says."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

import mi_jax as mj

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "quickstart.ipynb"


def test_the_quickstart_notebook_runs_on_a_run_directory(finished_run, monkeypatch):
    monkeypatch.setenv("MI_JAX_RUN", str(finished_run))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(cell.get("outputs", []) == [] for cell in notebook.cells), "commit the notebook without outputs"
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    text = str([cell.get("outputs") for cell in notebook.cells])
    for layer in mj.checkpoints.restore(finished_run, training="at").network.layers:
        assert layer in text
    assert "robust accuracy" in text
