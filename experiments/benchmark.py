"""Races against peers in one process: `python experiments/benchmark.py training`; needs the extra `bench`."""

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mi_jax import cli
from mi_jax.errors import InputError

PEERS = {
    "training": ("torch", "torchattacks"),
    "attacks": ("torch", "torchattacks", "foolbox", "pyautoattack"),
    "information": ("torch",),
}


@dataclass(frozen=True)
class BenchmarkCommand:
    """Times this program and its peers on the same weights and images, in turn, and prints ratios.

    Attributes:
        subject: `training` (PGD and adversarial training of VGG-11), `attacks`, or `information`.
        quick: small sizes, once, to see that everything runs; its figures mean nothing.
    """

    subject: Annotated[Literal["training", "attacks", "information"], tyro.conf.Positional]
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


def main() -> None:
    """Parses the command line and runs the race."""
    with cli.leaving_cleanly():
        command = cli.parse(BenchmarkCommand, sys.argv[1:])
        missing = [name for name in PEERS[command.subject] if importlib.util.find_spec(name) is None]
        if missing:
            raise InputError(
                f"This benchmark needs {', '.join(missing)}; run `pip install -e '.[bench]'` and "
                "`pip install --no-deps torchattacks==3.5.1`."
            )
        sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
        importlib.import_module(command.subject).main(quick=command.quick)


if __name__ == "__main__":
    main()
