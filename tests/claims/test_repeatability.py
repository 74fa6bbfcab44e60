"""The quick run's verdicts do not hang on how convolutions round or on the order of the training images.

Takes a quarter of an hour with optimised programs: `XLA_FLAGS= python -m pytest -n 0 -m slow` with this file.
"""

import subprocess
import sys

import jax
import pytest

import mi_jax as mj
from mi_jax import data
from mi_jax.claims import evaluate
from mi_jax.models import convolution
from mi_jax.records.run_records import read


def verdicts(run_dir):
    """The verdict of every claim, combined and under each noise rule."""
    run = read(run_dir)
    return {
        (claim.number, rule): claim.combined(run.noise_rules) if rule is None else claim.verdict(rule)
        for claim in evaluate(run)
        for rule in (None, *run.noise_rules)
    }


def convolutions_by_slices():
    by_method = convolution._by_method
    convolution._by_method = lambda *given: by_method(*given[:-1], "patches")


def another_order_of_images():
    order = data.epoch_order
    data.epoch_order = lambda key, epoch, n: order(jax.random.fold_in(key, 7), epoch, n)


CHANGES = {change.__name__: change for change in (convolutions_by_slices, another_order_of_images)}


@pytest.mark.slow
def test_the_quick_run_gives_the_same_verdicts_with_other_convolutions_and_another_order(tmp_path):
    found, losses = [], []
    for name in ("as_it_is", *CHANGES):
        run_dir = tmp_path / name
        subprocess.run([sys.executable, __file__, name, run_dir], check=True, capture_output=True)
        found.append(verdicts(run_dir))
        losses.append(read(run_dir).select(quantity="loss", training="at")["value"].sum())
    assert len(set(losses)) == 3, "each change has an effect"
    assert found[1] == found[0]
    assert found[2] == found[0]


if __name__ == "__main__":
    _, name, run_dir = sys.argv
    CHANGES.get(name, lambda: None)()
    mj.run(arch="vgg", dataset="shapetex", preset="quick", run_dir=run_dir, quiet=True)
