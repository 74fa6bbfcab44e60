"""What the whole suite shares: how programs are compiled, a key, and one small finished run on real digits."""

import io
import os
from pathlib import Path

# Tests compile thousands of programs and run each of them once: compiling them fast matters more than their speed.
# It must be said before JAX looks; `XLA_FLAGS= python -m pytest` tests what users get.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1")

import jax
import pytest
from rich.console import Console

from mi_jax import runs
from mi_jax.attacks import PGD, Budget
from mi_jax.measure.information import InformationConfig
from mi_jax.runs.config import Evaluation, RunConfig
from mi_jax.runs.progress import Reporter
from mi_jax.training import Optimizer

SMALL = RunConfig(
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


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture(scope="session")
def small_config() -> RunConfig:
    return SMALL


@pytest.fixture
def quiet() -> Reporter:
    return Reporter(Console(file=io.StringIO(), width=500))


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> Path:
    """A run directory of `SMALL`; tests read it and leave it as it is."""
    directory = tmp_path_factory.mktemp("runs") / "digits-mlp"
    runs.run(SMALL, run_dir=directory, command="test", reporter=Reporter(Console(file=io.StringIO())))
    return directory
