"""One run from configuration to report, resumable at any moment; the only writer of a run directory.

A run is a list of units (train these seeds, judge that network, write the report). The records of a unit that a kill
left unfinished are cut off at the byte where the newest checkpoint, or the last finished unit, stood.
"""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from mi_jax import attacks, data, models, parallel, report, studies
from mi_jax.runs import provenance
from mi_jax.runs import json_codec as configs
from mi_jax.errors import InputError
from mi_jax.runs import evaluate
from mi_jax.runs.context import RunContext, join_seeds, unit_of
from mi_jax.runs.train import Training
from mi_jax.runs.progress import Reporter, Status
from mi_jax.runs.config import RunConfig
from mi_jax import records
from mi_jax.runs.directory import RunDir, disk_errors_explained, open_run, read_json, write_json
from mi_jax.training import Interrupted, held_out_rows


def run(
    config: RunConfig,
    *,
    run_dir: Path,
    data_dir: str | None = None,
    overwrite: bool = False,
    command: str = "",
    reporter: Reporter,
    stop_asked: Callable[[], bool] = lambda: False,
) -> Path:
    """Trains, measures, judges and reports; goes on where an earlier call on the same directory stopped.

    Args:
        config: what to do.
        run_dir: where everything is written.
        data_dir: where TFDS data sets are.
        overwrite: start anew in a directory that holds a run, unless this very batch job began it: SLURM starts a
            preempted job again with the same command.
        command: the command line, for the provenance.
        reporter: told how things stand.
        stop_asked: asked between compiled chunks and between units.

    Returns:
        The path of the report.

    Raises:
        InputError: whatever a user can mend, before anything is written where that can be known before.
        Interrupted: when `stop_asked` said so; everything done so far is saved.
    """
    network, dataset = _prepare(config, data_dir)
    with disk_errors_explained(run_dir):
        overwrite = overwrite and not _begun_by_this_job(run_dir)
        directory = open_run(run_dir, configs.to_dict(config), overwrite=overwrite)
        try:
            if not directory.is_locked:
                reporter.say(f"The file system of {run_dir} cannot lock; see to it that no other process writes there.")
            if directory.is_complete("report"):
                reporter.say(f"{run_dir} holds this very run, finished; --overwrite runs it again.")
                return run_dir / "report.html"
            _note_start(directory, command=command, data_dir=data_dir)
            _to_the_end(RunContext(config, network, dataset, directory, reporter, stop_asked))
            return run_dir / "report.html"
        finally:
            directory.close()


def study(
    name: str,
    *,
    run_dir: Path,
    data_dir: str | None = None,
    samples: int = 500,
    which_checkpoints: studies.WhichCheckpoints | None = None,
    reporter: Reporter,
    stop_asked: Callable[[], bool] = lambda: False,
) -> Path:
    """Runs one study on the networks of every training and seed of a finished run, and rebuilds its report.

    A study that was run before is run again; its old records are superseded by the new ones.

    Args:
        name: of the study.
        run_dir: of the run.
        data_dir: where TFDS data sets are.
        samples: test images the study looks at.
        moments: whether it looks at finished networks or those of all measured epochs; None for its own habit.
        reporter: told how things stand.
        stop_asked: asked before every network.

    Returns:
        The path of the report.

    Raises:
        InputError: when there is no such study, it does not apply to the data set, or the run is not finished.
        Interrupted: when `stop_asked` said so; the study then counts as not done.
    """
    studies.find(name)
    if samples < 1:
        raise InputError(f"samples is {samples}; a study looks at 1 test image or more.")
    config = configs.from_dict(RunConfig, read_json(run_dir / "config.json"), where=str(run_dir / "config.json"))
    network, dataset = _prepare(config, data_dir)
    (chosen,) = studies.find_for(dataset, name)
    with disk_errors_explained(run_dir):
        directory = open_run(run_dir, configs.to_dict(config), overwrite=False)
        try:
            if not directory.is_complete("report"):
                raise InputError(f"{run_dir} is not finished; give the command that started it once more, then this.")
            try:
                context = RunContext(config, network, dataset, directory, reporter, stop_asked)
                evaluate.study(context, chosen, samples, which_checkpoints)
            except BaseException:
                records.truncate(run_dir, directory.records_bytes)
                raise
            directory.complete(f"study/{name}")
            return report.build(run_dir)
        finally:
            directory.close()


def _prepare(config: RunConfig, data_dir: str | None) -> tuple[models.Network, data.Dataset]:
    models.create(config.arch, num_classes=2, input_shape=(96, 96, 3), width=config.width)
    parallel.make_mesh(config.mesh)
    dataset = data.load(config.dataset, data_dir=data_dir, limit=config.limit)
    left = len(dataset.train) - len(held_out_rows(dataset.train.labels, config.held_out))
    if config.batch_size > left:
        raise InputError(f"batch-size is {config.batch_size}; it must be at most {left}, the images to train on.")
    _check_autoattack(config, dataset, studies.find_for(dataset, config.studies))
    network = models.create(
        config.arch,
        num_classes=dataset.num_classes,
        input_shape=dataset.input_shape,
        width=config.width,
        dtype=config.dtype,
    )
    return network, dataset


def _check_autoattack(config: RunConfig, dataset: data.Dataset, chosen: Sequence[studies.Study]) -> None:
    """Refuses AutoAttack where it could not run on the networks of this run."""
    attack, judged = config.attack, config.evaluation
    wanted = {judged.autoattack} - {"none"} | {"standard" for study in chosen if study.name == "autoattack"}
    for version in sorted(wanted):
        parts = version.split(",")
        named = parts if parts[0] in attacks.NAMES else version
        try:
            attacks.plan(named, attack.norm, attack.eps, judged.budget, dataset.num_classes, dataset.input_shape)
        except InputError as error:
            raise InputError(f"AutoAttack ({version}) cannot judge this run: {error}") from None


def _note_start(directory: RunDir, *, command: str, data_dir: str | None) -> None:
    path = directory.path / "provenance.json"
    if path.exists():
        old = read_json(path)
        write_json(path, {**old, "resumed": [*old["resumed"], provenance.now()]})
    else:
        write_json(path, {**provenance.collect(command=command, data_dir=data_dir), "slurm_job": _slurm_job()})


def _slurm_job() -> str | None:
    return os.environ.get("SLURM_JOB_ID")


def _begun_by_this_job(run_dir: Path) -> bool:
    """Whether SLURM has started this job again and the run in the directory is the job's own."""
    path = run_dir / "provenance.json"
    if os.environ.get("SLURM_RESTART_COUNT", "0") == "0" or _slurm_job() is None or not path.exists():
        return False
    return read_json(path).get("slurm_job") == _slurm_job()


def _to_the_end(context: RunContext) -> None:
    """Does every unit that is not done yet."""
    context.reporter.start_from(context.done_before())
    try:
        for training in context.config.trainings:
            for seeds in context.groups():
                _reopen_if_damaged(context, training, seeds)
                _unit(context, unit_of(training, seeds), functools.partial(_train, context, training, seeds))
                context.work_done += context.work_of(training) * len(seeds)
        context.compiler.wait_for("attack")
        for seed in range(context.config.seeds):
            _unit(context, f"judge/{seed}", functools.partial(evaluate.evaluate_seed, context, seed))
        _unit(context, "examples", functools.partial(evaluate.save_examples, context))
        for chosen in studies.find_for(context.dataset, context.config.studies):
            _unit(
                context,
                f"study/{chosen.name}",
                functools.partial(evaluate.study, context, chosen, context.config.study_samples),
            )
        _unit(context, "report", functools.partial(_report, context))
    finally:
        context.compiler.close()


def _unit(context: RunContext, name: str, work: Callable[[], None]) -> None:
    if context.stop_asked():
        raise Interrupted
    if not context.directory.is_complete(name):
        work()
        context.directory.complete(name)


def _reopen_if_damaged(context: RunContext, training: str, seeds: tuple[int, ...]) -> None:
    """Has a finished training done again from an intact step where its network is damaged on disk."""
    unit = unit_of(training, seeds)
    if context.directory.is_complete(unit) and any(lost := [context.damage(training, seed) for seed in seeds]):
        context.reporter.say(
            f"{'; '.join(filter(None, lost))}: {training} seed {join_seeds(seeds)} is trained again from there."
        )
        context.directory.reopen(unit)


def _train(context: RunContext, training: str, seeds: tuple[int, ...]) -> None:
    Training(context, training, seeds).run()


def _report(context: RunContext) -> None:
    context.reporter.update(Status("figures and report", context.done()))
    path = context.directory.path / "provenance.json"
    write_json(path, {**read_json(path), "end": provenance.now()})
    report.build(context.directory.path, every_figure=context.config.preset == "paper")
