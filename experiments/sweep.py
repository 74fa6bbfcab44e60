"""Trains over a grid of cue strengths; the same as `mi-jax sweep`.

python experiments/sweep.py
"""

from mi_jax.cli.dispatch import script

if __name__ == "__main__":
    script("sweep", __file__)
