"""Rebuilds the figures and the report of a run from its records; the same as `mi-jax report`.

python experiments/report.py RUN_DIR
"""

from mi_jax.cli.dispatch import script

if __name__ == "__main__":
    script("report", __file__)
