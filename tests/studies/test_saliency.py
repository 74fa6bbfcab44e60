import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax import data, models, records
from mi_jax.attacks import PGD
from mi_jax.data import shapetex
from mi_jax.data.sample import fixed_sample
from mi_jax.files import write_arrays
from mi_jax.models import Network
from mi_jax.records import run_records
from mi_jax.report import figures
from mi_jax.studies.registry import StudyInput
from mi_jax.studies.saliency.scores import correlation, cosine, edge_enrichment, image_gradient, insertion_deletion
from mi_jax.studies.saliency.study import attribution_layer, known_fields, measure


@dataclasses.dataclass(frozen=True)
class Linear(Network):
    """Logits that are inner products of the image with one image of weights a class."""

    def apply(self, variables, x, perturbations=None):
        logits = jnp.einsum("bhwc,hwck->bk", x, variables["params"]["weights"])
        return logits, collections.OrderedDict(logits=logits)

    def logits(self, variables, x):
        return self.apply(variables, x)[0]

    def init(self, key):
        shape = (*self.input_shape, self.num_classes)
        return {"params": {"weights": jax.random.normal(key, shape)}, "batch_stats": {}}

    @property
    def tap_shapes(self):
        return {"logits": (self.num_classes,)}


def _linear(dataset, weights, samples=200):
    network = Linear("linear", 10, dataset.input_shape)
    variables = {"params": {"weights": jnp.asarray(weights, jnp.float32)}, "batch_stats": {}}
    return StudyInput(network, variables, dataset, PGD(steps=1), samples, jax.random.key(0))


@pytest.fixture(scope="module")
def shapes():
    return data.load("shapetex", limit=60)


@pytest.fixture(scope="module")
def fields(shapes):
    """The masks, textures and labels of the images that a study with 200 samples explains."""
    _, rows = fixed_sample(shapes.test.images, np.arange(60), 20)
    masks, textures = known_fields(shapes, np.asarray(rows))
    return masks.astype(np.float64), textures.astype(np.float64), shapes.test.labels[np.asarray(rows)]


@pytest.fixture(scope="module")
def digits_subject():
    dataset = data.load("digits", limit=60)
    network = models.create("cnn", num_classes=10, input_shape=(8, 8, 1), width=0.25)
    attack = PGD(eps=0.2, steps=1, step_size=0.1)
    return StudyInput(network, network.init(jax.random.key(3)), dataset, attack, 120, jax.random.key(0))


@pytest.fixture(scope="module")
def findings(digits_subject):
    return measure(digits_subject)


def _values(found):
    return {(r.quantity, r.estimator): r for r in found.records}


def test_a_linear_model_scores_as_its_weights_do(shapes, fields):
    masks, textures, labels = fields
    weights = np.random.default_rng(1).normal(size=(32, 32, 3, 10))
    rows = _values(measure(_linear(shapes, weights)))
    maps = np.moveaxis(weights[..., labels], -1, 0)
    summed, largest = maps.sum(-1), np.abs(maps).max(-1)
    for method in ("gradient", "smoothgrad"):  # the derivative of a linear model is its weights everywhere
        assert rows["shape_cosine", method].value == pytest.approx(cosine(summed, 2 * masks - 1).mean(), abs=1e-6)
        assert rows["texture_cosine", method].value == pytest.approx(cosine(summed, textures).mean(), abs=1e-6)
        assert rows["edge_enrichment", method].value == pytest.approx(edge_enrichment(largest, masks).mean(), rel=1e-5)
        assert rows["edge_enrichment", method].n == 20
    assert rows["completeness_error", "integrated_gradients"].value < 1e-3
    assert abs(rows["randomised_similarity", "gradient"].value) < 0.03
    assert rows["insertion_auc", "integrated_gradients"].value > rows["insertion_auc", "random"].value
    assert rows["deletion_auc", "integrated_gradients"].value < rows["deletion_auc", "random"].value
    assert not rows["insertion_auc", "grad_cam"].ok


def test_a_model_that_reads_mean_luminance_prefers_neither_edges_nor_texture(shapes, fields):
    masks, _, _ = fields
    rows = _values(measure(_linear(shapes, np.ones((32, 32, 3, 10)))))
    assert rows["edge_enrichment", "gradient"].value == pytest.approx(1, rel=1e-6)
    assert rows["texture_cosine", "gradient"].value == pytest.approx(0, abs=1e-6)
    shape = 2 * masks - 1
    expected = shape.mean((1, 2)) / np.sqrt((shape**2).mean((1, 2)))
    assert rows["shape_cosine", "gradient"].value == pytest.approx(expected.mean(), rel=1e-5)
    assert not rows["image_gradient_correlation", "gradient"].ok  # a constant map correlates with nothing


def test_edge_enrichment_counts_the_pixels_that_a_shape_covers_in_part():
    masks = np.array([[[0, 0, 0, 0], [0.5, 0.5, 0.5, 0.5], [1, 1, 1, 1], [1, 1, 1, 1]]])
    sizes = np.array([[[1, 1, 1, 1], [4, 4, 4, 4], [3, 3, 3, 3], [2, 2, 2, 2]]])
    assert edge_enrichment(sizes, masks).tolist() == [2.0]
    assert np.isnan(edge_enrichment(0 * sizes, masks)).all()


def test_cosine_and_correlation_have_their_closed_forms():
    a, b = np.array([[[3.0, 4.0]]]), np.array([[[4.0, 3.0]]])
    assert cosine(a, b)[0] == pytest.approx(24 / 25)
    assert correlation(a, b)[0] == pytest.approx(-1)
    assert np.isnan(correlation(np.ones((1, 2, 2)), np.ones((1, 2, 2)))).all()


def test_the_image_gradient_of_a_ramp_is_even():
    ramp = np.broadcast_to(np.linspace(0, 1, 8)[None, :, None], (1, 8, 8))[..., None]
    inside = image_gradient(ramp)[0, 1:-1]
    np.testing.assert_allclose(inside, inside[0, 0])
    assert inside[0, 0] > 0
    np.testing.assert_allclose(image_gradient(np.repeat(ramp, 2, axis=-1)), image_gradient(ramp))


def test_insertion_and_deletion_areas_of_a_model_that_reads_the_mean():
    image = np.zeros((1, 4, 5, 1), np.float32)
    image[:, :2] = 1.0

    def logits_of(x):  # softmax gives the mean of the image as the probability of class 0
        mean = jnp.mean(x, axis=(1, 2, 3))
        return jnp.log(jnp.stack([mean, 1 - mean], axis=1))

    ranked = image[..., 0]
    ties = np.linspace(0, 1, 20, dtype=np.float32).reshape(ranked.shape)  # the last pixels first

    def areas(ranking, ties):
        found = insertion_deletion(
            logits_of, jnp.asarray(image), jnp.zeros(1, jnp.int32), ranking, baseline=0.0, ties=ties
        )
        return [area[0] for area in found]

    assert areas(ranked, ties) == areas(ranked, -ties) == pytest.approx([0.375, 0.125])
    assert areas(-ranked, ties) == areas(-ranked, -ties) == pytest.approx([0.125, 0.375])
    assert areas(0 * ranked, ties) == pytest.approx([0.125, 0.375]), "equal values in the order of `ties`"
    assert areas(0 * ranked, -ties) == pytest.approx([0.375, 0.125])


def test_known_fields_are_those_of_the_images_and_of_no_others(shapes):
    rows = np.array([3, 17, 41])
    masks, textures = known_fields(shapes, rows)
    scene = shapetex.scene(data.ShapeTex(), "test", limit=60)
    np.testing.assert_array_equal(masks, scene.mask[rows])
    np.testing.assert_array_equal(textures, scene.texture[rows])
    assert known_fields(shapetex.dataset(data.ShapeTex(seed=1), limit=60), rows) is None
    large = shapetex.dataset(data.ShapeTex(n_train=10, n_test=2010))
    assert known_fields(large, np.array([0, 2009])) is not None
    assert known_fields(data.load("digits", limit=60), rows) is None


def test_grad_cam_reads_the_deepest_layer_that_still_places_something():
    assert attribution_layer(models.create("vgg11", num_classes=10, input_shape=(32, 32, 3), width=0.125)) == "conv6"
    assert attribution_layer(models.create("mlp", num_classes=10, input_shape=(8, 8, 1), width=0.05)) is None


def test_on_natural_images_there_are_scores_but_none_of_shape_or_texture(findings):
    rows = _values(findings)
    assert not {"edge_enrichment", "shape_cosine", "texture_cosine"} & {quantity for quantity, _ in rows}
    assert {method for quantity, method in rows if quantity == "insertion_auc"} == {
        "random", "gradient", "smoothgrad", "integrated_gradients", "grad_x_input", "grad_cam", "layer_cam",
    }  # fmt: skip
    assert rows["completeness_error", "integrated_gradients"].value < 0.01
    assert all(record.n == 12 for record in findings.records if record.estimator not in ("grad_cam", "layer_cam"))
    assert all(
        6 < record.n <= 12 for record in findings.records if record.estimator in ("grad_cam", "layer_cam")
    )  # 0 where all is cut
    assert findings.arrays["size"].shape == (6, 5, 8, 8)


def test_a_study_changes_nothing_it_was_given_and_repeats_itself(digits_subject, findings):
    before = jax.tree.map(np.array, digits_subject.variables), digits_subject.dataset.test.images.copy()
    again = measure(digits_subject)
    assert again.records == findings.records
    jax.tree.map(np.testing.assert_array_equal, before, (digits_subject.variables, digits_subject.dataset.test.images))


def test_the_figures_are_drawn_from_what_was_found(findings, tmp_path, assert_shows):
    for training in ("nt", "at"):
        columns = {"training": training, "seed": 0, "epoch": 1.0, "step": 1, "arch": "cnn", "dataset": "digits"}
        records.append(tmp_path, [dataclasses.replace(r, **columns) for r in findings.records])
    arrays = {f"{k}.{t}.0": v for k, v in findings.arrays.items() for t in ("nt", "at")}
    write_arrays(tmp_path / "saliency.npz", arrays)
    found = run_records.read(tmp_path)
    specs = {spec.name: spec for spec in figures.available(found)}
    assert_shows(specs["saliency_maps"].draw(found), findings.arrays["size"])
    scores = found.records[found.records["quantity"].isin(["shape_cosine", "insertion_auc"])]
    assert_shows(specs["saliency_scores"].draw(found), scores["value"])
