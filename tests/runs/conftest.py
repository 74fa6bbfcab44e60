"""What tests of whole runs share."""

from collections.abc import Iterator

import pytest

from mi_jax import report


@pytest.fixture(autouse=True, scope="module")
def no_figures(finished_run) -> Iterator[None]:
    """The report takes longer than all else of a small run; it is made of `finished_run` alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "build", lambda run_dir, **_: run_dir / "report.html")
        yield
