"""Runs one experiment from data to report; the same as `mi-jax run`.

python experiments/run.py --arch=vgg
"""

from mi_jax.cli.dispatch import script

if __name__ == "__main__":
    script("run", __file__)
