"""What the live line says of the time left."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from mi_jax.runs import progress
from mi_jax.runs.progress import Reporter, Status


@pytest.mark.parametrize("earlier", [0.0, 0.4])
def test_time_left_is_reckoned_from_the_first_finished_work_not_from_its_compilation(monkeypatch, earlier):
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    screen = io.StringIO()
    reporter = Reporter(Console(file=screen, width=200))
    reporter.start_from(earlier)
    for seconds, done in ((0, earlier), (60, earlier + 0.05), (63, earlier + 0.10)):
        now[0] = seconds
        reporter.update(Status(stage=f"stage {seconds}", done=done))
    first, second, third = screen.getvalue().splitlines()
    assert "left" not in first + second
    assert f"{round(3 * (0.9 - earlier) / 0.05)} s left" in third
