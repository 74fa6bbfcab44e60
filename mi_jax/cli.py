"""What the programs in `experiments/` share: reading flags into configurations and leaving with a clear sentence."""

import argparse
import dataclasses
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from mi_jax.errors import InputError
from mi_jax.options import split_commas
from mi_jax.runs.config import RunConfig, preset
from mi_jax.runs.signals import EXIT_INTERRUPTED

C = TypeVar("C")
EXIT_BAD_INPUT = 2
_PIXEL_FLAG = re.compile(r"--(?:[\w-]+\.)?(?:eps|step-size|noise)")
_FRACTION = re.compile(r"(-?\d+(?:\.\d+)?)/([1-9]\d*)")


@dataclass(frozen=True)
class RunCommand:
    """Trains normally and adversarially, measures what every layer tells of input and label, and writes a report.

    Attributes:
        config: what is done; kept in the run directory and compared when a run goes on.
        run_dir: where everything is written; `runs/<dataset>-<arch>` by default. The same command on an unfinished
            directory goes on where it stopped.
        data_dir: where TFDS data sets are; TFDS's own default without it.
        overwrite: deletes an earlier run in `run_dir` and starts anew.
    """

    config: Annotated[RunConfig, tyro.conf.arg(name="")]
    run_dir: Path | None = None
    data_dir: str | None = None
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False

    @property
    def directory(self) -> Path:
        """Where this run is written."""
        return self.run_dir or Path("runs") / f"{self.config.dataset.replace('/', '_')}-{self.config.arch}"


def parse_run(arguments: Sequence[str]) -> RunCommand:
    """The command that `experiments/run.py` was given; `--preset`, `--dataset`, `--arch`, `--training` choose defaults.

    Where the threat model is given and the step of the training attack is not, the step follows the radius.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="quick")
    first.add_argument("--dataset", default="shapetex")
    first.add_argument("--arch", default="vgg")
    first.add_argument("--training", default="nt,at")
    chosen, _ = first.parse_known_args(arguments)
    if chosen.preset not in ("quick", "paper"):
        raise InputError(f"preset is {chosen.preset!r}; choose quick or paper.")
    config = preset(chosen.preset, dataset=chosen.dataset, arch=chosen.arch, trainings=split_commas(chosen.training))
    command = parse(RunCommand, arguments, default=RunCommand(config=config))
    given = {flag.replace("_", "-") for flag in _separated(arguments) if flag.startswith("--")}
    if "--attack.step-size" in given or not given & {"--attack.norm", "--attack.eps", "--attack.steps"}:
        return command
    attack, usual = command.config.attack, config.attack
    step = attack.eps * max(usual.step_size / usual.eps, 1 / max(attack.steps, 1))
    attack = dataclasses.replace(attack, step_size=step or usual.step_size)
    return dataclasses.replace(command, config=dataclasses.replace(command.config, attack=attack))


def parse(command: type[C], arguments: Sequence[str], *, default: C | None = None) -> C:
    """Flags as an instance of the dataclass `command`; prints help or what is wrong, and leaves, where that is due.

    Pixel units may be given as fractions: `--attack.eps=8/255`.
    """
    read = list(_separated(arguments))
    if default is None:
        return tyro.cli(command, args=read)
    return tyro.cli(command, args=read, default=default)


def _separated(arguments: Sequence[str]) -> Iterator[str]:
    """`--flag=value` as two arguments, so that a misspelt flag is recognised as one, and fractions as numbers."""
    flag = ""
    for argument in arguments:
        if argument.startswith("--"):
            flag, given, value = argument.partition("=")
            flag = re.sub(r"^--probe\.", "--information.", flag)  # the name it had before
            yield flag
            if given:
                yield _number(flag, value)
        else:
            yield _number(flag, argument)


def _number(flag: str, value: str) -> str:
    fraction = _FRACTION.fullmatch(value)
    return repr(float(fraction[1]) / float(fraction[2])) if fraction and _PIXEL_FLAG.fullmatch(flag) else value


@contextmanager
def leaving_cleanly() -> Iterator[None]:
    """Turns bad input into one sentence and status 2, and Ctrl-C into status 130; other errors keep their traceback.

    Where whoever reads the output leaves before its end, as `| head` does, the status is 1 and nothing is said.
    """
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's last flush fails again
        sys.exit(1)
