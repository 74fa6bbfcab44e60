"""Rebuilds the figures and the report page of a run from its records alone: `python experiments/report.py RUN_DIR`."""

from pathlib import Path

import tyro

from mi_jax import cli, report
from mi_jax.runs.directory import disk_errors_explained


def main(run_dir: tyro.conf.Positional[Path], *, every_figure: bool = False) -> None:
    """Rebuild figures/*.png and report.html of a run directory from its records.

    Args:
        run_dir: the run directory, for example runs/shapetex-vgg.
        every_figure: draw the minor figures too: further noise rules, and binning.
    """
    with cli.leaving_cleanly(), disk_errors_explained(run_dir):
        print(report.build(run_dir, every_figure=every_figure))


if __name__ == "__main__":
    tyro.cli(main)
