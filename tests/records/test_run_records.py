"""Queries of a run's records: which of several measurements of the same network counts."""

import pytest

from mi_jax import records
from mi_jax.records.run_records import accuracy_on_test, read
from mi_jax.records.table import Record


@pytest.mark.parametrize(("images", "kept"), [(250, [0.5, 0.75]), (1000, [0.8]), (4000, [0.8])])
def test_accuracies_are_those_of_more_images_and_of_the_finished_network_where_equal(tmp_path, images, kept):
    rows = {"quantity": "accuracy", "training": "nt", "seed": 0, "image_set": "test", "inputs": "clean"}
    during = [Record(value=v, epoch=e, step=e, checkpoint="epoch", n=1000, **rows) for e, v in ((1, 0.5), (2, 0.75))]
    finished = Record(value=0.8, epoch=2, step=2, checkpoint="last", n=images, **rows)
    records.append(tmp_path, [*during, finished])
    assert accuracy_on_test(read(tmp_path))["value"].tolist() == kept
