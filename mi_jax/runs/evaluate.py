"""The units after training: judging, showing and studying the finished networks."""

import functools
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax import studies
from mi_jax.attacks import EvaluationState, Progress
from mi_jax.runs.measure import probe
from mi_jax.runs.context import Setup
from mi_jax.runs.progress import Status
from mi_jax.report import examples
from mi_jax import records
from mi_jax.records.table import Record
from mi_jax.runs.directory import write_arrays
from mi_jax.measure.autoattack import self_checks, under_autoattack
from mi_jax.measure.accuracy import adversarial_twins, describe, robustness, transfer
from mi_jax.data.sample import fixed_sample
from mi_jax.training import Interrupted, predictions
from mi_jax.typing import Key, Variables

_EXAMPLES = 8
_SAVE_SECONDS = 60.0


def judge(setup: Setup, seed: int) -> None:
    """Records how every finished network of a seed stands under strong attacks, made on it and on the others.

    And what its layers tell, where it is the best of epochs between the probed ones: all that is said of a finished
    network is then said of the same one.
    """
    records.truncate(setup.directory.path, setup.directory.records_bytes)
    test, judged = setup.dataset.test, setup.config.evaluation
    images, labels = fixed_sample(test.images, test.labels, judged.samples)
    key = jax.random.fold_in(jax.random.key(seed), 1)
    finished = {training: setup.finished(training, seed) for training in setup.config.trainings}
    adversarial = {}
    for training, (trainer, variables, step) in finished.items():
        setup.reporter.update(Status(f"{training} seed {seed}: strong attack", setup.done()))
        rows, adversarial[training] = robustness(
            setup.network, variables, images, labels, key, attack=setup.config.final_attack
        )
        rows += _autoattack(setup, training, seed, variables, key)
        if step not in setup.probed_steps:
            rows += probe(setup, seed, variables)
        setup.append(trainer, step, rows, seed=seed)
    for target, (trainer, variables, step) in finished.items():
        rows = [
            transfer(setup.network, variables, made, labels, source=source)
            for source, made in adversarial.items()
            if source != target
        ]
        setup.append(trainer, step, rows, seed=seed)
    for training in finished:
        _state_file(setup, training, seed).unlink(missing_ok=True)


def _autoattack(setup: Setup, training: str, seed: int, variables: Variables, key: Key) -> list[Record]:
    """Rows of AutoAttack, which goes on where a kill left it, and of the self-checks, where they are asked for."""
    judged, attack, test = setup.config.evaluation, setup.config.attack, setup.dataset.test
    name, rows, path, last_save = f"{training} seed {seed}", [], _state_file(setup, training, seed), time.monotonic()
    if judged.autoattack != "none":
        images, labels = fixed_sample(test.images, test.labels, judged.autoattack_samples)

        def tell(progress: Progress) -> None:
            nonlocal last_save
            done = f"{progress.stage} {progress.fraction:.0%}, {progress.robust_accuracy:.1%} left"
            setup.reporter.update(Status(f"{name}: AutoAttack {done}", setup.done()))
            if time.monotonic() - last_save > _SAVE_SECONDS or setup.stop_asked():
                progress.state.save(path)
                last_save = time.monotonic()
            if setup.stop_asked():
                raise Interrupted

        rows += under_autoattack(
            setup.network, variables, images, labels, key,
            norm=attack.norm, eps=attack.eps, version=judged.autoattack, budget=judged.budget, progress=tell,
            state=EvaluationState.load(path) if path.exists() else None,
        )  # fmt: skip
    if judged.checks:
        setup.reporter.update(Status(f"{name}: self-checks", setup.done()))
        images, labels = fixed_sample(test.images, test.labels, judged.checks)
        rows += self_checks(setup.network, variables, images, labels, key, norm=attack.norm, eps=attack.eps)
    return rows


def _state_file(setup: Setup, training: str, seed: int) -> Path:
    return setup.directory.path / f"autoattack-{training}-{seed}.npz"


def study(setup: Setup, chosen: studies.Study, samples: int, moments: studies.Moments | None = None) -> None:
    """Runs a study on every training and seed, at the moments it prefers unless others are given."""
    records.truncate(setup.directory.path, setup.directory.records_bytes)
    arrays: dict[str, np.ndarray] = {}
    for training in setup.config.trainings:
        for seed in range(setup.config.seeds):
            trainer, last = setup.trainer(training, (seed,)), setup.finished_step(training, seed)
            measured = (moments or chosen.moments) == "measured"
            for step in setup.measured_steps(training, seed) if measured else [last]:
                where = f"{training} seed {seed}" + (f" epoch {step / trainer.steps_per_epoch:g}" if measured else "")
                setup.reporter.update(Status(f"{chosen.name}: {where}", setup.done()))
                if setup.stop_asked():
                    raise Interrupted
                found = chosen.run(_subject(setup, training, seed, step, samples))
                setup.append(trainer, step, found.records, seed=seed)
                if step == last:
                    arrays |= {f"{name}.{training}.{seed}": value for name, value in found.arrays.items()}
    if arrays:
        write_arrays(setup.directory.path / f"{chosen.name}.npz", arrays)


def _subject(setup: Setup, training: str, seed: int, step: int, samples: int) -> studies.Subject:
    return studies.Subject(
        network=setup.network,
        variables=setup.variables_at(training, seed, step),
        dataset=setup.dataset,
        attack=setup.config.attack,
        samples=samples,
        key=jax.random.fold_in(jax.random.key(seed), 2),
        probe=setup.config.probe,
        baseline=_baseline(setup, training, seed, step),
        untrained=functools.partial(setup.variables_at, training, seed, 0),
    )


def _baseline(setup: Setup, training: str, seed: int, step: int) -> Callable[[], Variables | None]:
    """Loads the first training's network of the same epoch; a finished network is compared with a finished one."""
    first = setup.config.trainings[0]
    if training == first:
        return lambda: None
    finished = step == setup.finished_step(training, seed)
    same = setup.finished_step(first, seed) if finished else step
    if same not in setup.measured_steps(first, seed):
        return lambda: None
    return functools.partial(setup.variables_at, first, seed, same)


def show(setup: Setup) -> None:
    """A few test images, their twins for every training of the first seed, and what the networks say."""
    images, labels = (part[:_EXAMPLES] for part in setup.sample)
    adversarial, predicted_clean, predicted_adversarial = {}, {}, {}
    for training in setup.config.trainings:
        _, variables, _ = setup.finished(training, 0)
        twins = adversarial_twins(setup.network, variables, images, labels, attack=setup.config.attack)
        adversarial[training] = twins
        predicted_clean[training] = jnp.argmax(predictions(setup.network, variables, images), -1)
        predicted_adversarial[training] = jnp.argmax(predictions(setup.network, variables, twins), -1)
    examples.save(
        setup.directory.path,
        images=images,
        labels=labels,
        class_names=setup.dataset.class_names,
        adversarial=adversarial,
        predicted_clean=predicted_clean,
        predicted_adversarial=predicted_adversarial,
        attack=describe(setup.config.attack),
    )
