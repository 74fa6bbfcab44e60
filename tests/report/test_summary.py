"""The summary of several runs: verdicts and numbers are those of each run's own report."""

import re
from pathlib import Path

import pytest

from mi_jax import report
from mi_jax.claims import evaluate
from mi_jax.errors import InputError
from mi_jax.records.run_records import read
from mi_jax.report import summary, tables
from tests.report.conftest import FINAL, write_run


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return write_run(folder / "wide"), write_run(folder / "short", epochs=(0, 1, 3), layers=3)


@pytest.fixture(scope="module")
def page(two_runs, tmp_path_factory):
    """Where the summary of both runs is."""
    return report.summarise(two_runs, tmp_path_factory.mktemp("summary") / "all.md")


def table_below(page, heading):
    """The first table after a heading, as lists of cells."""
    lines = page.split(heading, 1)[1].splitlines()
    rows = [line for line in lines if line.startswith("|")]
    end = next(
        (i for i, line in enumerate(lines) if rows and i > lines.index(rows[0]) and not line.startswith("|")), None
    )
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[lines.index(rows[0]) : end]]


def test_the_verdicts_are_those_of_the_runs(two_runs, page):
    heads, _, *rows = table_below(page.read_text(), "# What the runs say")
    assert heads == ["claim", "wide", "short"]
    for run_dir, column in zip(two_runs, (1, 2), strict=True):
        run = read(run_dir)
        expected = {f"{c.number} {c.name}": c.combined(run.noise_rules) for c in evaluate(run)}
        shown = {row[0]: re.match(r"\*\*(\w+)", row[column])[1] for row in rows}
        assert shown == expected
    assert len(set(shown.values())) > 1


def test_accuracies_and_sizes_are_named(page):
    text = page.read_text()
    clean = [row for row in table_below(text, "## Test accuracy") if row[2] == "clean"]
    assert {row[3] for row in clean} == {"1,000"}
    cells = {tuple(row[:2]): row[4] for row in clean}
    for key, training in (("NT", "nt"), ("AT", "adversarial")):
        assert float(cells["wide", key].split(" %")[0]) == pytest.approx(100 * FINAL[training][None], abs=1)
    facts = {row[0]: row[1:] for row in table_below(text, "## Runs")}
    assert facts["Epochs"] == ["10", "3"]
    assert "| I(X;T), KDE upper bound | fixed noise rule |" in text
    assert {file.name for file in page.parent.iterdir()} == {"all.md", "all.png", "all.svg"}


def test_what_cannot_be_summarised_is_refused(two_runs, tmp_path):
    with pytest.raises(InputError, match=r"ends in \.md, not all\.txt"):
        report.summarise(two_runs, tmp_path / "all.txt")
    with pytest.raises(InputError, match="have the same name; rename one"):
        report.summarise([two_runs[0], two_runs[0]], tmp_path / "all.md")
    with pytest.raises(InputError, match="No run directory was given"):
        report.summarise([], tmp_path / "all.md")
    assert not list(tmp_path.iterdir())


def test_the_committed_summary_is_what_the_committed_records_give(tmp_path):
    results = Path(__file__).parents[2] / "experiments" / "results"
    runs = sorted(path.parent for path in results.glob("*/config.json"))
    page = report.summarise(runs, tmp_path / "README.md")
    assert page.read_text() == (results / "README.md").read_text()
    assert {file.name for file in results.glob("*.png") if file.stat().st_size > 200_000} == set()
    assert sum(file.stat().st_size for file in results.rglob("records.json.xz")) < 2_000_000


def test_runs_of_other_trainings_are_not_said_to_be_about_the_first(two_runs, tmp_path):
    other = write_run(tmp_path / "other", trainings=("nt", "trades"), epochs=(0, 1, 3), layers=3)
    text = report.summarise([two_runs[0], other], tmp_path / "all.md").read_text()
    _, _, *rows = table_below(text, "# What the runs say")
    assert "2b AT is harder to train / TRADES is harder to train" in [row[0] for row in rows]
    assert "TRADES minus NT at the last epoch" in text


def test_the_figure_is_found_whatever_its_name(two_runs, tmp_path):
    text = report.summarise(two_runs, tmp_path / "all runs.md").read_text()
    assert "](all%20runs.png)" in text


def test_more_runs_than_colours_are_told_apart(two_runs):
    (claims,) = tables.claims(read(two_runs[0])).values()
    figure = summary._forest({f"run {i}": claims for i in range(9)})
    looks = [(handle.get_color(), handle.get_marker()) for handle in figure.legends[0].legend_handles]
    assert len(set(looks)) == 9
    assert {(line.get_color(), line.get_marker()) for line in figure.axes[0].lines} >= set(looks)


def test_runs_without_an_interval_are_refused(tmp_path):
    run_dir = write_run(tmp_path / "one", seeds=1, epochs=(0, 1), layers=2)
    with pytest.raises(InputError, match="interval for any claim; add one that compares two trainings, of two seeds"):
        report.summarise([run_dir], tmp_path / "all.md")
