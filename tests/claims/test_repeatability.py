"""The quick run's verdicts do not hang on how convolutions round or on the order of the training images.

Takes a quarter of an hour with optimised programs: `XLA_FLAGS= python -m pytest -n 0 -m slow` with this file.
"""

import jax
import pytest

from mi_jax import data, runs
from mi_jax.claims import evaluate
from mi_jax.models import convolution
from mi_jax.records.run_records import read
from mi_jax.runs.config import preset


def verdicts(run_dir):
    """The verdict of every claim, combined and under each noise rule."""
    run = read(run_dir)
    return {
        (claim.number, rule): claim.combined(run.noise_rules) if rule is None else claim.verdict(rule)
        for claim in evaluate(run)
        for rule in (None, *run.noise_rules)
    }


def as_it_is(patch):
    pass


def with_convolutions_by_slices(patch):
    by_method = convolution._by_method
    patch.setattr(convolution, "_by_method", lambda *given: by_method(*given[:-1], "patches"))


def with_another_order_of_images(patch):
    order = data.epoch_order
    patch.setattr(data, "epoch_order", lambda key, epoch, n: order(jax.random.fold_in(key, 7), epoch, n))


@pytest.mark.slow
def test_the_quick_run_gives_the_same_verdicts_with_other_convolutions_and_another_order(tmp_path, quiet):
    config = preset("quick", dataset="shapetex", arch="vgg", trainings=("nt", "at"))
    found, losses = [], []
    for change in (as_it_is, with_convolutions_by_slices, with_another_order_of_images):
        with pytest.MonkeyPatch.context() as patch:
            change(patch)
            jax.clear_caches()
            runs.run(config, run_dir=tmp_path / change.__name__, command="test", reporter=quiet)
        found.append(verdicts(tmp_path / change.__name__))
        losses.append(read(tmp_path / change.__name__).select(quantity="loss", training="at")["value"].sum())
    assert len(set(losses)) == 3, "each change has an effect"
    assert found[1] == found[0]
    assert found[2] == found[0]
