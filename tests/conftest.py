"""What the whole suite shares: how programs are compiled and kept, a key, and one small finished run on real digits."""

import fcntl
import gc
import importlib.metadata
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before JAX is imported. Tests compile thousands of programs and run each of them once, so compiling them fast matters
# more than their speed; `XLA_FLAGS= python -m pytest` tests what users get. Programs, decoded data sets and fonts are
# kept between workers and sessions in pytest's own cache, never in the user's.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
    # Later compilers do not know this flag, and abort.
    + (" --xla_cpu_use_fusion_emitters=false" if importlib.metadata.version("jaxlib").startswith("0.10.") else ""),
)
# Nobody reads from which line an operation comes, and to write it down takes some per cent of the time of lowering.
os.environ["JAX_INCLUDE_FULL_TRACEBACKS_IN_LOCATIONS"] = "0"
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"
# Workers fill the cores; further threads would wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["XDG_CACHE_HOME"] = str(Path(__file__).parents[1] / ".pytest_cache" / "xdg")
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ["XDG_CACHE_HOME"] + "/mi_jax/xla"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
# An array is never broadcast to another rank, or converted to another type, by accident.
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"

import pytest

if TYPE_CHECKING:
    import jax
    from matplotlib.figure import Figure

    from mi_jax.runs.config import RunConfig
    from mi_jax.runs.progress import Reporter

_MOST_MAPS = 30_000
"""Memory maps of a process after which its compiled programs are dropped: Linux allows 65,530, and a compiler that
finds none left crashes."""


_PROGRAMS_OF_A_CONTEXT = 32
"""Programs that are lowered in one MLIR context before the constants that it keeps take much memory."""


def pytest_configure(config: pytest.Config) -> None:
    # Workers and the processes that tests start read each module as one of them has compiled it.
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # Tracing makes millions of objects that live as long as the compiled programs; to look for garbage there is slow.
    gc.set_threshold(100_000, 50, 1_000)
    if not config.getoption("numprocesses", None):  # the process that only hands out tests needs no JAX
        _share_contexts()
        _adapt_to_small_inputs()


def _share_contexts() -> None:
    """Lowers in the MLIR context of the programs before: to make one takes longer than to lower a small program."""
    from jax._src.interpreters import mlir

    make, of_thread = getattr(mlir, "make_ir_context", None), threading.local()
    if make is None:  # no public name: another version may have none
        return

    def shared() -> Any:
        used = getattr(of_thread, "used", 0)
        if used % _PROGRAMS_OF_A_CONTEXT == 0:
            of_thread.context = make()
        of_thread.used = used + 1
        return of_thread.context

    mlir.make_ir_context = shared


def _adapt_to_small_inputs() -> None:
    from mi_jax import batches

    # Tests measure some sixty images: batches of 250 would be mostly padding. Before other modules read it.
    batches.BATCH_SIZE = 64

    import jax

    from mi_jax.data.shapetex import scenes

    if "optimization_level=0" in os.environ["XLA_FLAGS"]:
        # Many tests draw a block of 500 images to use a few, which takes five times as long without optimisation.
        draw, options = scenes._draw_block.__wrapped__, {"xla_backend_optimization_level": 1}
        scenes._draw_block = jax.jit(draw, static_argnames="scale", compiler_options=options)


@pytest.fixture
def as_a_user() -> Iterator[None]:
    """Annotations unchecked, as outside the test run: what a caller with a wrong value really sees."""
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True, scope="module")
def few_memory_maps() -> Iterator[None]:
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > _MOST_MAPS:
        import jax

        jax.clear_caches()


@pytest.fixture(scope="module")
def few_figures() -> Iterator[None]:
    """Reports of one figure, for tests of something else: to draw them all takes half of the time of a small run."""
    from mi_jax.report import figures

    with pytest.MonkeyPatch.context() as patched:
        available = figures.available
        patched.setattr(figures, "available", lambda run_records: available(run_records)[:1])
        yield


@pytest.fixture
def key() -> "jax.Array":
    import jax

    return jax.random.key(0)


@pytest.fixture(scope="session")
def small_config() -> "RunConfig":
    from mi_jax.attacks import PGD, Budget
    from mi_jax.measure.information import InformationConfig
    from mi_jax.runs.config import Evaluation, RunConfig
    from mi_jax.training import Optimizer

    return RunConfig(
        arch="mlp",
        dataset="digits",
        seeds=2,
        epochs=3,
        width=1.0,
        batch_size=50,
        limit=300,
        optimizer=Optimizer(name="adam", learning_rate=3e-3),
        attack=PGD(eps=0.1, steps=2, step_size=0.05),
        information=InformationConfig(samples=60, epochs=(1,)),
        evaluation=Evaluation(
            samples=60,
            steps=3,
            autoattack=("apgd-ce", "square"),
            autoattack_samples=60,
            budget=Budget(apgd_steps=4, square_queries=20),
        ),
    )


def _silent() -> "Reporter":
    from rich.console import Console

    from mi_jax.runs.progress import Reporter

    return Reporter(Console(file=io.StringIO(), width=500), line_seconds=0.0)


@pytest.fixture
def quiet() -> "Reporter":
    return _silent()


@pytest.fixture(scope="session")
def assert_shows() -> "Callable[[Figure, Any], None]":
    """`assert_shows(figure, values)`: each value is the height of a point or a bar, or an element of an image."""
    import numpy as np

    def check(figure: "Figure", values: Any) -> None:
        parts = []
        for axes in figure.findobj(lambda artist: hasattr(artist, "get_images") and hasattr(artist, "lines")):
            parts += [np.asarray(line.get_ydata(), float).ravel() for line in axes.lines]
            parts += [np.ma.filled(image.get_array(), np.nan).astype(float).ravel() for image in axes.images]
            parts += [np.array([patch.get_height()]) for patch in axes.patches if hasattr(patch, "get_height")]
        drawn = np.concatenate(parts)
        drawn = np.sort(drawn[np.isfinite(drawn)])
        expected = np.asarray(values, dtype=float).ravel()
        assert expected.size, "nothing is expected"
        assert np.isfinite(expected).all(), "no number is expected"
        at = np.searchsorted(drawn, expected).clip(1, len(drawn) - 1)
        distance = np.minimum(np.abs(drawn[at] - expected), np.abs(drawn[at - 1] - expected))
        np.testing.assert_array_less(distance, 1e-6 * np.maximum(1, np.abs(expected)))

    return check


@pytest.fixture(scope="session")
def build_once(tmp_path_factory) -> Callable[[str, Callable[[Path], None]], Path]:
    """`build_once(name, build)`: a directory that the first worker to ask for it builds, and all workers share."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def directory(name: str, build: Callable[[Path], None]) -> Path:
        place, done = shared / "shared" / name, shared / f"{name}.done"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                place.parent.mkdir(exist_ok=True)
                build(place)
                done.touch()
        return place

    return directory


@pytest.fixture(scope="session")
def finished_run(build_once, small_config) -> Path:
    """A run directory of `small_config`, which tests only read."""

    def build(directory: Path) -> None:
        from mi_jax import runs

        runs.run(small_config, run_dir=directory, command="test", reporter=_silent())

    return build_once("digits-mlp", build)
