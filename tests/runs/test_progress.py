"""Progress lines: the time left, and outputs that are not UTF-8."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from mi_jax.runs import progress
from mi_jax.runs.progress import Reporter, Status


@pytest.mark.parametrize("earlier", [0.0, 0.4])
def test_time_left_is_estimated_from_the_first_finished_work_not_from_its_compilation(monkeypatch, earlier):
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    screen = io.StringIO()
    reporter = Reporter(Console(file=screen, width=200))
    reporter.start_from(earlier)
    for seconds, done in ((0, earlier), (60, earlier + 0.05), (80, earlier + 0.07), (120, earlier + 0.10)):
        now[0] = seconds
        reporter.update(Status(stage=f"stage {seconds}", done=done))
    first, second, third = screen.getvalue().splitlines()  # a line a minute
    assert "left" not in first + second
    assert third.startswith(f"{progress.duration(60 * (0.9 - earlier) / 0.05)} left")
    assert "stage 120" in third


def test_a_narrow_terminal_shows_the_time_left_and_cuts_off_the_rest(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    screen = io.StringIO()
    with Reporter(Console(file=screen, width=40, force_terminal=True, legacy_windows=False)) as reporter:
        for seconds, done in ((0, 0.0), (10, 0.2), (20, 0.6)):
            now[0] = seconds
            reporter.update(
                Status("nt seed 0", done, epoch=1.5, epochs=6, loss=0.5, accuracy=0.9, images_per_second=7.0)
            )
    assert "10 s left  60%  nt seed 0  epoch 1.5/6" in screen.getvalue()
    assert "images/s" not in screen.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_an_output_of_any_encoding_shows_what_it_can_and_ascii_for_the_rest(encoding):
    raw = io.BytesIO()
    reporter = Reporter(Console(file=io.TextIOWrapper(raw, encoding=encoding), width=200))
    reporter.say("a\N{MINUS SIGN}b \N{GREEK SMALL LETTER RHO} \udce9")
    reporter.console.file.flush()
    assert raw.getvalue().decode(encoding).splitlines() == ["a-b ? ?"]


def test_a_notebook_shows_one_line_that_is_replaced_in_place_and_removed_at_the_end(monkeypatch):
    shown, times = [], iter(range(100))

    class Handle:
        def update(self, content: dict, *, raw: bool) -> None:
            shown.append(("update", content["text/plain"]))

    def display(content: dict, *, raw: bool, display_id: bool) -> Handle:
        shown.append(("display", content["text/plain"]))
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr("mi_jax.runs.notebook.time", SimpleNamespace(monotonic=lambda: next(times) / 4))
    with Reporter(Console(file=io.StringIO(), force_jupyter=True)) as reporter:
        for done in (0.1, 0.2, 0.3, 0.4):
            reporter.update(Status("nt seed 0", done))
    assert shown[0][0] == "display"
    assert "10%" in shown[0][1]
    assert {kind for kind, _ in shown[1:]} == {"update"}
    assert shown[-1] == ("update", "")
