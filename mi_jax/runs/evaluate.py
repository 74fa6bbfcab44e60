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
from mi_jax.runs.context import RunContext
from mi_jax.runs.progress import Status
from mi_jax.report.figures import examples
from mi_jax import records
from mi_jax.records.labels import attack_label
from mi_jax.records.table import Record
from mi_jax.runs.directory import write_arrays
from mi_jax.measure.autoattack import sanity_checks, under_autoattack
from mi_jax.measure.accuracy import adversarial_examples, attack_columns, robustness, transfer
from mi_jax.data.sample import fixed_sample
from mi_jax.training import Interrupted, predictions
from mi_jax.typing import Key, Variables

_EXAMPLES = 8
_SAVE_SECONDS = 60.0


def evaluate_seed(context: RunContext, seed: int) -> None:
    """Records how every finished network of a seed stands under strong attacks, made on it and on the others.

    And what its layers tell, where it is the best of epochs between the probed ones: all that is said of a finished
    network is then said of the same one.
    """
    records.truncate(context.directory.path, context.directory.records_bytes)
    test, evaluation = context.dataset.test, context.config.evaluation
    images, labels = fixed_sample(test.images, test.labels, evaluation.samples)
    key = jax.random.fold_in(jax.random.key(seed), 1)
    finished = {training: context.finished(training, seed) for training in context.config.trainings}
    adversarial = {}
    for training, (trainer, variables, step) in finished.items():
        context.reporter.update(Status(f"{training} seed {seed}: strong attack", context.done()))
        rows, adversarial[training] = robustness(
            context.network, variables, images, labels, key, attack=context.config.final_attack
        )
        rows += _autoattack(context, training, seed, variables, key)
        if step not in context.probed_steps:
            rows += probe(context, seed, variables)
        context.append(trainer, step, rows, seed=seed, finished=True)
    for target, (trainer, variables, step) in finished.items():
        rows = [
            transfer(context.network, variables, made, labels, source=source, attack=context.config.final_attack)
            for source, made in adversarial.items()
            if source != target
        ]
        context.append(trainer, step, rows, seed=seed, finished=True)
    for training in finished:
        _state_file(context, training, seed).unlink(missing_ok=True)


def _autoattack(context: RunContext, training: str, seed: int, variables: Variables, key: Key) -> list[Record]:
    """Rows of AutoAttack, which goes on where a kill left it, and of the self-checks, where they are asked for."""
    evaluation, attack, test = context.config.evaluation, context.config.attack, context.dataset.test
    name, rows, path, last_save = f"{training} seed {seed}", [], _state_file(context, training, seed), time.monotonic()
    if evaluation.autoattack != "none":
        images, labels = fixed_sample(test.images, test.labels, evaluation.autoattack_samples)

        def report_progress(progress: Progress) -> None:
            nonlocal last_save
            done = f"{progress.stage} {progress.fraction:.0%}, {progress.robust_accuracy:.1%} left"
            context.reporter.update(Status(f"{name}: AutoAttack {done}", context.done()))
            if time.monotonic() - last_save > _SAVE_SECONDS or context.stop_asked():
                progress.state.save(path)
                last_save = time.monotonic()
            if context.stop_asked():
                raise Interrupted

        rows += under_autoattack(
            context.network, variables, images, labels, key,
            norm=attack.norm, eps=attack.eps, version=evaluation.autoattack, budget=evaluation.budget, progress=report_progress,
            state=EvaluationState.load(path) if path.exists() else None,
        )  # fmt: skip
    if evaluation.checks:
        context.reporter.update(Status(f"{name}: self-checks", context.done()))
        images, labels = fixed_sample(test.images, test.labels, evaluation.checks)
        rows += sanity_checks(context.network, variables, images, labels, key, norm=attack.norm, eps=attack.eps)
    return rows


def _state_file(context: RunContext, training: str, seed: int) -> Path:
    return context.directory.path / f"autoattack-{training}-{seed}.npz"


def study(context: RunContext, chosen: studies.Study, samples: int, which_checkpoints: studies.WhichCheckpoints | None = None) -> None:
    """Runs a study on every training and seed, at the moments it prefers unless others are given."""
    records.truncate(context.directory.path, context.directory.records_bytes)
    arrays: dict[str, np.ndarray] = {}
    for training in context.config.trainings:
        for seed in range(context.config.seeds):
            trainer, last = context.trainer(training, (seed,)), context.finished_step(training, seed)
            measured = (which_checkpoints or chosen.which_checkpoints) == "measured"
            for step in context.measured_steps(training, seed) if measured else [last]:
                where = f"{training} seed {seed}" + (f" epoch {step / trainer.steps_per_epoch:g}" if measured else "")
                context.reporter.update(Status(f"{chosen.name}: {where}", context.done()))
                if context.stop_asked():
                    raise Interrupted
                found = chosen.measure(_study_input(context, training, seed, step, samples))
                context.append(trainer, step, found.records, seed=seed, finished=step == last)
                if step == last:
                    arrays |= {f"{name}.{training}.{seed}": value for name, value in found.arrays.items()}
    if arrays:
        write_arrays(context.directory.path / f"{chosen.name}.npz", arrays)


def _study_input(context: RunContext, training: str, seed: int, step: int, samples: int) -> studies.StudyInput:
    return studies.StudyInput(
        network=context.network,
        variables=context.variables_at(training, seed, step),
        dataset=context.dataset,
        attack=context.config.attack,
        samples=samples,
        key=jax.random.fold_in(jax.random.key(seed), 2),
        probe=context.config.probe,
        baseline=_baseline(context, training, seed, step),
        untrained=functools.partial(context.variables_at, training, seed, 0),
    )


def _baseline(context: RunContext, training: str, seed: int, step: int) -> Callable[[], Variables | None]:
    """Loads the first training's network of the same epoch; a finished network is compared with a finished one."""
    first = context.config.trainings[0]
    if training == first:
        return lambda: None
    finished = step == context.finished_step(training, seed)
    same = context.finished_step(first, seed) if finished else step
    if same not in context.measured_steps(first, seed):
        return lambda: None
    return functools.partial(context.variables_at, first, seed, same)


def save_examples(context: RunContext) -> None:
    """A few test images, their adversarial examples for every training of the first seed, and what the networks say."""
    images, labels = (part[:_EXAMPLES] for part in context.sample)
    adversarial, predicted_clean, predicted_adversarial = {}, {}, {}
    for training in context.config.trainings:
        _, variables, _ = context.finished(training, 0)
        adversarial_images = adversarial_examples(context.network, variables, images, labels, attack=context.config.attack)
        adversarial[training] = adversarial_images
        predicted_clean[training] = jnp.argmax(predictions(context.network, variables, images), -1)
        predicted_adversarial[training] = jnp.argmax(predictions(context.network, variables, adversarial_images), -1)
    examples.save(
        context.directory.path,
        images=images,
        labels=labels,
        class_names=context.dataset.class_names,
        adversarial=adversarial,
        predicted_clean=predicted_clean,
        predicted_adversarial=predicted_adversarial,
        attack=attack_label(attack_columns(context.config.attack)),
    )
