"""Valid and invalid activations, labels and options of the estimators, and registration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax.errors import InputError
from mi_jax.information import (
    ESTIMATORS,
    NOISE_RULES,
    Estimate,
    binning,
    estimate,
    fit_probe,
    kde,
    ksg,
    monte_carlo,
    noise_grid,
    noise_variance,
    probe,
    register,
    renyi,
    scale_split,
    sliced,
    variational,
)


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((40, 3))


def test_arrays_of_unequal_length_are_refused(x, key):
    for call in (
        lambda: ksg(x, x[:30]),
        lambda: sliced(x, x[:30], key=key),
        lambda: renyi(x, x[:30]),
        lambda: variational(x, x[:30], key=key, batch=8),
    ):
        with pytest.raises(InputError, match=r"other has 30 rows and t has 40"):
            call()
    with pytest.raises(InputError, match="40 rows and then 30"):
        scale_split(x, x[:30], noise_variance=1.0)


def test_an_estimator_of_two_variables_needs_the_other(x):
    with pytest.raises(InputError, match="other is None; give int labels, or a float array"):
        ksg(x, None)


def test_noise_that_a_bound_on_another_variable_does_not_add_is_not_recorded_and_yet_checked(x, key):
    options = {"key": key, "batch": 8, "steps": 1}
    with_noise, without = (variational(x, x, noise_variance=noise, **options) for noise in (0.1, None))
    assert (with_noise.value, with_noise.settings) == (without.value, without.settings)
    with pytest.raises(InputError, match="noise_variance"):
        variational(x, x, noise_variance=-3.0, **options)


def test_an_unknown_objective_is_refused(x, key):
    with pytest.raises(InputError, match="choose from infonce, nwj, smile"):
        variational(x, x, objective="mine", key=key, batch=8)


def test_masked_values_are_refused_and_an_empty_mask_is_accepted(x):
    masked = np.ma.array(x, mask=False)
    assert kde(masked, noise_variance=1.0).i_tx_upper == kde(x, noise_variance=1.0).i_tx_upper
    masked[3, 1] = np.ma.masked
    with pytest.raises(InputError, match="masked array with 1 masked value"):
        kde(masked, noise_variance=1.0)
    with pytest.raises(InputError, match="y is a masked array"):
        kde(x, np.ma.array(np.arange(40) % 2, mask=np.arange(40) == 0), noise_variance=1.0)


def test_large_gaps_between_labels_need_no_memory(x, key):
    y = np.array([0, 1, 9999])[np.arange(40) % 3]
    got, want = (kde(x, labels, noise_variance=1.0) for labels in (y, np.arange(40) % 3))
    assert got.i_ty_upper == pytest.approx(want.i_ty_upper, abs=1e-12)
    assert got.i_tx_given_y_upper.shape == (10000,)
    np.testing.assert_allclose(got.i_tx_given_y_upper[[0, 1, 9999]], want.i_tx_given_y_upper, atol=1e-12)
    assert monte_carlo(x, y, noise_variance=1.0, key=key).i_ty == pytest.approx(
        monte_carlo(x, np.arange(40) % 3, noise_variance=1.0, key=key).i_ty, abs=1e-12
    )


def test_boolean_labels_are_two_classes(x, key):
    y = np.arange(40) % 3 == 0
    assert kde(x, y, noise_variance=1.0).i_ty_upper == kde(x, y.astype(int), noise_variance=1.0).i_ty_upper
    assert estimate("ksg", x, y, key=key).value == ksg(x, y.astype(int)).value


@pytest.mark.parametrize(
    ("y", "says"),
    [
        (np.array(["a", "b"])[np.arange(40) % 2], "return_inverse"),
        (np.eye(2, dtype=int)[np.arange(40) % 2], "argmax"),
        (np.arange(40) % 2 - 1, "0 and above"),
        (np.arange(40) * 10**9, "must be in"),
    ],
)
def test_labels_that_are_not_class_indices_are_refused(x, y, says, key):
    with pytest.raises(InputError, match=says):
        kde(x, y, noise_variance=1.0)
    with pytest.raises(InputError, match=says):
        estimate("ksg", x, y, key=key)


@pytest.mark.parametrize("bad", [0, -1, 2.5, "3", "x", float("nan"), float("inf"), True, 2**20 + 1, 10**9])
def test_a_number_of_classes_that_is_not_a_whole_one_in_range_is_refused(x, bad, key):
    y = np.arange(40) % 2
    for call in (
        lambda: kde(x, y, noise_variance=1.0, num_classes=bad),
        lambda: monte_carlo(x, y, noise_variance=1.0, num_classes=bad, key=key),
        lambda: binning(x, y, num_classes=bad),
        lambda: fit_probe(x, y, num_classes=bad),
        lambda: ksg(x, y, num_classes=bad),
    ):
        with pytest.raises(
            InputError, match=rf"Invalid num_classes {bad!r}: expected a whole number of at (least|most)"
        ):
            call()


@pytest.mark.parametrize("bad", ["trace", None, "0.1", {}, True, [True, True]])
def test_a_noise_variance_that_is_not_a_number_is_refused(x, bad, key):
    with pytest.raises(InputError, match="noise_variance is"):
        kde(x, noise_variance=bad)
    with pytest.raises(InputError, match="noise_variance is"):
        monte_carlo(x, noise_variance=bad, key=key)


@pytest.mark.parametrize("size", [jnp.float32(0.5), np.array(0.5), np.float64(0.5)])
def test_a_bin_size_may_be_an_array_of_one_number(x, size):
    assert binning(x, bin_size=size) == binning(x, bin_size=0.5)


@pytest.mark.parametrize("bad", ["x", [0.5], np.array([0.5]), None, 0.0, float("inf"), np.array(-1.0)])
def test_a_bin_size_that_is_not_a_positive_number_is_refused(x, bad):
    with pytest.raises(InputError, match=r"Invalid bin_size .*: expected a positive number, such as 0\.5"):
        binning(x, bin_size=bad)


@pytest.mark.parametrize(
    ("centre", "levels", "says"),
    [
        ("x", 16, r"Invalid centre 'x': expected a positive number, such as 0\.1"),
        (0.0, 16, r"Invalid centre 0\.0: expected a positive number"),
        (1.0, 2.5, r"Invalid levels 2\.5: expected a whole number of at least 1"),
        (1e308, 16, r"16 levels around 1e\+308 leave the range of float64; take fewer"),
        (1e-307, 16, r"16 levels around 1e-307 leave the range of float64"),
        (1.0, 4000, r"4000 levels around 1 leave the range of float64"),
    ],
)
def test_noise_grids_that_are_not_positive_and_finite_are_refused(centre, levels, says):
    with pytest.raises(InputError, match=says):
        noise_grid(centre, levels=levels)
    assert noise_grid(jnp.float32(2.0), levels=2).tolist() == [1.0, 2.0]
    assert np.isfinite(noise_grid(1.0, levels=2045)).all()


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("bins", [2.5, 0, True, "5", [5]])
def test_a_number_of_bins_is_a_whole_number(x, bins):
    with pytest.raises(InputError, match=r"^Invalid bins .*: expected a whole number of at least 1, such as 30"):
        binning(x, bins=bins)


@pytest.mark.parametrize(
    ("scale", "call", "says"),
    [
        (1.7e308, lambda t: binning(t, bins=4), "The range of t is too large to be divided into 4 bins"),
        (5e-324, lambda t: binning(t, bins=4), "The range of t is too small to be divided into 4 bins"),
        (1e308, lambda t: ksg(t, np.arange(40) % 2), "t is too large for its distances to be finite"),
        (1e308, lambda t: ksg(np.sign(t), t), "other is too large for its distances to be finite"),
        (1e308, lambda t: sliced(t, np.arange(40) % 2, key=0), "t is too large for its distances to be finite"),
        (1e200, lambda t: renyi(t, np.sign(t), alpha=2), "t is too large for its squared distances to be finite"),
        (1e200, lambda t: renyi(np.sign(t), t), "other is too large for its squared distances to be finite"),
    ],
)
def test_activations_beyond_the_range_of_float64_are_refused(x, scale, call, says):
    with pytest.raises(InputError, match=rf"^{says}; rescale it first\.$"):
        call(scale * np.sign(x))


@pytest.mark.usefixtures("as_a_user")
def test_a_fixed_noise_variance_is_a_positive_number(x):
    assert noise_variance(x, value=np.array(0.5)) == noise_variance(x, value=0.5) == 0.5
    for value in ("0.1", None, np.nan, np.inf, 0, -1.0, True, [0.1]):
        with pytest.raises(InputError, match=r"^Invalid value .*: expected a positive number, such as 0\.1"):
            noise_variance(x, value=value)
    with pytest.raises(InputError, match=r"^There is no noise rule \['trace'\]; choose from fixed"):
        noise_variance(x, rule=["trace"])


@pytest.mark.parametrize("scale", [1e-30, 1e18])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_noise_rules_hold_for_very_small_and_very_large_activations(x, scale, dtype):
    t = (scale * x).astype(dtype)
    v = t.astype(np.float64).var(axis=0).mean()
    assert noise_variance(t, rule="layer") == pytest.approx(v, rel=1e-5)
    assert noise_variance(t, rule="trace") == pytest.approx(3 * v / np.log(40), rel=1e-5)


def test_float64_activations_far_from_zero_are_not_considered_constant(x):
    assert noise_variance(x + 1e8, rule="layer") == pytest.approx(x.var(axis=0).mean(), rel=1e-6)


def test_a_registered_noise_rule_is_used_by_name(x):
    NOISE_RULES.register("largest", lambda t: float(np.asarray(t).var(axis=0).max()))
    try:
        assert noise_variance(x, rule="largest") == pytest.approx(x.var(axis=0).max())
    finally:
        NOISE_RULES.unregister("largest")


def test_a_registered_estimator_is_used_by_name_for_its_targets_only(x, key):
    @register("zero", targets=("input",))
    def zero(t, other=None, *, key):
        return Estimate("zero", 0.0, None, "lower", len(t), {})

    try:
        assert estimate("zero", x, key=key).value == 0
        with pytest.raises(InputError, match="no target 'label'"):
            estimate("zero", x, np.arange(40) % 2, key=key)
    finally:
        ESTIMATORS.unregister("zero")


def test_rows_of_one_image_stay_in_one_fold_of_the_probe(key):
    """Without groups, copies of an uninformative image in both folds let the probe recognise its label."""
    r = np.random.default_rng(1)
    images, labels = r.standard_normal((60, 200)), r.integers(0, 2, 60)
    t, y, groups = (np.repeat(v, 6, axis=0) for v in (images, labels, np.arange(60)))
    leaking, grouped = probe(t, y, key=key), probe(t, y, key=key, groups=groups)
    assert leaking.value > 0.3
    assert grouped.value < 2 * grouped.stderr
    assert grouped.stderr > 1.5 * leaking.stderr
    assert probe(images, labels, key=key).value == probe(images, labels, key=key, groups=np.arange(60)).value
    with pytest.raises(InputError, match="one group per row"):
        probe(t, y, key=key, groups=groups[:-1])
    with pytest.raises(InputError, match="one fold per group"):
        probe(t, y, key=key, groups=np.zeros(360, int))


def test_bounds_are_the_same_under_jit_vmap_and_grad(x):
    y = np.arange(40) % 3
    t = jnp.asarray(x, jnp.float32)

    def value(t):
        return kde(t, y, noise_variance=0.5).i_ty_upper

    want = kde(x, y, noise_variance=0.5)
    assert jax.jit(value)(t) == pytest.approx(want.i_ty_upper, abs=1e-5)
    np.testing.assert_allclose(jax.jit(jax.vmap(value))(jnp.stack([t, 2 * t]))[0], want.i_ty_upper, atol=1e-5)
    whole = jax.jit(lambda t: kde(t, y, noise_variance=[0.5, 1.0]))(t)
    assert whole.i_tx_upper[0] == pytest.approx(want.i_tx_upper, abs=1e-5)
    slope, step = np.asarray(jax.jit(jax.grad(value))(t)), np.random.default_rng(1).standard_normal(x.shape)
    ahead, behind = (kde(x + h * step, y, noise_variance=0.5).i_ty_upper for h in (1e-4, -1e-4))
    assert np.sum(slope * step) == pytest.approx((ahead - behind) / 2e-4, abs=1e-4)
    with pytest.raises(InputError, match="labels must be concrete"):
        jax.jit(lambda t, y: kde(t, y, noise_variance=0.5).i_ty_upper)(t, y)


@pytest.mark.usefixtures("as_a_user")
def test_a_list_of_rows_of_unequal_lengths_is_refused():
    with pytest.raises(InputError, match=r"^t must be one array; got a ragged list"):
        kde([[0.0, 1.0], [2.0]], noise_variance=1.0)


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("tolerance", ["1e-6", np.nan, -1.0, True, [1e-6]])
def test_a_tolerance_is_a_number_from_zero(tolerance):
    with pytest.raises(InputError, match=r"^Invalid tolerance .*: expected a number of at least 0"):
        kde(np.eye(3), noise_variance=1.0, tolerance=tolerance)
