"""Times this package against others; the same as `mi-jax benchmark`.

python experiments/benchmark.py training
"""

from mi_jax.cli.dispatch import script

if __name__ == "__main__":
    script("benchmark", __file__)
