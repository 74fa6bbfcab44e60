"""Finds the command, runs it, and turns errors that a user can correct into one line and an exit status.

Imports nothing heavy, so that the list of commands and a misspelt one are answered at once.
"""

import difflib
import importlib
import importlib.util
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mi_jax import __version__
from mi_jax.errors import InputError
from mi_jax.runs.signals import EXIT_INTERRUPTED

COMMANDS = {
    "run": "train normally and adversarially, measure every layer, write a report",
    "study": "run one study on the trained networks of a run",
    "evaluate": "clean and AutoAttack accuracy of a PyTorch checkpoint, or of the networks of a run",
    "report": "rebuild the figures and the report of a run from its records",
    "sweep": "train over a grid of cue strengths: when does adversarial training prefer shape?",
    "benchmark": "time attacks, training and estimators against other packages (from a clone)",
    "prepare": "download and prepare a TFDS data set once",
    "validate": "compare every estimator with tasks of known information",
}
EXIT_BAD_INPUT = 2


def main(arguments: Sequence[str] | None = None, *, program: str = "mi-jax") -> None:
    """Runs one command; exits with status 0, 2 for input that cannot be used, 130 or 75 for a run that was stopped.

    Args:
        arguments: the command and its flags; those of this process by default.
        program: what was typed before them, for usage lines and the provenance of a run.
    """
    with clean_exit():
        _survive_any_encoding()
        arguments = list(sys.argv[1:] if arguments is None else arguments)
        name, *rest = _import_extensions(arguments) or ["--help"]
        if name in ("-h", "--help"):
            print(_overview(program))
        elif name == "--version":
            print(f"mi_jax {__version__}")
        elif name in COMMANDS:
            _command(name).main(rest, program=f"{program} {name}")
        else:
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            meant = f" Did you mean {near[0]}?" if near else ""
            raise InputError(f"There is no command {name!r}; choose from {', '.join(COMMANDS)}.{meant}")


def script(name: str, path: str) -> None:
    """Runs a command from a file in `experiments/`, with the flags of this process."""
    with clean_exit():
        _survive_any_encoding()
        arguments = _import_extensions(sys.argv[1:])
        _command(name).main(arguments, program=f"python experiments/{Path(path).name}")


def _command(name: str) -> Any:
    """The module of a command. JAX and matplotlib read environment variables as it imports them."""
    os.environ["MPLBACKEND"] = "agg"  # figures are only written to files
    try:
        return importlib.import_module(f"mi_jax.cli.{name}")
    except ValueError as error:
        variables = [variable for variable in os.environ if variable.startswith("JAX_") and variable in str(error)]
        if not variables:
            raise
        raise InputError(
            f"The environment variable {variables[0]} is {os.environ[variables[0]]!r}, which JAX refuses: unset it."
        ) from error


@contextmanager
def clean_exit() -> Iterator[None]:
    """Turns bad input into one line and status 2, and Ctrl-C into status 130; other errors keep their traceback.

    Errors of the file system count as bad input, also where the output is a file on a full disk. When the reader of the
    output closes it early, as `| head` does, the status is 1 and nothing is printed.
    """
    try:
        with _input_errors_printed(), _output_flushed():
            yield
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        _discard_output()
        sys.exit(1)
    except OSError as error:
        from mi_jax.files import disk_errors_explained  # imports numpy

        if error.filename is None:
            _discard_output()
        with _input_errors_printed(), disk_errors_explained(Path("the output")):
            raise


@contextmanager
def _input_errors_printed() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)


@contextmanager
def _output_flushed() -> Iterator[None]:
    """Flushes the output on leaving, while an error can still be reported."""
    try:
        yield
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()


def _discard_output() -> None:
    """Drops what cannot be written, as the last flush of the interpreter would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _overview(program: str) -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {program} COMMAND [OPTIONS]",
            "",
            "Measure what information normally and adversarially trained networks take from images, shape or texture.",
            "",
            *lines,
            "",
            f"`{program} COMMAND --help` explains the options. `--import FILE.py` loads your own architectures, data",
            "sets, attacks, objectives, estimators and studies before the options are read.",
        ]
    )


def _survive_any_encoding() -> None:
    """Lets a character that the terminal cannot show be replaced, and a path that is not UTF-8 be escaped."""
    for stream, handler in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            is_unicode = (stream.encoding or "").lower().replace("-", "").startswith("utf")
            reconfigure(errors="backslashreplace" if is_unicode else handler)


def _import_extensions(arguments: Sequence[str]) -> list[str]:
    """Imports the files that `--import` names, and returns the other arguments."""
    left: list[str] = []
    given = iter(arguments)
    for argument in given:
        flag, has_value, value = argument.partition("=")
        if flag != "--import":
            left.append(argument)
            continue
        name = value if has_value else next(given, "")
        if not name:
            raise InputError("--import needs a Python file, such as my_model.py.")
        _import_file(Path(os.path.expanduser(name)))
    return left


def _is_installed(name: str) -> bool:
    """Whether a name is that of a module of the standard library or of an installed package such as jax or six."""
    if "." in name or name == "__main__" or name in sys.stdlib_module_names:
        return "." not in name
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        return False
    origin, installed = Path(found.origin), (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    return origin.name == "__init__.py" or str(origin.parent) in installed


def _import_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"--import is {str(path)!r}, which is not a file; expected a Python file such as my_model.py.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"--import is {str(path)!r}; expected a Python file, whose name ends in .py.")
    if _is_installed(path.stem):
        raise InputError(f"--import is {str(path)!r}, which would hide the package {path.stem}; rename the file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.parent.resolve()))  # the file may import its neighbours
    try:
        spec.loader.exec_module(module)
    except InputError:
        raise
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == spec.origin]
        where = f" in line {lines[-1]}" if lines else ""
        raise InputError(f"--import {path} failed{where} ({type(error).__name__}: {error}); fix the file.") from error
