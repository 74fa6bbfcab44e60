"""Downloads and prepares a TFDS data set once; the same as `mi-jax prepare`.

python experiments/prepare_data.py --dataset cifar10
"""

from mi_jax.cli.dispatch import script

if __name__ == "__main__":
    script("prepare", __file__)
