"""`mi-jax run`: one experiment from data to report."""

import argparse
import contextlib
import dataclasses
import json
import os
import pkgutil
import shlex
import textwrap
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, get_args

import tyro

from mi_jax import attacks, models, processes
from mi_jax.attacks.threat_model import DEFAULT_EPS
from mi_jax.cli import flags
from mi_jax.cli.duration import expected
from mi_jax.cli.session import flags_in_messages, session
from mi_jax.errors import InputError
from mi_jax.files import printable
from mi_jax.options import split_commas
from mi_jax.records.table import Record
from mi_jax.runs import json_codec
from mi_jax.runs.config import Option, Preset, RunConfig, preset
from mi_jax.runs.interface import default_directory
from mi_jax.training import OBJECTIVES

OLD_SPELLINGS = {"--probe.": "--information."}
_OBJECTIVE = "--objective."
_READERS: dict[Any, Callable[[str], Option]] = {
    float: flags.number,
    int: int,
    str: str,
    bool: lambda text: {"true": True, "false": False}[text.lower()],
}
"""How an option of an objective is read, by its type."""
_OWN_FLAGS = ("noise.noise", "trades.trades_beta", "mart.mart_weight", "fast.fast_step")
"""Options that are fields of `RunConfig`."""


@dataclass(frozen=True)
class RunCommand:
    """Trains normally and adversarially, measures the information in every layer, and writes a report.

    Attributes:
        config: the experiment; saved in the run directory, where only the same one can be resumed.
        run_dir: where everything is written; `runs/<dataset>-<arch>` by default. The same command on an unfinished
            directory resumes it.
        data_dir: where TFDS data sets are; by default, where TFDS stores them.
        overwrite: delete an earlier run in the run directory and start from scratch.
        tensorboard: mirror the records to TensorBoard, in the folder `tensorboard` of the run directory.
        processes: how many processes share this run; `auto` for those of a SLURM step, or of JAX_COORDINATOR_ADDRESS,
            JAX_NUM_PROCESSES and JAX_PROCESS_ID; `cluster` for those that JAX detects, as on Cloud TPU. Only the first
            reads and writes the run directory.
        coordinator: HOST:PORT of the first process, where their number is given.
        process_index: index of this process, from 0, where their number is given.
    """

    config: Annotated[RunConfig, tyro.conf.arg(name="")]
    run_dir: Path | None = None
    data_dir: str | None = None
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    tensorboard: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    processes: str = "auto"
    coordinator: str | None = None
    process_index: int | None = None

    @property
    def directory(self) -> Path:
        """Where this run is written."""
        return self.run_dir or default_directory(self.config)


def parse(arguments: Sequence[str], *, program: str = "mi-jax run") -> RunCommand:
    """The command that the flags describe; `--preset`, `--dataset`, `--arch` and `--training` choose the defaults.

    `--config PATH` starts from the configuration of another run instead, its directory or its `config.json`.
    `--objective.NAME.OPTION VALUE` sets any option of an objective. Where another norm is given without a radius, the
    radius is the usual one of that norm; where the threat model is given and the step of the training attack is not,
    the step follows the radius.
    """
    known = {
        "--preset": get_args(Preset).__contains__,
        "--arch": _is_architecture,
        "--training": OBJECTIVES.__contains__,
        "--studies": ("all", *study_names()).__contains__,
        "--evaluation.autoattack": ("none", "standard", "plus", *attacks.ATTACKS).__contains__,
    }
    arguments, options = _objective_options(list(flags.corrected(map(_today, arguments), known)))
    arguments, path = _config_path(arguments)
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag, usual in (("preset", "quick"), ("dataset", "shapetex"), ("arch", "vgg"), ("training", "nt,at")):
        first.add_argument(f"--{flag}", default=usual)
    chosen, _ = first.parse_known_args(arguments)
    if not known["--preset"](chosen.preset):
        raise InputError(f"--preset is {chosen.preset!r}; choose {' or '.join(get_args(Preset))}.")
    with flags_in_messages(RunCommand):
        trainings = split_commas(chosen.training)
        if path is None:
            defaults = preset(chosen.preset, dataset=chosen.dataset, arch=chosen.arch, trainings=trainings)
        else:
            defaults = _config_in(path)
            if "--preset" in arguments and chosen.preset != defaults.preset:
                raise InputError(f"--preset {chosen.preset} and --config both choose the defaults; leave one out.")
        options = {**dict(defaults.objective_options), **dict(options)}
        defaults = dataclasses.replace(defaults, objective_options=tuple(sorted(options.items())))
        command = flags.parse(
            RunCommand,
            arguments,
            program=program,
            default=RunCommand(config=defaults),
            description=_description(),
        )
        given = {flag.replace("_", "-") for flag in flags.separated(arguments) if flag.startswith("--")}
        norm = command.config.attack.norm
        if norm != defaults.attack.norm and "--attack.eps" not in given:
            command = _with_attack(command, eps=DEFAULT_EPS[norm])
        if "--attack.step-size" in given or not given & {"--attack.norm", "--attack.eps", "--attack.steps"}:
            return command
        return _step_following_radius(command, defaults)


def main(arguments: Sequence[str], *, program: str) -> None:
    """Parses the flags, runs, and prints the outcome."""
    command = parse(arguments, program=program)
    with flags_in_messages(RunCommand):
        address = processes.find(command.processes, command.coordinator, command.process_index)
    from mi_jax import runs  # here, as the figures and checkpoints behind it are slow to import
    from mi_jax.report import terminal

    same = "The same command without --overwrite" if command.overwrite else "The same command"
    stopped = f"Stopped; {command.directory} is saved. {same} resumes from here."
    with (
        session(RunCommand, when_stopped=stopped, address=address) as (reporter, stop),
        mirror(command) as on_records,
    ):
        reporter.say(expected(command.config, command.directory))
        page = runs.run(
            command.config,
            run_dir=command.directory,
            data_dir=command.data_dir,
            overwrite=command.overwrite,
            command=printable(shlex.join([*program.split(), *arguments])),
            reporter=reporter,
            stop_asked=stop,
            on_records=on_records,
        )
        if processes.is_first():
            for table in terminal.tables_of(command.directory):
                reporter.show(table)
        reporter.say(f"Report: {page}")


@contextlib.contextmanager
def mirror(command: RunCommand) -> Iterator[Callable[[Sequence[Record]], None]]:
    """What receives the records of a run: TensorBoard if requested."""
    if not (command.tensorboard and processes.is_first()):
        yield lambda rows: None
        return
    from mi_jax.runs.tensorboard import TensorBoard

    with TensorBoard(command.directory / "tensorboard") as writer:
        yield writer


def study_names() -> list[str]:
    """The studies, in alphabetical order, without importing them."""
    spec = find_spec("mi_jax.studies")
    assert spec is not None
    folders = [m.name for m in pkgutil.iter_modules(spec.submodule_search_locations) if m.ispkg]
    return sorted({*folders, "autoattack", "shape_bias"})


def _is_architecture(name: str) -> bool:
    try:
        models.create(name, num_classes=10, input_shape=(32, 32, 3))
    except InputError:
        return False
    return True


def _today(argument: str) -> str:
    """A flag in today's spelling."""
    for old, new in OLD_SPELLINGS.items():
        argument = new + argument.removeprefix(old) if argument.startswith(old) else argument
    return argument


def _objective_options(arguments: Sequence[str]) -> tuple[list[str], tuple[tuple[str, Option], ...]]:
    """The arguments without `--objective.NAME.OPTION VALUE`, and those options; some have a separate flag."""
    rest, options, remaining = [], {}, iter(arguments)
    for argument in remaining:
        name, dot, option = argument.removeprefix(_OBJECTIVE).partition(".")
        if not argument.startswith(_OBJECTIVE) or not dot:
            rest.append(argument)
            continue
        option, text = option.replace("-", "_"), next(remaining, "")
        objective = OBJECTIVES.get_or_explain(name)
        hints = typing.get_type_hints(objective)
        kind = next((hints[field.name] for field in dataclasses.fields(objective) if field.name == option), str)
        if f"{name}.{option}" in _OWN_FLAGS:
            rest += [f"--{option}", text]
            continue
        try:
            options[f"{name}.{option}"] = _READERS[kind](text)
        except (KeyError, ValueError):
            raise InputError(f"{argument} is {text!r}; expected a value of type {kind.__name__}.") from None
    return rest, tuple(sorted(options.items()))


def _config_path(arguments: Sequence[str]) -> tuple[list[str], Path | None]:
    """The arguments without `--config PATH`, and that path."""
    rest = list(arguments)
    if "--config" not in rest:
        return rest, None
    at = rest.index("--config")
    if at + 1 == len(rest) or not rest[at + 1]:
        raise InputError("--config needs a path: a run directory or its config.json.")
    return rest[:at] + rest[at + 2 :], Path(os.path.expanduser(rest[at + 1]))


def _config_in(path: Path) -> RunConfig:
    """The configuration in a run directory or a `config.json`."""
    file = path / "config.json" if path.is_dir() else path
    from mi_jax.runs.run_files import saved_config  # imports pandas, for which `--help` does not wait

    try:
        found = saved_config(path) if path.is_dir() else json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        raise InputError(f"--config is {str(path)!r}; expected a run directory or its config.json.") from None
    return json_codec.from_dict(RunConfig, found, where=str(file))


def _description() -> str:
    choices = {
        "Architectures": models.ARCHITECTURES,
        "Training objectives": OBJECTIVES,
        "Studies": study_names(),
        "Options of an objective": ("--objective.NAME.OPTION VALUE",),
        "Start from the configuration of another run": ("--config PATH",),
        "Data sets": ("shapetex", "digits", "folder:PATH", "any image-classification set of TFDS"),
    }
    first = (RunCommand.__doc__ or "").splitlines()[0]
    lines = [textwrap.fill(f"{kind}: {', '.join(names)}.", 100) for kind, names in choices.items()]
    return "\n\n".join([first, *lines])


def _step_following_radius(command: RunCommand, defaults: RunConfig) -> RunCommand:
    attack, usual = command.config.attack, defaults.attack
    ratio = usual.step_size / usual.eps if usual.eps else 0.0  # with radius 0, a step says nothing about others
    step = attack.eps * max(ratio, 1 / max(attack.steps, 1))
    return _with_attack(command, step_size=step or usual.step_size)


def _with_attack(command: RunCommand, **changes: float) -> RunCommand:
    attack = dataclasses.replace(command.config.attack, **changes)
    return dataclasses.replace(command, config=dataclasses.replace(command.config, attack=attack))
