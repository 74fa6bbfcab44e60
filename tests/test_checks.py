"""The validators shared by configurations and engines."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax import checks
from mi_jax.errors import InputError

X, Y = np.full((3, 2, 2, 1), 0.5, np.float32), np.array([0, 1, 2])


@pytest.mark.parametrize(
    ("check", "accepted", "refused"),
    [
        (checks.positive, [1, 0.5, np.float32(2)], [0, -1, float("nan"), float("inf"), True, "1", None]),
        (lambda n, v: checks.at_least(n, v, 0), [0, 3, np.int64(1)], [-1e-9, float("nan"), float("inf")]),
        (lambda n, v: checks.between(n, v, 0, 1), [0, 1, 0.5], [-0.1, 1.1, float("nan")]),
        (checks.share, [0, 0.99], [1, -0.1, float("nan")]),
        (checks.count, [1, np.int32(7)], [0, 1.0, True, "3", None]),
        (lambda n, v: checks.one_of(n, v, ("a", "b")), ["a"], ["c", None]),
    ],
)
def test_scalar_checks_accept_and_refuse_with_one_sentence(check, accepted, refused):
    for value in accepted:
        check("size", value)
    for value in refused:
        with pytest.raises(InputError, match=r"^Invalid size .*: expected .*\.$"):
            check("size", value)


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (X[0], "must have shape"),
        ((X * 255).astype(np.uint8), "divide 8-bit pixels by 255"),
        (X * 255, r"must lie in \[0, 1\]"),
        (X * np.nan, r"must lie in \[0, 1\]"),
        (X[:0], "at least one pixel"),
        (None, "must be an array"),
    ],
)
def test_images_out_of_shape_dtype_or_range_are_refused(images, sentence):
    with pytest.raises(InputError, match=sentence):
        checks.images(images)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (Y + 1, r"0\.\.2"),
        (Y - 1, r"0\.\.2"),
        (Y[:1], r"shape \[3\]"),
        (Y[:, None], r"shape \[3\]"),
        (np.eye(3), r"shape \[3\]"),
        (Y.astype(np.float32), "integers"),
        ([[0], [1, 2]], "ragged"),
    ],
)
def test_labels_out_of_shape_dtype_or_range_are_refused(labels, sentence):
    with pytest.raises(InputError, match=sentence):
        checks.labels(labels, 3, classes=3)


def test_labels_of_any_integer_type_become_int32():
    assert checks.labels([0, 1, 2], 3).dtype == checks.labels(Y.astype(np.uint8), 3).dtype == jnp.int32


@pytest.mark.parametrize(
    ("logits", "sentence"),
    [
        (np.full((3, 2), 0.5), "probabilities"),
        (np.full((3, 2), np.nan), "NaN logits for 3 of 3"),
        (np.ones((3, 1)), "single column"),
        (np.ones((2, 2)), r"shape \[3, classes\]"),
    ],
)
def test_outputs_that_are_no_logits_are_refused(logits, sentence):
    with pytest.raises(InputError, match=sentence):
        checks.logits(logits, 3)


def test_tracers_are_checked_for_shape_alone():
    jax.jit(lambda x, y: (checks.images(x), checks.labels(y, 3, classes=2)))(X * 255, Y)
    with pytest.raises(InputError, match="must have shape"):
        jax.jit(checks.images)(X[0])
