"""`mi-jax benchmark`: times against other packages, whose side is in `experiments/benchmarks`."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mi_jax.cli import flags
from mi_jax.errors import InputError

PEERS = {
    "training": ("torch", "torchattacks"),
    "attacks": ("torch", "torchattacks", "foolbox", "pyautoattack"),
    "information": ("torch",),
    "accelerator": (),
}
FOLDER = Path(__file__).parents[2] / "experiments" / "benchmarks"


@dataclass(frozen=True)
class BenchmarkCommand:
    """Times this package and others on the same weights and images, in turn, and prints ratios.

    Attributes:
        subject: `training` (PGD and adversarial training of VGG-11), `attacks`, `information`, or `accelerator`, which
            compiles for an H100 and a TPU, without having either, and prints the times that their rates allow.
        quick: small sizes, once, to check that everything runs; the times mean nothing.
    """

    subject: Annotated[Literal["training", "attacks", "information", "accelerator"], tyro.conf.Positional]
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


def main(arguments: Sequence[str], *, program: str) -> None:
    """Parses the flags and runs the benchmark."""
    command = flags.parse(BenchmarkCommand, arguments, program=program)
    if not FOLDER.is_dir():
        raise InputError("The benchmarks are not part of the installed package; run them from a clone of the source.")
    missing = [name for name in PEERS[command.subject] if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"This benchmark needs {', '.join(missing)}; run `pip install -e '.[bench]'` and "
            "`pip install --no-deps torchattacks==3.5.1`."
        )
    sys.path.insert(0, str(FOLDER))
    importlib.import_module(command.subject).main(quick=command.quick)
