"""Scores of every estimator on every task of known information: one row per attempt, failures with their reason."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Set
from typing import Any

import jax
import numpy as np
import pandas as pd
from scipy.special import stdtrit

from mi_jax import information
from mi_jax.data import shapetex
from mi_jax.information import Estimate, tasks
from mi_jax.information.beyond_normal import beyond_normal_tasks
from mi_jax.information.tasks import Task

Table = Any
"""A pandas.DataFrame; typed as Any because the unions in pandas' annotations defeat type checkers."""
GRID_INFORMATION: dict[tasks.Target, float] = {"input": 1.5, "label": 0.5, "continuous": 1.5}
"""Information of the tasks of the grid in bits, the same at every dimension."""
KEYS = ("suite", "task", "n", "estimator", "seed")
"""The columns that identify an attempt."""


@dataclasses.dataclass(frozen=True)
class ScoresPlan:
    """The tasks on which the estimators are scored.

    Attributes:
        sizes: numbers of samples in the grid.
        dimensions: dimensions of T in the grid.
        repeats: independent samples of each cell of the grid.
        slow_repeats: the same for estimators registered as slow.
        task_rows: number of samples of each task outside the grid; 0 leaves these tasks out.
    """

    sizes: tuple[int, ...] = (128, 512, 2048)
    dimensions: tuple[int, ...] = (1, 8, 64)
    repeats: int = 20
    slow_repeats: int = 3
    task_rows: int = 1000


def grid_task(target: tasks.Target, dimension: int) -> Task:
    """Return the task of the grid for a target: its information is `GRID_INFORMATION` at every dimension."""
    nats = GRID_INFORMATION[target] * math.log(2)
    if target == "input":
        return tasks.channel_task(dimension, 1 / math.expm1(2 * nats / dimension))
    if target == "label":
        return tasks.label_task(dimension, separation=_separation())
    return tasks.paired_task(dimension, nats)


@functools.lru_cache
def _separation() -> float:
    """Half the distance of two unit normals whose label has the information of the grid, by bisection."""
    low, high = 0.1, 4.0
    for _ in range(40):
        middle = (low + high) / 2
        known = tasks.amplitude_channel(np.array([-middle, middle]), 1.0)
        low, high = (middle, high) if known < GRID_INFORMATION["label"] * math.log(2) else (low, middle)
    return low


def shapetex_tasks() -> tuple[Task, ...]:
    """Tasks of ShapeTex pixels and one factor: ln 10 nats, or 0 where the amplitude of the cue is 0."""
    return tuple(
        Task(
            f"shapetex-{cue}" + ("-erased" if erased else ""),
            "label",
            0.0 if erased else math.log(10),
            32 * 32 * 3,
            functools.partial(_factorial, cue, erased),
        )
        for cue in ("shape", "texture")
        for erased in (False, True)
    )


def _factorial(cue: str, erased: bool, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    config = shapetex.ShapeTex(seed=seed, n_test=n)
    scene = shapetex.scene(config, "factorial", limit=n)
    drawn = shapetex.split(scene, config, **({f"{cue}_amplitude": 0.0} if erased else {}))
    t = np.asarray(drawn.images, np.float32).reshape(len(drawn.images), -1) / 255
    return t, np.asarray(drawn.factors[cue])


def known_tasks() -> tuple[Task, ...]:
    """Return the tasks outside the grid: of `information.tasks` and `information.beyond_normal`, and ShapeTex."""
    return (*tasks.tasks(), *beyond_normal_tasks(), *shapetex_tasks())


Attempt = tuple[str, Task, int, str, int]


def attempts(plan: ScoresPlan) -> Iterator[Attempt]:
    """Yield (suite, task, n, estimator, seed) of a plan; consecutive attempts share a sample."""
    for target in GRID_INFORMATION:
        for n in plan.sizes:
            for dimension in plan.dimensions:
                task = grid_task(target, dimension)
                for seed in range(max(plan.repeats, plan.slow_repeats)):
                    for name in information.estimators_for(target):
                        if seed < (plan.slow_repeats if information.ESTIMATORS[name].slow else plan.repeats):
                            yield "grid", task, n, name, seed
    for task in known_tasks() if plan.task_rows else ():
        for name in information.estimators_for(task.target):
            yield "tasks", task, plan.task_rows, name, 0


def score(
    plan: ScoresPlan,
    *,
    done: Set[tuple[Any, ...]] = frozenset(),
    report_progress: Callable[[float, str], None] = lambda *_: None,
) -> Iterator[dict[str, Any]]:
    """Yield one row for every attempt of the plan, in bits.

    A row holds the attempt, the true information, the value, whether the interval or bound holds (`held`, None where
    the estimator gives neither), the limit that the estimator is beyond (`unreliable`), and the reason of a failure.

    Args:
        plan: the attempts.
        done: attempts to leave out, as tuples of `KEYS`.
        report_progress: called with the completed fraction and a description.
    """
    wanted = [a for a in attempts(plan) if (a[0], a[1].name, *a[2:]) not in done]
    for number, (suite, task, n, name, seed) in enumerate(wanted):
        report_progress(number / len(wanted), f"{suite}, {task.target}, {n} rows")
        yield _attempt(suite, task, n, name, seed)


def _attempt(suite: str, task: Task, n: int, name: str, seed: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        "suite": suite, "task": task.name, "target": task.target, "dimension": task.dimension, "n": n,
        "estimator": name, "seed": seed, "truth": task.information / math.log(2), "kind": None, "value": None,
        "error": None, "held": None, "unreliable": None, "seconds": None, "ok": False, "note": "",
    }  # fmt: skip
    if n > (most := information.ESTIMATORS[name].max_samples or n):
        return row | {"note": f"not run above {most} samples, where it takes too long"}
    try:
        t, other, options = _arguments(task, name, *_sample(task, n, seed))
        began = time.perf_counter()
        found = information.estimate(name, t, other, key=jax.random.key(seed), **options)
        row["seconds"] = time.perf_counter() - began
        if not math.isfinite(found.value):
            raise ArithmeticError(f"the value is {found.value}")
    except Exception as reason:  # a failure of any kind is a result of the benchmark
        return row | {"note": f"{type(reason).__name__}: {reason}"}
    error = _error(found)
    return row | {
        "kind": found.kind,
        "value": found.value / math.log(2),
        "error": None if error is None else error / math.log(2),
        "held": None if _of_other_noise(task, options) else held(found, task.information),
        "unreliable": found.unreliable,
        "ok": True,
        "note": f"noise variance {options['noise_variance']:.4g}" if "noise_variance" in options else "",
    }


@functools.lru_cache(maxsize=2)
def _sample(task: Task, n: int, seed: int) -> tuple[Any, Any, Any]:
    """Return the activations without and with the noise of the task, and the other variable."""
    t, other = task.sample(n, seed)
    return t, task.observe(n, seed)[0], other


def _arguments(task: Task, name: str, clean: Any, noisy: Any, other: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Return the arguments of an estimator: it adds the noise itself, or gets activations with the noise added.

    An estimator of the input without noise gets activations without noise. A task without noise gets that of the trace
    rule where an estimator needs some.
    """
    if task.target in information.ESTIMATORS[name].adds_noise:
        variance = task.noise_variance or information.noise_variance(clean, rule="trace")
        return clean, other, {"noise_variance": variance}
    return (clean if task.target == "input" else noisy), other, {}


def _of_other_noise(task: Task, options: dict[str, Any]) -> bool:
    """Whether an estimator was given noise that the task, and so its known information, does not have."""
    return "noise_variance" in options and not task.noise_variance


def _error(found: Estimate) -> float | None:
    """Standard error with respect to the population: of rows and noise, where the estimator gives both."""
    return found.details.get("sampling_error", found.stderr)


def held(found: Estimate, information: float) -> bool | None:
    """Whether the 95 % interval contains the true information, or a bound holds; None where there is neither.

    Bounds with a standard error are tested at their one-sided 95 % limit. Quantiles are those of Student's t with the
    degrees of freedom in the details of the estimate, or of the normal distribution where there are none.

    Args:
        found: the estimate.
        information: the true information in nats.
    """
    error, degrees = _error(found), found.details.get("degrees_of_freedom", math.inf)
    one_sided, two_sided = (float(stdtrit(degrees, p)) for p in (0.95, 0.975))
    if found.kind == "lower":
        return found.value - one_sided * (error or 0.0) <= information + 1e-9
    if found.kind == "upper":
        return found.value + one_sided * (error or 0.0) >= information - 1e-9
    if found.kind == "value" and error is not None:
        return abs(found.value - information) <= two_sided * error + 1e-9
    return None


def summary(scores: Table) -> Table:
    """Summarise the grid by estimator and target: errors, shares held and flagged, failures, seconds.

    `bias` and `rmse` (bits) are over all attempts, `rmse_unflagged` over those that are not flagged as unreliable.

    Args:
        scores: table of the rows of `score`.
    """
    grid = scores[scores["suite"] == "grid"]
    rows = []
    for (target, name), group in grid.groupby(["target", "estimator"]):
        good = group[group["ok"]]
        off = (good["value"] - good["truth"]).to_numpy(dtype=float)
        flagged = good["unreliable"].notna().to_numpy(dtype=bool)
        trusted = off[~flagged]
        claims = good["held"].dropna()
        rows.append(
            {
                "target": target,
                "estimator": name,
                "attempts": len(group),
                "failed": len(group) - len(good),
                "bias": off.mean() if len(off) else math.nan,
                "rmse": math.sqrt(np.mean(off**2)) if len(off) else math.nan,
                "rmse_unflagged": math.sqrt(np.mean(trusted**2)) if len(trusted) else math.nan,
                "flagged": flagged.mean() if len(good) else math.nan,
                "held": claims.astype(float).mean() if len(claims) else math.nan,
                "seconds": good["seconds"].median(),
            }
        )
    return pd.DataFrame(rows)
