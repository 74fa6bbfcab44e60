"""The first line of a run: what will happen, and roughly how long it takes on this machine."""

import time
from pathlib import Path

import jax
import jax.numpy as jnp

from mi_jax import models, parallel
from mi_jax.records.labels import counted
from mi_jax.runs import workload
from mi_jax.runs.config import RunConfig
from mi_jax.runs.progress import duration

_IMAGES = {"shapetex": 10_000, "digits": 1_437, "mnist": 60_000, "fashion_mnist": 60_000, "stl10": 5_000}
_MANY_IMAGES = 50_000
_SHAPES = {"digits": (8, 8, 1), "mnist": (28, 28, 1), "fashion_mnist": (28, 28, 1), "stl10": (96, 96, 3)}
_COMPILATION_SECONDS = 90.0
"""What the quick run of a VGG-11 takes longer where no compiled program was kept, on two processor cores."""


def expected(config: RunConfig, directory: Path) -> str:
    """The configuration in one sentence, with the time that it takes on a CPU to the nearest minute or so.

    On an accelerator the time is left to the progress line, which measures it.
    """
    objectives, attack = " and ".join(config.trainings), config.final_attack
    then = [f"PGD-{attack.steps}", *(["AutoAttack"] if config.evaluation.autoattack else []), *config.studies, "report"]
    seeds, epochs = counted(config.seeds, "seed"), counted(config.epochs, "epoch")
    plan = (
        f"{config.arch} on {config.dataset}, {objectives}: {seeds} x {epochs}, information at "
        f"{len(config.information.schedule(config.epochs))} of them, then {', '.join(then)}, writing {directory}"
    )
    if parallel.backend() != "cpu":
        return plan
    return (
        f"{plan}; about {duration(_rounded(seconds(config)))} on this machine, less where compiled programs are cached"
    )


def seconds(config: RunConfig) -> float:
    """Seconds of a run on this CPU, from the operations in it; of studies, those that are named."""
    bare = config.dataset.split(":")[0]
    images = min(_IMAGES.get(bare, _MANY_IMAGES), config.limit or _MANY_IMAGES)
    shape = _SHAPES.get(bare, (32, 32, 3))
    network = models.create(config.arch, num_classes=10, input_shape=shape, width=config.width)
    sizes = {
        "examples": images, "held_out": round(config.held_out * images), "samples": config.information.samples,
        "measured": len(config.information.schedule(config.epochs)),
    }  # fmt: skip
    forwards = sum(workload.of_training(config, name, **sizes) for name in config.trainings)
    forwards += workload.of_evaluation(config, test=images, samples=config.information.samples)
    forwards += len(config.trainings) * sum(workload.of_study(name, config.study_samples) for name in config.studies)
    work = config.seeds * forwards * workload.of_forward(network) + workload.REPORT_FLOPS
    return _COMPILATION_SECONDS + work / _flops_per_second()


def _flops_per_second() -> float:
    """The rate of a square matrix product."""
    square = jnp.ones((1024, 1024), jnp.float32)
    product = jax.jit(jnp.dot)
    product(square, square).block_until_ready()
    began = time.perf_counter()
    for _ in range(4):
        product(square, square).block_until_ready()
    return 4 * 2 * 1024**3 / (time.perf_counter() - began)


def _rounded(value: float) -> float:
    step = 60.0 if value < 3600 else 600.0 if value < 36_000 else 3600.0
    return max(step, round(value / step) * step)
