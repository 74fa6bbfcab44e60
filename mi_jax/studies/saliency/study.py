"""Attribution maps scored against known shape and texture, image edges, and random rankings.

All maps explain the logit of the true class on clean images, so that networks can be compared. The attribution methods
are those of `mi_jax.attribution`.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from mi_jax import attribution
from mi_jax.batches import map_batches
from mi_jax.data import Dataset, ShapeTex, shapetex
from mi_jax.data.sample import fixed_sample
from mi_jax.models import Network
from mi_jax.parallel import mesh_of
from mi_jax.records.table import Record
from mi_jax.studies.registry import StudyInput, StudyResult
from mi_jax.studies.saliency.scores import correlation, cosine, edge_enrichment, image_gradient, insertion_deletion
from mi_jax.training import predictions
from mi_jax.typing import Images, Key, Labels, Variables

METHODS = ("gradient", "smoothgrad", "integrated_gradients", "grad_x_input", "grad_cam", "layer_cam")
_SHARE = 10
"""One in `_SHARE` images of the sample is explained."""
_BATCH = 50
_RANDOM_NETWORK, _RANDOM_RANKING = 1, 2
"""Folded into the key of the study for the random controls."""
_SHOWN = 5
_SMOOTHGRAD = {"noise": 0.15, "samples": 24}
"""Noise as a share of an image's range, as Smilkov et al. (2017) count it."""
_INTEGRATION_STEPS = 128
_LEAST_SIDE = 4
"""Grad-CAM uses the deepest layer with at least so many positions per side; a coarser map would not localise."""


class Maps(NamedTuple):
    """Attribution maps of one method.

    Attributes:
        signed: `[n h w]`, the sum over channels.
        size: `[n h w]`, the largest absolute value over channels.
        rank: `[n h w]`, orders the pixels for insertion and deletion: `signed` for methods that distribute the logit
            over the pixels, else `size`.
    """

    signed: np.ndarray
    size: np.ndarray
    rank: np.ndarray


def attribution_layer(network: Network) -> str | None:
    """The layer of Grad-CAM and LayerCAM: the deepest with 4 or more positions per side; None if there is none."""
    if not network.takes_perturbations:
        return None
    maps = [name for name, shape in network.tap_shapes.items() if len(shape) == 3 and min(shape[:2]) >= _LEAST_SIDE]
    return maps[-1] if maps else None


def known_fields(dataset: Dataset, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Masks and textures `[n h w]` of test images; None where the set's images are not those of ShapeTex's default.

    Args:
        dataset: the data set.
        rows: which test images.
    """
    if dataset.name != "shapetex":
        return None
    scene, images = _default_scene(int(rows.max()) + 1)
    if not np.array_equal(images[rows], dataset.test.images[rows]):
        return None
    return np.asarray(scene.mask)[rows], np.asarray(scene.texture)[rows]


def measure(study_input: StudyInput) -> StudyResult:
    """Scores of six attribution methods on a tenth of the sample, and maps of a few images for the figure.

    Records have the method as `estimator` and the mean over images as value: `image_gradient_correlation`;
    `insertion_auc` and `deletion_auc` (also of a `random` ranking); `randomised_similarity`, the rank correlation of
    |A| with that of a network with random weights (Adebayo et al. 2018), near 0 for a method that depends on the
    trained weights; `completeness_error` of integrated gradients, the absolute error summed over images, relative to
    the change of the logit. On ShapeTex also `edge_enrichment`,
    `shape_cosine` (with 2 m - 1) and `texture_cosine` (with t). Integration, insertion and deletion start from, or end
    at, the mean colour of the images. Arrays: `images` uint8 `[m h w c]`, `labels` `[m]` and `size`
    `[method m h w]`, the methods under `methods`.
    """
    test, network, variables = study_input.dataset.test, study_input.network, study_input.variables
    count = min(len(test), max(2, study_input.samples // _SHARE))
    images, rows = fixed_sample(test.images, np.arange(len(test)), count)  # row numbers in place of labels
    rows = np.asarray(rows)
    labels = jnp.asarray(test.labels[rows])
    baseline = jnp.mean(images, axis=(0, 1, 2))

    explain = functools.partial(_explain, network, images=images, labels=labels, baseline=baseline, key=study_input.key)
    maps, completeness = explain(variables)
    redrawn, _ = explain(network.init(jax.random.fold_in(study_input.key, _RANDOM_NETWORK)))
    records = _against_known(maps, known_fields(study_input.dataset, rows))
    edges = image_gradient(np.asarray(images))
    logits_of = functools.partial(predictions, network, variables)
    noise = np.asarray(jax.random.uniform(jax.random.fold_in(study_input.key, _RANDOM_RANKING), images.shape[:3]))
    for method, ranking in {"random": noise, **{method: found.rank for method, found in maps.items()}}.items():
        inserted, deleted = insertion_deletion(logits_of, images, labels, ranking, baseline=baseline, ties=noise)
        records += [_mean("insertion_auc", method, inserted), _mean("deletion_auc", method, deleted)]
    for method, found in maps.items():
        records.append(_mean("image_gradient_correlation", method, correlation(found.size, edges)))
        similarity = correlation(_ranks(found.size), _ranks(redrawn[method].size))
        records.append(_mean("randomised_similarity", method, similarity))
    records.append(
        Record(
            quantity="completeness_error",
            value=completeness,
            n=count,
            note=f"{_INTEGRATION_STEPS} steps from the mean colour",
            **_columns("integrated_gradients"),
        )
    )
    if "grad_cam" not in maps:
        reason = (
            f"no layer of {network.arch} is a map of at least {_LEAST_SIDE} positions per side that can be perturbed"
        )
        records.append(
            Record(
                quantity="insertion_auc",
                value=None,
                ok=False,
                estimator="grad_cam",
                image_set="test",
                inputs="clean",
                note=reason,
            )
        )
    return StudyResult(records, _shown(images, labels, maps))


def _explain(
    network: Network, variables: Variables, *, images: Images, labels: Labels, baseline: jax.Array, key: Key
) -> tuple[dict[str, Maps], float]:
    """The maps of every method that the network allows, and the completeness error of integrated gradients."""
    noise = _SMOOTHGRAD["noise"] * float(jnp.mean(images.max((1, 2, 3)) - images.min((1, 2, 3))))
    layer = attribution_layer(network)

    def part(x, y, places):
        return _attributions(
            network, layer, round(noise, 4), variables, x, y, baseline, jax.random.fold_in(key, places[0])
        )

    places, mesh = np.arange(len(images)), mesh_of(variables)
    found = map_batches(part, images, labels, places, batch_size=_BATCH, mesh=mesh)
    total, change = (np.asarray(found[name], np.float64) for name in ("total", "change"))
    maps = {}
    for method in METHODS:
        if method in found:
            full = np.asarray(found[method], np.float64)
            signed = full.sum(-1)
            size = np.abs(full).max(-1)
            maps[method] = Maps(signed, size, size if method in ("gradient", "smoothgrad") else signed)
    return maps, _share_missed(total, change)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _attributions(network: Network, layer, noise, variables, x, y, baseline, key) -> dict[str, jax.Array]:
    """Signed maps `[b h w c]` of every method, one compiled program for any variables."""
    model = (network.logits, variables, x, y)
    slope = attribution.gradient(*model)
    integrated = attribution.integrated_gradients(*model, baseline=baseline, steps=_INTEGRATION_STEPS)
    samples = int(_SMOOTHGRAD["samples"])

    def logit(x):
        return jnp.take_along_axis(network.logits(variables, x), y[:, None], axis=1)[:, 0]

    found = {
        "gradient": slope,
        "smoothgrad": attribution.smoothgrad(*model, key, noise=noise, samples=samples),
        "integrated_gradients": integrated,
        "grad_x_input": slope * x,
        "total": integrated.sum((1, 2, 3)),
        "change": logit(x) - logit(jnp.broadcast_to(baseline, x.shape)),
    }
    if layer is not None:
        for name, method in (("grad_cam", attribution.grad_cam), ("layer_cam", attribution.layer_cam)):
            coarse = method(network.apply, variables, x, y, layer=layer)
            found[name] = attribution.enlarge(coarse, height=x.shape[1], width=x.shape[2])[..., None]
    return found


def _share_missed(total: np.ndarray, change: np.ndarray) -> float:
    """The relative error over all images together: image by image it is large wherever a logit hardly changes."""
    whole = float(np.abs(change).sum())
    return float(np.abs(total - change).sum()) / whole if whole > 0 else math.nan


def _against_known(maps: Mapping[str, Maps], fields: tuple[np.ndarray, np.ndarray] | None) -> list[Record]:
    if fields is None:
        return []
    masks, textures = fields
    records = []
    for method, found in maps.items():
        records += [
            _mean("edge_enrichment", method, edge_enrichment(found.size, masks)),
            _mean("shape_cosine", method, cosine(found.signed, 2.0 * masks - 1)),
            _mean("texture_cosine", method, cosine(found.signed, textures)),
        ]
    return records


def _mean(quantity: str, method: str, values: np.ndarray) -> Record:
    """The mean over the images for which the score is defined."""
    known = values[~np.isnan(values)]
    columns = _columns(method)
    if not len(known):
        return Record(quantity=quantity, value=None, ok=False, note="the map of every image is constant", **columns)
    error = known.std(ddof=1) / np.sqrt(len(known)) if len(known) > 1 else None
    return Record(quantity=quantity, value=known.mean(), stderr=error, n=len(known), **columns)


def _columns(method: str) -> dict[str, Any]:
    return {"estimator": method, "image_set": "test", "inputs": "clean", "unit": "1"}


def _ranks(maps: np.ndarray) -> np.ndarray:
    return stats.rankdata(maps.reshape(len(maps), -1), axis=1).reshape(maps.shape)


def _shown(images: Images, labels: Labels, maps: Mapping[str, Maps]) -> dict[str, np.ndarray]:
    few = slice(0, _SHOWN)
    return {
        "images": np.round(np.asarray(images[few]) * 255).astype(np.uint8),
        "labels": np.asarray(labels[few]),
        "methods": np.array(list(maps)),
        "size": np.stack([found.size[few] for found in maps.values()]).astype(np.float32),
    }


@functools.lru_cache(maxsize=1)
def _default_scene(limit: int) -> tuple[shapetex.Scene, np.ndarray]:
    config = dataclasses.replace(ShapeTex(), n_test=max(ShapeTex().n_test, limit))  # sets of any size begin alike
    scene = shapetex.scene(config, "test", limit=limit)
    return scene, shapetex.split(scene, config).images
