"""A network whose one layer is the image times a number: every change between two of them is scale."""

import dataclasses
import math
from collections import OrderedDict
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from mi_jax import data, information, records
from mi_jax.attacks import PGD
from mi_jax.data.sample import fixed_sample
from mi_jax.measure.information import InformationConfig
from mi_jax.models import Network
from mi_jax.records import run_records
from mi_jax.report import figures
from mi_jax.runs.evaluate import _baseline
from mi_jax.studies.geometry.study import _maps
from mi_jax.studies.geometry.study import measure as geometry
from mi_jax.studies.noise_grid.study import LEVELS, RULE
from mi_jax.studies.noise_grid.study import measure as noise_grid
from mi_jax.studies.registry import StudyInput


class Scaled(Network):
    """Its layer is `scale` times the image, and the first ten pixels are its logits."""

    @property
    def layers(self):
        return ("logits",)

    def apply(self, variables, x, perturbations=None):
        tap = variables["scale"] * x.reshape(len(x), -1)
        return tap[:, 10:20], OrderedDict(logits=tap)

    def logits(self, variables, x):
        return self.apply(variables, x)[0]


INFORMATION = InformationConfig(samples=80, noise_variance=0.5)


def subject_of(scale, *, baseline=None, untrained=1.0):
    def given(value):
        return None if value is None else {"scale": jnp.float32(value)}

    return StudyInput(
        Scaled("scaled", 10, (8, 8, 1)), {"scale": jnp.float32(scale)}, data.load("digits", limit=100),
        PGD(eps=0.1, steps=1, step_size=0.05), 80, jax.random.key(0), information=INFORMATION,
        baseline=lambda: given(baseline), untrained=lambda: given(untrained),
    )  # fmt: skip


def rows_of(found, **columns):
    return [r for r in found.records if all(getattr(r, name) == value for name, value in columns.items())]


def value_of(found, **columns):
    (row,) = rows_of(found, **columns)
    return row.value


@pytest.fixture(scope="module")
def pixels():
    test = data.load("digits", limit=100).test
    images, labels = fixed_sample(test.images, test.labels, INFORMATION.samples)
    return np.asarray(images).reshape(len(labels), -1), np.asarray(labels)


@pytest.fixture(scope="module")
def doubled():
    return geometry(subject_of(2.0, baseline=0.5))


@pytest.mark.parametrize("rule", ["fixed", "trace"])
@pytest.mark.parametrize(("reference", "scale"), [("untrained", 1.0), ("baseline", 0.5)])
def test_a_change_of_scale_alone_is_all_scale(doubled, pixels, rule, reference, scale):
    x, _ = pixels
    noise = 0.5 if rule == "fixed" else information.noise_variance(x, rule="trace")
    before, after = (information.kde(c * x, noise_variance=noise).i_tx_upper / math.log(2) for c in (scale, 2.0))
    where = {"reference": reference, "noise_rule": rule, "estimator": "kde"}
    assert value_of(doubled, quantity="i_tx_change", **where) == pytest.approx(after - before, abs=1e-4)
    assert value_of(doubled, quantity="i_tx_change_scale", **where) == pytest.approx(after - before, abs=1e-4)
    assert value_of(doubled, quantity="i_tx_change_shape", **where) == pytest.approx(0, abs=1e-4)
    assert abs(after - before) > 0.1


@pytest.mark.parametrize("rule", ["fixed", "trace"])
def test_rescaled_activations_tell_what_the_baseline_tells(doubled, pixels, rule):
    x, _ = pixels
    noise = 0.5 if rule == "fixed" else information.noise_variance(x, rule="trace")
    expected = information.kde(0.5 * x, noise_variance=noise).i_tx_upper / math.log(2)
    found = value_of(doubled, quantity="i_tx_upper_rescaled", noise_rule=rule)
    assert found == pytest.approx(expected, abs=1e-4)


def test_distances_are_those_of_all_pairs_in_units_of_the_total_variance(doubled, pixels):
    x, labels = pixels
    squared = squareform(pdist(x.astype(np.float64), "sqeuclidean"))
    total = x.var(axis=0, dtype=np.float64).sum()
    same = labels[:, None] == labels[None, :]
    apart = ~np.eye(len(x), dtype=bool)
    expected = {
        "within": squared[same & apart].mean() / total,
        "between": squared[~same].mean() / total,
        "nearest": np.median(np.where(apart, squared, np.inf).min(axis=1)) / total,
    }
    for name, value in expected.items():
        assert value_of(doubled, quantity=name, estimator="geometry") == pytest.approx(value, rel=1e-4)
    upper = information.kde(2.0 * x, noise_variance=0.5).i_tx_upper
    assert value_of(doubled, quantity="distinguishable_upper") == pytest.approx(math.exp(upper), rel=1e-4)


@pytest.mark.parametrize("trainings", [("nt", "at"), ("at", "nt"), ("trades", "nt", "at")])
def test_the_baseline_of_a_run_is_that_of_its_claims(trainings):
    context = SimpleNamespace(
        config=SimpleNamespace(trainings=trainings),
        finished_step=lambda training, seed: 20,
        saved_steps=lambda training, seed: [10, 20],
        variables_at=lambda *where: where,
    )
    found = {training: _baseline(context, training, 1, 10)() for training in trainings}
    assert found == {training: None if training == "nt" else ("nt", 1, 10) for training in trainings}


def test_without_untrained_and_baseline_there_is_geometry_but_no_change():
    found = geometry(subject_of(2.0, untrained=None))
    assert rows_of(found, quantity="effective_rank")
    assert not rows_of(found, quantity="i_tx_change")
    assert not rows_of(found, quantity="i_tx_upper_rescaled")


def test_a_constant_layer_has_no_common_scale_and_says_so():
    found = geometry(subject_of(0.0, baseline=1.0))
    failed = rows_of(found, quantity="i_tx_upper_rescaled", ok=False)
    assert failed
    assert all("constant" in row.note for row in failed)


def curve(found, quantity, inputs="clean"):
    rows = rows_of(found, quantity=quantity, inputs=inputs)
    return np.array([(row.noise_variance, row.value) for row in rows]).T


def test_the_noise_curve_is_the_bound_at_every_level(pixels):
    x, labels = pixels
    found = noise_grid(subject_of(1.0))
    variances, values = curve(found, "i_tx_upper")
    assert len(variances) == LEVELS
    assert np.all(np.diff(values) <= 1e-6)
    for i in (0, 12, 16, 20, LEVELS - 1):
        expected = information.kde(x, labels, noise_variance=float(variances[i]), num_classes=10)
        assert values[i] == pytest.approx(expected.i_tx_upper / math.log(2), abs=1e-4)
        bracket = [curve(found, f"i_ty_certified_{end}")[1][i] * math.log(2) for end in ("lower", "upper")]
        expected_bracket = [expected.i_ty_certified_lower, expected.i_ty_certified_upper]
        assert bracket == pytest.approx(expected_bracket, abs=1e-4)


def test_a_layer_of_twice_the_scale_has_the_same_curve_two_levels_on():
    (variances, values), (moved_variances, moved) = (
        curve(noise_grid(subject_of(scale)), "i_tx_upper") for scale in (1.0, 2.0)
    )
    np.testing.assert_allclose(variances, moved_variances)
    np.testing.assert_allclose(moved[2:], values[:-2], atol=1e-4)


def test_the_figures_of_both_studies_are_drawn(tmp_path, doubled, assert_shows):
    for training, found in (("nt", geometry(subject_of(0.5))), ("at", doubled)):
        for seed in (0, 1):
            columns = {"training": training, "seed": seed, "epoch": 1.0, "step": 1, "arch": "cnn", "dataset": "digits"}
            curves = noise_grid(subject_of(1.0 if training == "nt" else 2.0)).records
            records.append(tmp_path, [dataclasses.replace(r, **columns) for r in [*found.records, *curves]])
    read = run_records.read(tmp_path)
    specs = {spec.name: spec for spec in figures.available(read)}
    rows = read.records
    for name, quantity in (
        ("geometry", "effective_rank"),
        ("scale_split", "i_tx_change"),
        ("noise_grid_i_tx", "i_tx_upper"),
        ("noise_grid_i_ty", "i_ty_certified_lower"),
    ):
        chosen = rows[rows["quantity"].eq(quantity) & (rows["noise_rule"].eq(RULE) | (not name.startswith("noise")))]
        assert_shows(specs[name].draw(read), chosen["value"])
        assert "2 seeds" in specs[name].caption(read)


def test_rotating_changes_nothing_doubling_adds_and_repeating_loses(doubled):
    def change(name):
        return value_of(doubled, quantity="i_tx_map_change", noise_rule="fixed", reference=name)

    assert change("rotation") == pytest.approx(0, abs=1e-4)
    assert change("scaling") > 0
    assert change("repetition") < 0


def test_the_loss_of_one_bit_keeps_the_scale_of_a_layer():
    # Normals in 16 dimensions under the trace rule: the mean of a pair, which halves the variance, loses 3 bits.
    t = np.random.default_rng(0).standard_normal((1000, 16)).astype(np.float32)
    found = _maps(t, information.noise_variance(t, rule="trace"), jax.random.key(0), {"layer": "a"})
    moved = {record.reference: record.value for record in found}
    assert moved["repetition"] == pytest.approx(-0.20, abs=0.03)
    assert moved["scaling"] > 2


def test_gains_of_channels_keep_the_total_variance_over_images(monkeypatch):
    rng, seen = np.random.default_rng(0), []
    pattern = 5 * rng.standard_normal((1, 6, 6, 8)) * np.arange(8)  # which no distance between images sees
    t = (pattern + rng.standard_normal((50, 6, 6, 8))).astype(np.float32)
    monkeypatch.setattr(information, "kde", lambda t, **_: seen.append(t) or SimpleNamespace(i_tx_upper=0.0))
    names = [record.reference for record in _maps(t, 1.0, jax.random.key(0), {})]
    gained = seen[1 + names.index("channel_gain")]
    gains = gained / t
    np.testing.assert_allclose(gains, np.broadcast_to(gains[:1, :1, :1], t.shape), rtol=1e-5)
    assert np.ptp(gains) > 0.5
    assert gained.var(axis=0).sum() == pytest.approx(t.var(axis=0).sum(), rel=1e-4)
