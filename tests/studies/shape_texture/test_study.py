"""Networks built by hand, whose every answer is known, and one small real network through the whole study."""

import dataclasses
import math
from collections import OrderedDict
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax import data, models
from mi_jax.attacks import PGD
from mi_jax.data import ShapeTex, shapetex, to_float
from mi_jax.measure.linear_probes import fit_probes
from mi_jax.models import Network
from mi_jax.studies import STUDIES, find_for
from mi_jax.studies.registry import StudyInput
from mi_jax.studies.shape_texture import information, shape_bias, study
from mi_jax.studies.shape_texture.information import preference

BARE = ShapeTex(noise=0.0, n_train=10, n_test=90)
ATTACK = PGD(steps=1, random_start=False)
COUNT = 90


class ByHand(Network):
    """A network whose one layer is its logits."""

    @property
    def layers(self):
        return ("logits",)

    def logits(self, variables, x):
        return self.apply(variables, x)[0]


class TemplateMatcher(ByHand):
    """Answers the class of the known field that an image's shape (or texture) field agrees with best.

    Without noise, the sign of a pixel less 1/2 is the shape field and the size of it tells the texture's sign.
    """

    def apply(self, variables, x, perturbations=None):
        pixel = x[..., 0] - 0.5
        shape = jnp.sign(pixel)
        texture = shape * jnp.sign(jnp.abs(pixel) - variables["shape_amplitude"])
        field = shape if self.arch == "shape" else texture
        agreement = jnp.einsum("nhw,mhw->nm", field, variables["fields"])
        classes = jax.nn.one_hot(variables["classes"], 10)
        logits = jnp.max(jnp.where(classes.T[None] > 0, agreement[:, None, :], -jnp.inf), axis=-1)
        return logits, OrderedDict(logits=logits)


class FrequencyReader(ByHand):
    """Its one layer is the power of an image in every band of two by two spatial frequencies: texture, smoothly."""

    def apply(self, variables, x, perturbations=None):
        spectrum = jnp.abs(jnp.fft.rfft2(x.mean(-1) - 0.5)[:, :, :16]) ** 2 / (20 / 255 * 32) ** 2
        tap = jnp.sqrt(spectrum.reshape(len(x), 16, 2, 8, 2).sum((2, 4)) + 1e-3).reshape(len(x), -1)
        return tap[:, :10], OrderedDict(logits=tap)


def bare_network(kind, arch):
    return kind(arch, 10, (32, 32, 3))


@pytest.fixture(scope="module")
def sets():
    return shapetex.test_sets(BARE, limit=COUNT)


@pytest.fixture(scope="module")
def scenes():
    return [shapetex.scene(BARE, name, limit=COUNT) for name in ("conflict", "redundant")]


def study_input_of(network, variables, attack=ATTACK):
    return StudyInput(network, variables, data.load("shapetex", limit=20), attack, COUNT, jax.random.key(0))


def reader(cue, scenes):
    fields = np.concatenate([scene.shape if cue == "shape" else scene.texture for scene in scenes])
    classes = np.concatenate([scene.factors[cue] for scene in scenes])
    variables = {"fields": jnp.asarray(fields), "classes": jnp.asarray(classes), "shape_amplitude": 20 / 255}
    return study_input_of(bare_network(TemplateMatcher, cue), variables)


@pytest.mark.parametrize(("cue", "bias"), [("shape", 1.0), ("texture", 0.0)])
def test_a_network_that_reads_one_cue_has_the_bias_of_that_cue(sets, scenes, cue, bias):
    result = shape_bias.measure_on(reader(cue, scenes), sets, COUNT)
    found = {(r.quantity, r.inputs, r.image_set): r.value for r in result.records if r.class_ is None}
    assert found["shape_bias", "clean", "conflict"] == bias
    assert found["cue_coverage", "clean", "conflict"] == 1.0
    np.testing.assert_array_equal(result.arrays["predictions"], sets["conflict"].factors[cue][: COUNT // 90 * 90])


def test_taking_away_the_cue_that_a_network_reads_takes_its_accuracy(sets, scenes):
    records = shape_bias.measure_on(reader("shape", scenes), sets, COUNT).records
    found = {(r.quantity, r.inputs, r.image_set): r.value for r in records if r.class_ is None}
    assert found["accuracy", "clean", "texture_suppressed"] == 1.0
    assert found["accuracy", "clean", "shape_suppressed"] < 0.3
    assert found["suppression_gap", "clean", "suppressed"] > 0.7


@pytest.mark.parametrize(("margin", "low", "high"), [(1.0, -0.05, 0.15), (8.0, 1.5, math.log2(10) + 1e-6)])
def test_a_factor_within_reach_of_the_attacker_has_no_robust_information(margin, low, high):
    config = ShapeTex(shape_amplitude=0.0, texture_amplitude=20 / 255, n_train=10, n_test=400)
    drawn = shapetex.split(shapetex.scene(config, "factorial"), config)
    images, texture = to_float(jnp.asarray(drawn.images)), drawn.factors["texture"]
    network = bare_network(FrequencyReader, "texture")
    attack = PGD(eps=config.texture_amplitude / margin, steps=1)
    taps = np.asarray(network.apply({}, images)[1]["logits"])
    probes = fit_probes(taps[:200], {"texture": texture[:200]}, num_classes=10)
    (record,) = study.robust(
        study_input_of(network, {}, attack),
        "logits",
        probes,
        images[200:],
        {"texture": texture[200:]},
        jax.random.key(1),
    )
    assert record.quantity == "i_t_texture_robust"
    assert low <= record.value <= high


def test_the_random_starts_of_the_attack_on_a_probe_do_not_depend_on_the_batch(monkeypatch):
    starts: list[np.ndarray] = []

    def attack(function, variables, x, y, key, *, config, index):
        starts.append(np.asarray(index))
        return SimpleNamespace(logits=jnp.zeros((len(x), 10)))

    monkeypatch.setattr(study, "pgd", attack)
    monkeypatch.setattr(study, "probed", lambda *_: SimpleNamespace(variables=lambda *_: {}))
    monkeypatch.setattr("mi_jax.batches.BATCH_SIZE", 2)
    network = bare_network(FrequencyReader, "texture")
    images, factors = jnp.zeros((5, 32, 32, 3)), {"shape": np.arange(5)}
    study.robust(study_input_of(network, {}), "logits", {"shape": None}, images, factors, jax.random.key(1))
    assert np.concatenate(starts)[:5].tolist() == [0, 1, 2, 3, 4]


@pytest.fixture(scope="module")
def studied():
    network = models.create("mlp", num_classes=10, input_shape=(32, 32, 3), width=0.25)
    study_input = study_input_of(network, network.init(jax.random.key(0)))
    before = jax.tree.map(np.array, study_input.variables)
    sets = {name: split.images.copy() for name, split in shape_bias.diagnostic_sets(ShapeTex(), 300).items()}
    findings = study.measure(dataclasses.replace(study_input, samples=100))
    return study_input, before, sets, findings


def test_the_study_changes_neither_network_nor_images(studied):
    study_input, before, sets, _ = studied
    jax.tree.map(np.testing.assert_array_equal, study_input.variables, before)
    for name, split in shape_bias.diagnostic_sets(ShapeTex(), 300).items():
        np.testing.assert_array_equal(split.images, sets[name])


def test_every_layer_is_measured_for_every_cue_below_its_ceiling(studied):
    study_input, _, _, findings = studied
    for layer in study_input.network.layers:
        for quantity in ("i_t_shape", "i_t_texture", "i_t_colour", "i_t_shuffled", "i_t_label"):
            (row,) = [
                r for r in findings.records
                if (r.layer, r.quantity, r.estimator, r.inputs) == (layer, quantity, "probe", "clean")
            ]  # fmt: skip
            assert row.value <= math.log2(10) + 1e-6
            assert row.n == 100
        shuffled = next(r for r in findings.records if r.layer == layer and r.quantity == "i_t_shuffled")
        assert shuffled.value <= 3 * shuffled.stderr + 1e-9


@pytest.mark.parametrize(("images", "features", "limit"), [(1000, 0, None), (200, 300, "sample size")])
def test_mixture_values_of_too_few_images_for_the_layer_are_flagged(images, features, limit):
    shape = np.arange(images) % 2
    noise = np.random.default_rng(0).standard_normal((images, features))
    t = np.concatenate([shape[:, None].astype(float), noise], axis=1)
    variance = information.own_noise_variance(t)
    rows = information.mixture_records(
        t, {"shape": shape}, noise_variance=variance, num_classes=2, key=jax.random.key(0), layer="a"
    )
    (row,) = [r for r in rows if r.estimator == "monte_carlo"]
    assert row.unreliable == limit


def test_mixture_values_lie_in_their_certified_bracket(studied):
    rows = {(r.layer, r.quantity, r.inputs): r for r in studied[3].records if r.estimator in ("kde", "monte_carlo")}
    checked = 0
    for (layer, quantity, inputs), row in rows.items():
        if row.estimator != "monte_carlo":
            continue
        low = rows[layer, f"{quantity}_certified_lower", inputs].value
        high = rows[layer, f"{quantity}_certified_upper", inputs].value
        assert low - 0.02 <= row.value <= high + 0.02
        checked += 1
    assert checked == 5 * 5


def test_ceilings_are_exact(studied):
    found = {r.quantity: r.value for r in studied[3].records if r.estimator == "exact"}
    assert set(found) == {"h_shape", "h_texture", "h_colour", "h_label"}
    np.testing.assert_allclose(list(found.values()), math.log2(10), atol=1e-12)


def test_the_row_that_the_claim_reads_is_there_once(studied):
    rows = [r for r in studied[3].records if (r.quantity, r.inputs, r.factor) == ("shape_bias", "clean", None)]
    assert len(rows) == 1


def test_the_shape_bias_study_gives_the_same_records_as_the_study_that_includes_it(studied):
    study_input, _, _, findings = studied
    alone = shape_bias.measure(dataclasses.replace(study_input, samples=100))
    assert alone.records == findings.records[: len(alone.records)]
    assert {r.quantity for r in alone.records} >= {"shape_bias", "suppression_gap", "texture_match"}
    assert all(r.layer is None for r in alone.records)
    names = [study.name for study in find_for(study_input.dataset, ["all"])]
    assert "shape_texture" in names
    assert "shape_bias" not in names


@pytest.mark.parametrize("name", ["shape_bias", "shape_texture", "cue_answers", "cue_conflict"])
def test_only_shapetex_is_accepted(name):
    study = STUDIES[name]
    assert study.unsupported_reason(data.load("shapetex", limit=20)) is None
    assert "ShapeTex" in (study.unsupported_reason(data.load("digits", limit=20)) or "")
    coarse = shapetex.dataset(shapetex.ShapeTex(texture_scale="coarse"), limit=20)
    assert "have another configuration" in (study.unsupported_reason(coarse) or "")


def test_the_preference_index_and_its_error_are_those_of_the_formula():
    found = preference((3.0, 0.1), (1.0, 0.2), layer="conv1")
    assert (found.value, found.layer) == (0.5, "conv1")
    assert found.stderr == pytest.approx(2 * math.hypot(1 * 0.1, 3 * 0.2) / 4**2)
    assert preference((-0.1, 0.01), (2.0, 0.1)).value == -1, "a negative bound counts as 0"
    assert not preference((0.1, 0.1), (0.0, 0.1)).ok
