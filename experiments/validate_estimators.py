"""Compares every estimator with tasks of known information; the same as `mi-jax validate`.

python experiments/validate_estimators.py
"""

from mi_jax.cli.dispatch import script

if __name__ == "__main__":
    script("validate", __file__)
