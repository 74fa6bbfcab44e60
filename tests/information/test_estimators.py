"""Estimators against reference values and closed forms, and the interface of every registered one."""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.feature_selection import mutual_info_classif

from mi_jax.errors import InputError
from mi_jax.information import (
    binning,
    denoiser,
    estimate,
    fit_probe,
    geometry,
    ksg,
    measure_layers,
    probe,
    register,
    renyi,
    scale_split,
    sliced,
    tasks,
    variational,
)
from mi_jax.information.binning import nsb_entropy
from mi_jax.information.estimators.renyi import kernel_width
from mi_jax.information.estimators.variational import _limit, objective_value

_spec = importlib.util.spec_from_file_location("make_golden", Path(__file__).with_name("make_golden.py"))
assert _spec is not None
assert _spec.loader is not None
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)
GOLDEN = json.loads(reference.GOLDEN.read_text())


@pytest.fixture(scope="module")
def classes():
    r = np.random.default_rng(0)
    y = np.arange(240) % 3
    return (2 * np.eye(3, 5)[y] + r.standard_normal((240, 5))).astype(np.float32), y


@pytest.mark.parametrize("case", list(reference.CASES))
@pytest.mark.parametrize("size", reference.BIN_SIZES)
def test_binning_equals_the_reference(case, size):
    x, y, classes = reference.CASES[case]()
    got = binning(x, y, bin_size=size, num_classes=classes)
    want = GOLDEN["cases"][case]["binning"][str(size)]
    assert got.i_tx == pytest.approx(want["i_tx"], abs=1e-12)
    assert got.i_ty == pytest.approx(want["i_ty"], abs=1e-12)


def test_corrections_reduce_the_bias_of_the_binned_entropy():
    errors = {"none": [], "miller_madow": [], "nsb": []}
    for seed in range(20):
        counts = np.bincount(np.random.default_rng(seed).integers(0, 30, 40))
        x = np.repeat(np.arange(len(counts)), counts)[:, None].astype(np.float32)
        for correction, errs in errors.items():
            errs.append(binning(x, bin_size=1.0, correction=correction).i_tx - np.log(30))
    bias = {name: abs(np.mean(errs)) for name, errs in errors.items()}
    assert bias["miller_madow"] < bias["none"]
    assert bias["nsb"] < bias["none"]


def test_nsb_entropy_of_many_samples_is_exact_and_of_one_cell_is_zero():
    assert nsb_entropy(np.array([5000, 5000]), 2) == pytest.approx(np.log(2), abs=1e-3)
    assert nsb_entropy(np.array([7]), 1) == 0


@pytest.mark.parametrize(
    ("counts", "alphabet", "want"),
    [([5, 2, 1], 3, 0.932685338), ([1] * 12, 1000, 5.728198423), ([7, 3, 1, 1], 10, 1.330326253)],
)
def test_nsb_entropy_has_its_reference_values(counts, alphabet, want):
    assert nsb_entropy(np.array(counts), alphabet) == pytest.approx(want, abs=1e-7)


def test_miller_madow_adds_half_a_count_for_every_cell_but_one():
    x = np.repeat(np.arange(4.0), [5, 3, 2, 1])[:, None]
    y = np.array([0] * 5 + [1] * 6)
    plain, corrected = binning(x, y, bin_size=1.0), binning(x, y, bin_size=1.0, correction="miller_madow")
    assert corrected.i_tx - plain.i_tx == pytest.approx(3 / 22, abs=1e-12)
    assert corrected.i_ty - plain.i_ty == pytest.approx(3 / 22 - 6 / 11 * 2 / 12, abs=1e-12)


def test_a_number_of_bins_makes_the_estimate_independent_of_scale():
    x = np.random.default_rng(1).standard_normal((100, 2))
    assert binning(x, bins=5).i_tx == binning(64 * x, bins=5).i_tx < np.log(100)


def test_bins_divide_the_range_of_the_layer():
    x = np.random.default_rng(1).standard_normal((100, 1))
    assert binning(x, bins=1).i_tx == 0
    low, high = x.min(), x.max()
    for bins in (2, 5, 8):
        counts = np.histogram(x, bins=bins, range=(low, high))[0]
        p = counts[counts > 0] / 100
        assert binning(x, bins=bins).i_tx == pytest.approx(-np.sum(p * np.log(p)), abs=1e-12)
    grid = np.arange(64.0)[:, None] % 16
    assert binning(grid + 0.75, bins=5).i_tx == binning(grid, bins=5).i_tx <= np.log(5)


def test_bins_beyond_the_range_of_integers_stay_distinct():
    assert binning(np.arange(10)[:, None] * 1e20).i_tx == pytest.approx(np.log(10), abs=1e-12)
    assert binning(np.array([[-0.0], [0.0]])).i_tx == 0
    with pytest.raises(InputError, match="too large"):
        binning(np.array([[1e300], [0.0]]), bin_size=1e-20)


@pytest.mark.parametrize("alpha", [1.01, 2.0])
def test_renyi_equals_the_eigenvalue_reference(alpha):
    x, y, _ = reference.blobs()
    z = np.random.default_rng(11).standard_normal((200, 16)).astype(np.float32)
    want = GOLDEN["renyi"][str(alpha)]
    assert renyi(x, y, alpha=alpha, width=1.0).value == pytest.approx(want["i_label"], abs=1e-9)
    assert renyi(x, z, alpha=alpha, width=1.0, other_width=4.0).value == pytest.approx(want["i_other"], abs=1e-9)


def test_renyi_widths_follow_their_rules():
    x = np.random.default_rng(5).standard_normal((50, 3)) * [1, 2, 3]
    total = x.var(axis=0).sum()
    assert kernel_width(x, "scott") == pytest.approx(50 ** (-1 / 7) * np.sqrt(total), rel=1e-12)
    assert kernel_width(x, "silverman") == pytest.approx((4 / 5 / 50) ** (1 / 7) * np.sqrt(total), rel=1e-12)
    assert kernel_width(np.array([[0.0], [1.0], [5.0]]), "median") == 4


@pytest.mark.parametrize("alpha", [1.01, 2.0])
def test_renyi_of_a_constant_layer_is_zero(alpha):
    constant, y = np.full((40, 3), 0.3, np.float32), np.arange(40) % 3
    z = np.random.default_rng(0).standard_normal((40, 2))
    for width in ("median", "scott", 1.0):
        assert renyi(constant, y, alpha=alpha, width=width).value == 0
        assert renyi(constant, z, alpha=alpha, width=width).value == 0
    assert renyi(z, constant, alpha=alpha).value == 0
    with pytest.raises(InputError, match="kernel width is 0"):
        renyi(np.eye(40)[:, :1], y, alpha=alpha)


@pytest.mark.parametrize("k", [3, 5, 10])
def test_ksg_equals_the_dense_reference(k):
    x, y = reference.ksg_pair()
    assert ksg(x, y, k=k).value == pytest.approx(GOLDEN["ksg"][str(k)], abs=1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1e-4, 1e4, 1e200])
def test_nearest_neighbour_estimates_do_not_depend_on_units(scale, key):
    x, y = reference.ksg_pair()
    assert ksg(scale * x, y, standardise=False).value < 0.01, "the maximum norm sees one of the two alone"
    assert ksg(scale * x, y).settings["standardise"] is True
    assert ksg(scale * x, y).value == pytest.approx(ksg(x, y, standardise=True).value, abs=1e-9)
    assert ksg(x, y).settings["standardise"] is False
    many = 0.3 * np.random.default_rng(3).standard_normal((1000, 4)) + x
    value = sliced(many, y, key=key, slices=4).value
    assert value > 0.1
    assert sliced(scale * many, y, key=key, slices=4).value == pytest.approx(value, abs=1e-9)
    whole, scaled = (ksg(t, y, components=2, standardise=True) for t in (many, scale * many))
    assert scaled.details == pytest.approx(whole.details, abs=1e-9)


def test_label_form_of_ksg_agrees_with_scikit_learn(classes):
    x, y = classes
    want = mutual_info_classif(x[:, :1].astype(np.float64), y, n_neighbors=3, random_state=0)[0]
    assert ksg(x[:, :1], y).value == pytest.approx(want, abs=0.02)


def test_ties_among_neighbours_are_counted_as_equal(key):
    """On discrete values the estimate is close to the plug-in information; without tie counting it is -3.3 nats."""
    r = np.random.default_rng(0)
    y = np.arange(400) % 3
    bit = r.integers(0, 2, (400, 1)).astype(float)
    assert ksg(bit, y).value == pytest.approx(0, abs=0.01)
    assert sliced(np.repeat(bit, 30, axis=1), y, key=key, slices=3).value == pytest.approx(0, abs=0.01)
    assert ksg(bit, r.integers(0, 2, (400, 1)).astype(float)).value == pytest.approx(0, abs=0.01)
    assert ksg(y[:, None].astype(float), y).value == pytest.approx(np.log(3), abs=0.01)
    assert ksg(bit, bit).value == pytest.approx(np.log(2), abs=0.01)


@pytest.mark.parametrize("width", [2, 40])
def test_nearest_neighbour_information_of_a_constant_layer_is_zero(width, key):
    constant = np.full((60, width), 1.7, np.float32)
    y, z = np.arange(60) % 3, np.round(np.random.default_rng(0).standard_normal((60, 2)))
    for other in (y, z):
        assert ksg(constant, other).value == 0
        assert sliced(constant, other, key=key, slices=2).value == 0
    assert ksg(z, constant).value == 0


def test_nearest_neighbours_within_classes_of_one_row_are_refused():
    with pytest.raises(InputError, match="only one row"):
        ksg(np.eye(3), np.arange(3), k=1)


def test_sliced_information_is_below_the_full_information(classes, key):
    x, y = classes
    got = sliced(x, y, key=key)
    assert 0.05 < got.value < ksg(x, y).value
    assert got.stderr < 0.05


def test_probe_finds_all_information_where_a_linear_classifier_is_optimal(key):
    task = tasks.label_task(16)
    t, y = task.observe(4000, 0)
    got = probe(t, y, key=key)
    assert abs(got.value - task.information) < 4 * got.stderr
    assert got.details["accuracy"] > 0.8


def test_probe_finds_no_information_about_shuffled_labels(classes, key):
    x, y = classes
    for seed in range(3):
        shuffled = np.random.default_rng(seed).permutation(y)
        got = probe(x, shuffled, key=key)
        assert got.value < 2 * got.stderr


def test_the_error_of_the_probe_is_its_spread_over_samples():
    task = tasks.label_task(4)
    found = [probe(*task.observe(400, seed), key=seed) for seed in range(30)]
    spread = np.std([one.value for one in found], ddof=1)
    assert 0.7 < np.mean([one.stderr for one in found]) / spread < 1.4


def test_probe_has_one_column_per_label_that_occurs_and_none_for_gaps_between_labels(key):
    y = np.array([3, 5000, 9999])[np.arange(60) % 3]
    x = 10.0 * np.eye(3, 40)[np.arange(60) % 3] + np.random.default_rng(0).standard_normal((60, 40))
    fitted = fit_probe(x, y)
    assert fitted.weight.shape == (40, 3)
    assert fitted.classes.tolist() == [3, 5000, 9999]
    assert (fitted.classes[fitted.log_probabilities(x).argmax(axis=1)] == y).all()
    renumbered = probe(x, np.arange(60) % 3, key=key, num_classes=10_000)
    assert probe(x, y, key=key).value == pytest.approx(renumbered.value, abs=1e-12)


def test_probe_of_a_wide_layer_has_columns_for_all_classes_and_normalised_probabilities(key):
    r = np.random.default_rng(3)
    y = np.arange(60) % 4
    x = (3 * np.eye(4, 900)[y] + 0.2 * r.standard_normal((60, 900))).astype(np.float32)
    fitted = fit_probe(x, y, num_classes=6)
    log_q = fitted.log_probabilities(x)
    assert fitted.weight.shape == (900, 6)
    assert (log_q.argmax(axis=1) == y).all()
    np.testing.assert_allclose(np.exp(log_q).sum(axis=1), 1, atol=1e-12)
    assert (log_q[:, 4:] == -np.inf).all()


def test_a_probe_reads_a_label_in_a_direction_of_little_variance():
    r = np.random.default_rng(0)
    y = np.arange(1000) % 2
    t = np.stack([10 * r.standard_normal(1000), 2 * y - 1 + 0.2 * r.standard_normal(1000)], axis=1)
    found = probe(t, y, key=0)
    assert found.value > 0.95 * np.log(2)
    assert found.details["accuracy"] > 0.99


def test_probe_of_rows_sorted_by_class_is_as_good_as_one_of_shuffled_rows():
    y = np.arange(800) // 100 % 4
    t = np.eye(4, 6)[y] + np.random.default_rng(0).standard_normal((800, 6))

    def gain(order):
        log_q = fit_probe(t[order], y[order]).log_probabilities(t[400:])
        return log_q[np.arange(400), y[400:]].mean() + np.log(4)

    shuffled = gain(np.random.default_rng(0).permutation(400))
    assert shuffled > 0.2
    assert gain(np.arange(400)) > 0.9 * shuffled


def test_variational_objectives_equal_their_closed_forms():
    b = 5
    scores = jnp.where(jnp.eye(b, dtype=bool), 0.0, -1e9)
    assert objective_value("infonce", scores) == pytest.approx(np.log(b), abs=1e-6)  # the maximum: log of the batch
    flat = jnp.zeros((b, b))
    assert objective_value("infonce", flat) == pytest.approx(0, abs=1e-6)
    assert objective_value("nwj", flat + 1) == pytest.approx(0, abs=1e-6)
    assert objective_value("smile", flat) == pytest.approx(0, abs=1e-6)
    confident = jnp.where(jnp.eye(b, dtype=bool), 0.0, 9.0)
    assert objective_value("smile", confident) == pytest.approx(-5, abs=1e-6)  # scores of other pairs end at 5


@pytest.mark.parametrize("name", ["infonce", "nwj", "smile"])
def test_trained_bounds_are_close_to_the_true_information_in_low_dimension(name, key):
    task = tasks.normal_task(1, 1, 0.75)
    got = estimate(name, *task.sample(2000, 0), key=key, steps=400, hidden=32, batch=32)
    assert got.value == pytest.approx(task.information, abs=0.15)
    if got.kind == "lower":
        assert got.value < task.information + 4 * got.stderr


@pytest.mark.parametrize("name", ["infonce", "nwj", "smile"])
def test_a_critic_that_has_only_learnt_its_training_rows_is_reported(name, key):
    r = np.random.default_rng(0)
    x, z = (r.standard_normal((128, 30)).astype(np.float32) for _ in range(2))
    options = {"key": key, "batch": 16, "hidden": 24, "learning_rate": 0.02}
    overfit = estimate(name, x, z, steps=200, **options)
    assert (overfit.value < 0, overfit.unreliable) == (True, "training")
    related = estimate(name, x[:, :1], x[:, :1], steps=60, **options)
    assert (related.value > 0.2, related.unreliable) == (True, None)


@pytest.mark.parametrize(
    ("value", "stderr", "limit"),
    [
        (-0.02, 0.02, None),
        (-0.05, 0.02, "training"),
        (-50.0, 49.0, "training"),
        (2.1, 0.1, None),
        (2.3, 0.1, "batch size"),
    ],
)
def test_limits_of_a_variational_bound_from_batches_of_16(value, stderr, limit):
    assert _limit(value, stderr, 16, share=0.8) == limit


@pytest.mark.parametrize("scale", [1e20, 1e-25])
def test_variational_bounds_do_not_depend_on_units(scale, key):
    x = np.random.default_rng(0).standard_normal((128, 1)).astype(np.float32)
    options = {"key": key, "batch": 16, "steps": 40, "hidden": 8, "learning_rate": 0.02}
    value = estimate("infonce", x, x, **options).value
    assert value > 0.1
    assert estimate("infonce", np.float32(scale) * x, x, **options).value == pytest.approx(value, abs=1e-3)


def test_unknown_names_and_targets_are_refused(classes, key):
    x, y = classes
    with pytest.raises(InputError, match="choose from"):
        estimate("magic", x, y, key=key)
    with pytest.raises(InputError, match="no target 'continuous'"):
        estimate("probe", x, x, key=key)
    with pytest.raises(ValueError, match="registered already"):
        register("ksg", targets=("label",))(lambda t, other, *, key: None)
    with pytest.raises(InputError, match="positive noise_variance"):
        estimate("infonce", x, key=key, batch=8)
    with pytest.raises(InputError, match="noise_variance is None; a variance must be positive"):
        estimate("kde_upper", x, key=key)
    with pytest.raises(InputError, match="Invalid batch 1: expected a whole number of at least 2"):
        estimate("infonce", x, y, key=key, batch=1)
    with pytest.raises(InputError, match="smaller batch"):
        estimate("infonce", x, y, key=key, batch=200)
    with pytest.raises(InputError, match="folds"):
        probe(x[:20], y[:20], key=jax.random.key(0), folds=9)
    for alpha in (1, 1 + 1e-9, 1 - 9e-7):
        with pytest.raises(InputError, match="it must be positive and not 1, to within 1e-6"):
            renyi(x, y, alpha=alpha)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.01, 2, 50.0, np.inf])
def test_renyi_entropy_of_separated_atoms_is_the_log_of_their_number_at_every_order(alpha):
    atoms, y = 1e3 * np.eye(4)[np.arange(40) % 4], np.arange(40) % 4
    got = renyi(atoms, y, alpha=alpha, width=1.0)
    assert got.details["entropy"] == pytest.approx(np.log(4), abs=1e-9)
    assert got.value == pytest.approx(np.log(4), abs=1e-9)


_X = np.random.default_rng(0).standard_normal((80, 2)).astype(np.float32)
_Y = np.arange(80) % 2
_TRAINED = {"key": 0, "batch": 8, "steps": 2, "hidden": 4}


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("value", ["2", None, np.nan, -1, 0, 2.5, True, [2]])
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("k", lambda **k: ksg(_X, _Y, **k)),
        ("components", lambda **k: ksg(_X, _Y, **k)),
        ("k", lambda **k: sliced(_X, _Y, key=0, **k)),
        ("slices", lambda **k: sliced(_X, _Y, key=0, **k)),
        ("components", lambda **k: probe(_X, _Y, key=0, **k)),
        ("folds", lambda **k: probe(_X, _Y, key=0, **k)),
        ("components", lambda **k: fit_probe(_X, _Y, **k)),
        ("batch", lambda **k: variational(_X, _X, **(_TRAINED | k))),
        ("steps", lambda **k: variational(_X, _X, **(_TRAINED | k))),
        ("hidden", lambda **k: variational(_X, _X, **(_TRAINED | k))),
        ("batch", lambda **k: denoiser(_X, noise_variance=1.0, **(_TRAINED | k))),
        ("hidden", lambda **k: denoiser(_X, noise_variance=1.0, **(_TRAINED | k))),
    ],
)
def test_counts_of_every_estimator_are_whole_numbers(name, call, value):
    with pytest.raises(InputError, match=rf"^Invalid {name} .*: expected a whole number of at least"):
        call(**{name: value})


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("value", ["a", None, np.nan, np.inf, -1.0, 0.0, True, [1.0]])
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("learning_rate", lambda **k: variational(_X, _X, **(_TRAINED | k))),
        ("learning_rate", lambda **k: denoiser(_X, noise_variance=1.0, **(_TRAINED | k))),
        ("width", lambda **k: renyi(_X, _Y, **k)),
        ("other_width", lambda **k: renyi(_X, _X, **k)),
    ],
)
def test_sizes_of_every_estimator_are_positive_numbers(name, call, value):
    says = "one of median, scott, silverman" if value == "a" and name != "learning_rate" else "a positive number"
    with pytest.raises(InputError, match=rf"^Invalid {name} .*: expected {says}"):
        call(**{name: value})


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("alpha", ["a", None, np.nan, -1.0, 0, True, [1.0]])
def test_the_order_of_renyi_is_a_positive_number(alpha):
    with pytest.raises(InputError, match=r"^Invalid alpha .*: expected a positive number"):
        renyi(_X, _Y, alpha=alpha)


@pytest.mark.usefixtures("as_a_user")
def test_switches_of_estimators_are_true_or_false():
    with pytest.raises(InputError, match=r"^Invalid standardise 'no': expected True or False"):
        ksg(_X, _X, standardise="no")
    with pytest.raises(InputError, match=r"^Invalid shuffle 'no': expected True or False"):
        fit_probe(_X, _Y, shuffle="no")


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("value", "says"),
    [("a", "is 'a'; give a number"), (np.inf, "positive and finite"), ([1.0, 2.0], "give one number")],
)
def test_one_noise_variance_is_one_positive_number(value, says):
    for call in (
        lambda: variational(_X, **_TRAINED, noise_variance=value),
        lambda: geometry(_X, noise_variance=value),
        lambda: scale_split(_X, _X, noise_variance=value),
        lambda: measure_layers(_X, noise_variance=value),
    ):
        with pytest.raises(InputError, match=rf"noise_variance .*{says}"):
            call()


@pytest.mark.usefixtures("as_a_user")
def test_the_denoiser_checks_its_key_and_steps():
    with pytest.raises(InputError, match=r"^Invalid key None: expected a JAX random key or an integer seed"):
        denoiser(_X, noise_variance=1.0, key=None)
    with pytest.raises(InputError, match=r"^Invalid steps 0: expected a whole number of at least 1"):
        denoiser(_X, noise_variance=1.0, key=0, steps=0)
