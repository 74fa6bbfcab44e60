"""The validators shared by configurations and engines."""

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from mi_jax import checks
from mi_jax.errors import InputError

X, Y = np.full((3, 2, 2, 1), 0.5, np.float32), np.array([0, 1, 2])


@pytest.mark.parametrize(
    ("check", "accepted", "refused"),
    [
        (checks.positive, [1, 0.5, np.float32(2)], [0, -1, float("nan"), float("inf"), 10**400, True, "1", None]),
        (lambda n, v: checks.at_least(n, v, 0), [0, 3, np.int64(1)], [-1e-9, float("nan"), float("inf")]),
        (lambda n, v: checks.between(n, v, 0, 1), [0, 1, 0.5], [-0.1, 1.1, float("nan")]),
        (checks.share, [0, 0.99], [1, -0.1, float("nan")]),
        (checks.count, [1, np.int32(7), 2**31 - 1], [0, 1.0, True, "3", None, 2**31, 10**30]),
        (lambda n, v: checks.count(n, v, most=5), [5], [6]),
        (lambda n, v: checks.one_of(n, v, ("a", "b")), ["a"], ["c", None]),
        (checks.string, ["", np.str_("a")], [2, None, b"a", ["a"]]),
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
        (X - 1, r"Map \[-1, 1\] to \[0, 1\]"),
        (np.full((3, 3, 8, 8), 0.5), r"looks like \[b, c, h, w\]"),
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


def test_torch_tensors_and_pixels_beyond_the_range_by_rounding_are_accepted():
    np.testing.assert_array_equal(checks.images(torch.tensor(X)), X)
    np.testing.assert_array_equal(checks.labels(torch.tensor(Y), 3, classes=3), Y)
    np.testing.assert_array_equal(checks.images(X + np.float32(0.5000002)), np.ones_like(X))


@pytest.mark.parametrize(("given", "native"), [(">f4", "f4"), (">f8", "f8"), (np.longdouble, "f8"), (">i2", "i2")])
def test_numbers_that_jax_cannot_hold_are_converted(given, native):
    values = np.array([1, 2, 3])
    for array in (values.astype(given), list(values.astype(given)), values.astype(given)[2]):
        converted = checks.array(array, name="Maps")
        assert (converted.dtype, converted.dtype.isnative) == (np.dtype(native), True)
        np.testing.assert_array_equal(jnp.asarray(converted), np.asarray(array, native))
    images = np.full((1, 2, 2, 1), 0.5).astype(given if np.dtype(given).kind == "f" else ">f4")
    np.testing.assert_array_equal(checks.images(images), 0.5)
    assert checks.array(values, name="Maps") is values


def test_labels_of_any_integer_type_become_int32():
    assert checks.labels([0, 1, 2], 3).dtype == checks.labels(Y.astype(np.uint8), 3).dtype == jnp.int32


@pytest.mark.parametrize(
    ("logits", "sentence"),
    [
        (np.full((3, 2), 0.5), "probabilities"),
        (np.full((3, 2), np.nan), "NaN logits for 3 of 3"),
        (np.array([[0.0, np.inf]] * 3), "infinite logits for 3 of 3"),
        (np.array([[0.0, -np.inf], [1.0, 2.0], [-np.inf, -np.inf]]), "infinite logits for 1 of 3"),
        (0.99 * np.eye(3), "probabilities"),
        (np.full((3, 2), -4.0), r"Labels must lie in 0\.\.1; got values from 0 to 2"),
        (np.ones((3, 1)), "single column"),
        (np.ones((2, 2)), r"shape \[3, classes\]"),
    ],
)
def test_outputs_that_are_no_logits_or_do_not_fit_the_labels_are_refused(logits, sentence):
    with pytest.raises(InputError, match=sentence):
        checks.logits(logits, Y)


def test_tracers_are_checked_for_shape_alone():
    jax.jit(lambda x, y: (checks.images(x), checks.labels(y, 3, classes=2)))(X * 255, Y)
    with pytest.raises(InputError, match="must have shape"):
        jax.jit(checks.images)(X[0])


def test_a_random_key_is_taken_as_it_is_and_made_from_an_integer_seed():
    raw = jax.random.PRNGKey(1)
    assert checks.key(raw) is raw
    for seed in (7, np.int64(7)):
        assert checks.key(seed) == jax.random.key(7)


@pytest.mark.parametrize("value", [None, True, 0.5, "0", np.arange(2), jax.random.split(jax.random.key(0), 2)])
def test_what_is_neither_a_random_key_nor_a_seed_is_refused(value):
    with pytest.raises(InputError, match=r"^Invalid key .*: expected a JAX random key or an integer seed, such as"):
        checks.key(value)


def test_whole_numbers_of_any_array_library_are_seeds_and_words_of_another_generator_are_no_key():
    for seed in (np.array(7), jnp.int32(7), torch.tensor(7), np.uint32(7)):
        assert checks.key(seed) == jax.random.key(7)
    for value in (2**70, np.zeros(3, np.uint32), torch.tensor(0.5)):
        with pytest.raises(InputError, match=r"^Invalid key "):
            checks.key(value)


def test_arrays_that_would_lose_values_on_the_way_are_refused_and_bfloat16_is_widened():
    assert checks.array(torch.tensor([0.5], dtype=torch.bfloat16), name="Images").dtype == np.float32
    with pytest.raises(InputError, match="without a mask"):
        checks.images(np.ma.array(X))
    with pytest.raises(InputError, match="1 of 3 hold NaN"):
        checks.images(np.where(np.arange(3)[:, None, None, None] == 1, np.nan, X))
    with pytest.raises(InputError, match="got values from 4294967296 to 4294967298"):  # as int32 they were 0 to 2
        checks.labels(Y + 2**32, 3)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [(3, "must be a function"), (torch.nn.ReLU(), "is a torch module"), (flax.linen.Dense(2), "its method `apply`")],
)
def test_what_is_no_function_of_variables_and_images_is_refused(value, sentence):
    with pytest.raises(InputError, match=sentence):
        checks.model(value)
