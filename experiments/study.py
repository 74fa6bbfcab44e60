"""Runs one study on the trained networks of a run; the same as `mi-jax study`.

python experiments/study.py shape_texture runs/shapetex-vgg
"""

from mi_jax.cli.dispatch import script

if __name__ == "__main__":
    script("study", __file__)
