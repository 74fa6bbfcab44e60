"""One run from configuration to report, resumable after any interruption, and studies of a finished run.

A run is a sequence of stages (train these seeds, evaluate the networks of a seed, write the report). The records of a
stage that an interruption left unfinished are cut off at the newest checkpoint or at the last completed stage.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mi_jax import attacks, data, models, parallel, processes, report, studies
from mi_jax.errors import InputError
from mi_jax.files import json_digest
from mi_jax.measure.autoattack import stages as attack_stages
from mi_jax.records.table import Record
from mi_jax.runs import evaluate, json_codec, workload
from mi_jax.runs.checkpoints import check_directory
from mi_jax.runs.config import RunConfig
from mi_jax.runs.context import RunContext, data_digest, make_trainer, seed_groups
from mi_jax.runs.directory import begun_by_this_job
from mi_jax.runs.opening import Growth, open_run
from mi_jax.runs.progress import Reporter
from mi_jax.runs.restore import read_config
from mi_jax.runs.stages import join_seeds, training_stage
from mi_jax.runs.train import train
from mi_jax.training import split_held_out


def run(
    config: RunConfig,
    *,
    run_dir: Path,
    data_dir: str | None = None,
    overwrite: bool = False,
    command: str = "",
    reporter: Reporter,
    stop_asked: Callable[[], bool] = lambda: False,
    on_records: Callable[[Sequence[Record]], None] = lambda rows: None,
) -> Path:
    """Trains, measures, evaluates and reports; resumes where an earlier call on the same directory stopped.

    A run, finished or not, may be continued with more seeds than it was begun with; only the new ones are then trained.

    Args:
        config: configuration of the run.
        run_dir: where everything is written.
        data_dir: where TFDS data sets are.
        overwrite: deletes a run in the directory first, unless this very batch job began it: SLURM starts a preempted
            job again with the same command.
        command: the command line, for the provenance.
        reporter: shows progress.
        stop_asked: called between compiled chunks and between stages.
        on_records: called with the records that were just written.

    Returns:
        The path of the report.

    Raises:
        InputError: for input that cannot be used, before anything is written where that can be known before.
        Interrupted: when `stop_asked` returned true; everything done so far is saved.
    """
    check_directory(run_dir)
    config = json_codec.from_dict(RunConfig, json_codec.to_dict(config))  # numbers of NumPy and JAX as Python's
    network, dataset = processes.together(lambda: _prepare(config, data_dir))
    overwrite = overwrite and not begun_by_this_job(run_dir)
    growth = Growth("seeds", reopened=("report",)) if _seed_devices(config) == 1 else None
    with open_run(run_dir, config, overwrite=overwrite, growth=growth, say=reporter.say) as directory:
        directory.pin_data(data_digest(dataset))
        context = RunContext(config, network, dataset, directory, reporter, stop_asked, on_records)
        page = run_dir / "report.html"
        complete = directory.is_complete("report")
        trained = _all_trained(context, steps=context.measured_steps if complete else ())
        if complete and not processes.on_first(page.exists):
            directory.reopen("report")
        elif complete and trained:
            reporter.say(f"{run_dir} holds this run, complete; overwrite it to run it again.")
            return page
        directory.note_start(command=command, data_dir=data_dir, say=reporter.say)
        for warning in attacks.reach_warnings(config.attack):
            reporter.say(f"The attack in training and measurement: {warning}")
        _all_stages(context)
        return page


def study(
    name: str,
    *,
    run_dir: Path,
    data_dir: str | None = None,
    samples: int = 500,
    which_checkpoints: studies.WhichCheckpoints | None = None,
    test_sets: Sequence[str] = (),
    command: str = "",
    reporter: Reporter,
    stop_asked: Callable[[], bool] = lambda: False,
) -> Path:
    """Runs one study on the networks of every training and seed of a finished run, and rebuilds its report.

    A study that was interrupted is resumed. A completed one is run again; its new records supersede the old ones. A
    network whose checkpoint is damaged is trained again from the checkpoint before.

    Args:
        name: name of the study.
        run_dir: directory of the run.
        data_dir: where TFDS data sets are.
        samples: test images the study uses.
        which_checkpoints: finished networks, or those of all measured epochs; None for the study's default.
        test_sets: names of further data sets for a study that takes them; `NAME_*` is its severities 1 to 5.
        command: the command line, for the provenance.
        reporter: shows progress.
        stop_asked: called before every network.

    Returns:
        The path of the report.

    Raises:
        InputError: when there is no such study, it does not apply to the data set, or the run is not finished.
        Interrupted: when `stop_asked` returned true; networks that were studied count as done.
    """
    studies.refuse_test_sets(name, test_sets)
    if samples < 1:
        raise InputError(f"Invalid samples {samples}: expected at least 1 test image.")
    config = processes.on_first(lambda: read_config(run_dir))
    network, dataset = processes.together(lambda: _prepare(config, data_dir))
    (chosen,) = studies.find_for(dataset, [name])
    sets = {name: functools.partial(data.load, name, data_dir=data_dir) for name in _severities(test_sets)}
    processes.together(lambda: [load().name for load in sets.values()])  # one that is not there is said at once
    with open_run(run_dir, config, say=reporter.say) as directory:
        if not directory.is_complete("report"):
            raise InputError(f"{run_dir} is not finished; repeat the command that started it, then run the study.")
        directory.pin_data(data_digest(dataset))
        directory.note_start(command=command, data_dir=data_dir, say=reporter.say)
        context = RunContext(config, network, dataset, directory, reporter, stop_asked)
        stages = evaluate.study_stages(context, chosen, samples, which_checkpoints, sets)
        # Complete while all networks are done and the report is not: a study killed there is not to be done again.
        unreported = f"unreported/{json_digest(sorted(stages))}"
        try:
            measured = (which_checkpoints or chosen.which_checkpoints) == "measured"
            if not _all_trained(context, steps=context.measured_steps if measured else ()):
                _train(context)
            if not directory.is_complete(unreported):
                earlier = directory.completed(f"study/{chosen.name}/")
                directory.reopen(*(earlier if set(stages) <= set(earlier) else set(earlier) - set(stages)))
            context.plan(dict.fromkeys(stages, 1.0))
            with directory.dropping_unfinished():
                for stage, work in stages.items():
                    _stage(context, stage, work)
            directory.stage(unreported, lambda: None)
        finally:
            context.compiler.close()
        page = processes.on_first(lambda: report.build(run_dir))
        directory.reopen(unreported)
        return page


def _severities(names: Sequence[str]) -> list[str]:
    """The names of test sets, `NAME_*` as `NAME_1` to `NAME_5`."""
    return [f"{name[:-1]}{i}" if i else name for name in names for i in (range(1, 6) if name.endswith("_*") else (0,))]


def _prepare(config: RunConfig, data_dir: str | None) -> tuple[models.Network, data.Dataset]:
    """The network and the data set of a run, after every check that needs no run directory."""
    models.create(config.arch, num_classes=2, input_shape=(96, 96, 3), width=config.width)
    mesh, groups = parallel.make_mesh(config.mesh), _seed_devices(config)
    if groups > 1 and any(len(seeds) % groups for seeds in seed_groups(config)):
        raise InputError(
            f"Invalid mesh {config.mesh!r}: its {groups} groups of devices need seeds that are trained in parallel, "
            f"by population vmap, and a multiple of {groups} of them."
        )
    dataset = data.load(config.dataset, data_dir=data_dir, limit=config.limit)
    if len(dataset.test) < 2:
        raise InputError(
            f"The test split of {config.dataset} has too few images to measure a run on ({len(dataset.test)}, expected "
            "at least 2); give it more, or a larger limit."
        )
    network = models.create(
        config.arch,
        num_classes=dataset.num_classes,
        input_shape=dataset.input_shape,
        width=config.width,
        dtype=config.dtype,
    )
    for attack in (config.attack, config.final_attack):
        attack.check_shape(dataset.input_shape)
    trained = dataclasses.replace(dataset, train=split_held_out(dataset.train, config.held_out)[0])
    for training in config.trainings:
        make_trainer(config, network, trained, training, (0,), mesh=mesh)
    _check_autoattack(config, dataset, studies.find_for(dataset, config.studies))
    return network, dataset


def _seed_devices(config: RunConfig) -> int:
    """How many groups of devices train different seeds."""
    mesh = parallel.make_mesh(config.mesh)
    return mesh.shape["seed"] if mesh else 1


def _check_autoattack(config: RunConfig, dataset: data.Dataset, chosen: Sequence[studies.Study]) -> None:
    """Refuses AutoAttack where it could not run on the networks of this run."""
    attack, evaluation = config.attack, config.evaluation
    wanted = {",".join(evaluation.autoattack)} - {""}
    wanted |= {"standard" for study in chosen if study.name == "autoattack"}
    for version in sorted(wanted):
        try:
            attacks.plan(
                attack_stages(version), attack.norm, attack.eps, evaluation.budget, dataset.num_classes,
                dataset.input_shape,
            )  # fmt: skip
        except InputError as error:
            raise InputError(f"AutoAttack ({version}) cannot evaluate this run: {error}") from None


def _all_stages(context: RunContext) -> None:
    """Does every stage that is not complete."""
    config = context.config
    evaluations = {
        f"evaluate/{seed}": functools.partial(evaluate.evaluate_seed, context, seed) for seed in range(config.seeds)
    }
    studied = {
        chosen.name: evaluate.study_stages(context, chosen, config.study_samples)
        for chosen in studies.find_for(context.dataset, config.studies)
    }
    each = workload.of_evaluation(config, test=len(context.dataset.test), samples=len(context.sample[1]))
    context.plan(
        {
            **context.training_work(),
            **dict.fromkeys(evaluations, each),
            **{stage: workload.of_study(n, config.study_samples) for n, found in studied.items() for stage in found},
            "report": workload.REPORT_FLOPS / workload.of_forward(context.network),
        }
    )
    try:
        _train(context)
        context.wait_for_compiled("attack", "strong attack")
        for seed, (stage, work) in enumerate(evaluations.items()):
            _stage(context, stage, work)
            evaluate.discard_states(context, seed)
        _stage(context, "examples", functools.partial(evaluate.save_examples, context))
        for found in studied.values():
            for stage, work in found.items():
                _stage(context, stage, work)
        _stage(context, "report", functools.partial(_report, context))
    finally:
        context.compiler.close()


def _train(context: RunContext) -> None:
    """Does every training that is not complete."""
    for stage, (training, seeds) in context.trainings().items():
        _stage(context, stage, functools.partial(train, context, training, seeds))


def _stage(context: RunContext, name: str, work: Callable[[], None]) -> None:
    context.stop_if_asked()
    context.directory.stage(name, work)


def _all_trained(context: RunContext, *, steps: Iterable[int]) -> bool:
    """Whether every training is finished; those of which a checkpoint is damaged are reopened first."""
    all_trained = True
    for training in context.config.trainings:
        for seeds in context.groups():
            stage = training_stage(training, seeds)
            if not context.directory.is_complete(stage):  # a new one, or a reopened one that was interrupted
                all_trained = False
                continue
            reasons = [reason for seed in seeds for reason in context.damage(training, seed, steps=steps)]
            if reasons:
                context.reporter.say(
                    f"{'; '.join(reasons)}: {training} seed {join_seeds(seeds)} is trained again from the step before."
                )
                context.directory.reopen(stage)
                all_trained = False
    return all_trained


def _report(context: RunContext) -> None:
    context.report_stage("figures and report")
    context.directory.note_end()
    every_figure = context.config.preset == "paper"
    processes.on_first(lambda: report.build(context.directory.path, every_figure=every_figure))
