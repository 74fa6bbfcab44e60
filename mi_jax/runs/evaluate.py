"""Measurements of networks in a run: during training, and the stages that evaluate and study the finished ones."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import jax.numpy as jnp
import numpy as np

from mi_jax import processes, studies
from mi_jax.attacks import EvaluationState, Progress
from mi_jax.attacks.engine.saved_evaluation import OtherEvaluation
from mi_jax.data import Dataset
from mi_jax.data.sample import fixed_sample
from mi_jax.errors import InputError
from mi_jax.files import read_arrays, write_arrays
from mi_jax.measure.accuracy import adversarial_examples, attack_columns, performance, robustness, transfer
from mi_jax.measure.autoattack import autoattack_columns, sanity_checks, under_autoattack
from mi_jax.measure.information import information_plane, label_free_information
from mi_jax.records.labels import attack_label
from mi_jax.records.run_records import baseline_of
from mi_jax.records.table import Record
from mi_jax.report.figures import examples
from mi_jax.runs.context import RunContext
from mi_jax.seeding import stream_key
from mi_jax.statistics.jackknife import BLOCKS
from mi_jax.training import Diverged, predictions
from mi_jax.typing import Key, Variables

_EXAMPLES = 8


def measure(
    context: RunContext,
    seed: int,
    variables: Variables,
    *,
    information: bool = True,
    label_free: bool = False,
    blocks: int = BLOCKS,
) -> list[Record]:
    """Loss and accuracy on the fixed sample; with `information`, also on its adversarial examples, and of every layer.

    Args:
        context: context of the run.
        seed: seed of the network.
        variables: its variables.
        information: whether to measure more than loss and accuracy.
        label_free: whether to measure on label-free adversarial examples too, if not every network is.
        blocks: blocks of images that give information an error over images, see `information_plane`.

    Raises:
        Diverged: where the loss is not finite, so that there is nothing to attack.
    """
    network, (images, labels), attack = context.network, context.sample, context.config.attack
    rows = performance(network, variables, images, labels, inputs="clean")
    if not rows[0].ok:
        raise Diverged(f"the loss of seed {seed} on the fixed sample is not finite")
    if not information:
        return rows
    adversarial = adversarial_examples(network, variables, images, labels, attack=attack)
    rows += performance(network, variables, adversarial, labels, inputs="adversarial", **attack_columns(attack))
    context.robust_accuracy = rows[-1].value
    noise_variances, config = context.noise_variances(seed), context.config.information
    rows += information_plane(
        network,
        variables,
        images,
        adversarial,
        labels,
        noise_variances=noise_variances,
        config=config,
        attack=attack,
        blocks=blocks,
    )
    if label_free or config.label_free == "epochs":
        rows += _label_free(context, seed, variables)
    return rows


def _label_free(context: RunContext, seed: int, variables: Variables) -> list[Record]:
    images, labels = context.sample
    return label_free_information(
        context.network, variables, images, labels, stream_key(seed, "random_target"),
        noise_variances=context.noise_variances(seed), config=context.config.information,
        attack=context.config.attack,
    )  # fmt: skip


def evaluate_seed(context: RunContext, seed: int) -> None:
    """Records the accuracy of every finished network of a seed under strong attacks, made on it and on the others.

    Where the finished network is of an epoch at which information was not measured, it is measured here, so that all
    that is reported of a finished network is about the same one.
    """
    context.directory.drop_unfinished()
    test, evaluation = context.dataset.test, context.config.evaluation
    images, labels = fixed_sample(test.images, test.labels, evaluation.samples)
    key = stream_key(seed, "evaluation")
    finished = {training: context.finished(training, seed) for training in context.config.trainings}
    adversarial = {}
    for training, (trainer, variables, step) in finished.items():
        context.stop_if_asked()
        context.report_stage(f"{training} seed {seed}: strong attack")
        rows, adversarial[training] = robustness(
            context.network, variables, images, labels, key, attack=context.config.final_attack
        )
        rows += _autoattack(context, training, seed, variables, key)
        if context.config.information.label_free == "finished":
            rows += _label_free(context, seed, variables)
        context.append(trainer, step, rows, seed=seed, finished=True)
        if step not in context.measured_steps:
            context.append(trainer, step, measure(context, seed, variables), seed=seed)
    for target, (trainer, variables, step) in finished.items():
        rows = [
            transfer(context.network, variables, made, labels, source=source, attack=context.config.final_attack)
            for source, made in adversarial.items()
            if source != target
        ]
        context.append(trainer, step, rows, seed=seed, finished=True)


def discard_states(context: RunContext, seed: int) -> None:
    """Removes the saved states of AutoAttack of a seed whose evaluation is complete."""
    for training in context.config.trainings:
        _discard(_state_file(context, training, seed))


@processes.by_first
def _discard(path: Path) -> None:
    path.unlink(missing_ok=True)


def _autoattack(context: RunContext, training: str, seed: int, variables: Variables, key: Key) -> list[Record]:
    """Rows of AutoAttack, resumed where an interruption left it, and of the sanity checks, as configured."""
    evaluation, attack, test = context.config.evaluation, context.config.attack, context.dataset.test
    name, rows, path = f"{training} seed {seed}", [], _state_file(context, training, seed)
    if evaluation.autoattack:
        images, labels = fixed_sample(test.images, test.labels, evaluation.autoattack_samples)

        def report_progress(progress: Progress) -> None:
            done = f"{progress.stage} {progress.fraction:.0%}, {progress.robust_accuracy:.1%} left"
            context.report_stage(f"{name}: AutoAttack {done}")
            context.stop_if_asked()

        attacked = functools.partial(
            under_autoattack, context.network, variables, images, labels, key,
            norm=attack.norm, eps=attack.eps, version=",".join(evaluation.autoattack), budget=evaluation.budget,
            progress=report_progress, mesh=context.mesh, state_path=path,
        )  # fmt: skip
        _drop_damaged(context, path)
        try:
            rows += attacked()
        except OtherEvaluation:
            context.reporter.say(f"{path} is of another network or attack; AutoAttack starts from the beginning.")
            _discard(path)
            rows += attacked()
    if evaluation.checks:
        context.stop_if_asked()
        context.report_stage(f"{name}: sanity checks")
        images, labels = fixed_sample(test.images, test.labels, evaluation.checks)
        rows += sanity_checks(context.network, variables, images, labels, key, norm=attack.norm, eps=attack.eps)
    return rows


def _state_file(context: RunContext, training: str, seed: int) -> Path:
    return context.directory.path / f"autoattack-{training}-{seed}.npz"


@processes.by_first
def _drop_damaged(context: RunContext, path: Path) -> None:
    """Removes a saved evaluation that cannot be read."""
    try:
        if path.exists():
            EvaluationState.load(path)
    except InputError:
        context.reporter.say(f"{path} is damaged; AutoAttack starts from the beginning.")
        path.unlink()


def study_stages(
    context: RunContext,
    chosen: studies.Study,
    samples: int,
    which_checkpoints: studies.WhichCheckpoints | None = None,
    test_sets: Mapping[str, Callable[[], Dataset]] = MappingProxyType({}),
) -> dict[str, Callable[[], None]]:
    """The stages of a study, one for each training and seed, at the checkpoints it prefers unless others are given."""
    which = which_checkpoints or chosen.which_checkpoints
    sets = "".join(f"{name}/" for name in test_sets)
    return {
        f"study/{chosen.name}/{samples}/{which}/{sets}{training}/{seed}": functools.partial(
            _study, context, chosen, samples, which, training, seed, test_sets
        )
        for training in context.config.trainings
        for seed in range(context.config.seeds)
    }


def _study(
    context: RunContext,
    chosen: studies.Study,
    samples: int,
    which: studies.WhichCheckpoints,
    training: str,
    seed: int,
    test_sets: Mapping[str, Callable[[], Dataset]],
) -> None:
    context.directory.drop_unfinished()
    trainer, last = context.trainer(training, (seed,)), context.finished_step(training, seed)
    measured = which == "measured"
    for step in context.saved_steps(training, seed) if measured else [last]:
        context.stop_if_asked()
        where = f"{training} seed {seed}" + (f" epoch {step / trainer.steps_per_epoch:g}" if measured else "")
        context.report_stage(f"{chosen.name}: {where}")
        study_input = _study_input(context, training, seed, step, samples)
        found = chosen.measure(dataclasses.replace(study_input, test_sets=test_sets))
        context.append(trainer, step, found.records, seed=seed, finished=step == last)
        if step == last and found.arrays:
            path = context.directory.path / f"{chosen.name}.npz"
            own = {f"{name}.{training}.{seed}": np.asarray(value) for name, value in found.arrays.items()}
            processes.on_first(lambda path=path, own=own: write_arrays(path, {**_arrays(path), **own}))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays in a file; none where it is missing or damaged."""
    try:
        return read_arrays(path)
    except InputError:
        return {}


def _study_input(context: RunContext, training: str, seed: int, step: int, samples: int) -> studies.StudyInput:
    return studies.StudyInput(
        network=context.network,
        variables=context.variables_at(training, seed, step),
        dataset=context.dataset,
        attack=context.config.attack,
        samples=samples,
        key=stream_key(seed, "studies"),
        information=context.config.information,
        baseline=_baseline(context, training, seed, step),
        untrained=functools.partial(context.untrained, training, seed),
        autoattacked=_autoattacked(context) if step == context.finished_step(training, seed) else 0,
    )


def _autoattacked(context: RunContext) -> int:
    """On how many images finished networks are evaluated under AutoAttack `standard` of at least its usual budget."""
    evaluation, attack = context.config.evaluation, context.config.attack
    if not evaluation.autoattack:
        return 0
    found = autoattack_columns(attack.norm, attack.eps, ",".join(evaluation.autoattack), evaluation.budget)
    same = found["attack"] == "autoattack-standard" and not found["reduced"]
    return min(evaluation.autoattack_samples, len(context.dataset.test)) if same else 0


def _baseline(context: RunContext, training: str, seed: int, step: int) -> Callable[[], Variables | None]:
    """Loads the baseline's network of the same epoch; a finished network is compared with a finished one."""
    trainings = context.config.trainings
    baseline = baseline_of(trainings)
    if training == baseline or baseline not in trainings:
        return lambda: None
    finished = step == context.finished_step(training, seed)
    same = context.finished_step(baseline, seed) if finished else step
    if same not in context.saved_steps(baseline, seed):
        return lambda: None
    return functools.partial(context.variables_at, baseline, seed, same)


def save_examples(context: RunContext) -> None:
    """Saves a few test images, their adversarial examples for every training of the first seed, and the predictions."""
    images, labels = (part[:_EXAMPLES] for part in context.sample)
    adversarial, predicted_clean, predicted_adversarial = {}, {}, {}
    for training in context.config.trainings:
        _, variables, _ = context.finished(training, 0)
        made = adversarial_examples(context.network, variables, images, labels, attack=context.config.attack)
        adversarial[training] = made
        predicted_clean[training] = jnp.argmax(predictions(context.network, variables, images), -1)
        predicted_adversarial[training] = jnp.argmax(predictions(context.network, variables, made), -1)
    processes.on_first(
        lambda: examples.save(
            context.directory.path,
            images=images,
            labels=labels,
            class_names=context.dataset.class_names,
            adversarial=adversarial,
            predicted_clean=predicted_clean,
            predicted_adversarial=predicted_adversarial,
            attack=attack_label(attack_columns(context.config.attack)),
        )
    )
