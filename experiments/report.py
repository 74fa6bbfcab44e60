"""Rebuilds the figures and the report page of a run from its records alone: `python experiments/report.py RUN_DIR`."""

import sys
from pathlib import Path

import tyro

from mi_jax import report
from mi_jax.errors import InputError


def main(run_dir: tyro.conf.Positional[Path], *, every_figure: bool = False) -> None:
    """Rebuild figures/*.png and report.html of a run directory from its records.

    Args:
        run_dir: the run directory, for example runs/shapetex-vgg.
        every_figure: draw the minor figures too: further rulers, and binning.
    """
    try:
        print(report.build(run_dir, every_figure=every_figure))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    tyro.cli(main)
