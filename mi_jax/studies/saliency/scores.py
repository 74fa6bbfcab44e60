"""Scores of attribution maps: edge enrichment, cosines and correlations with known fields, insertion and deletion."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from mi_jax.batches import map_batches
from mi_jax.distortions import LUMINANCE
from mi_jax.typing import Images, Labels

_STEPS = 10
"""Steps of an insertion or deletion curve."""


def edge_enrichment(sizes: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Mean of |A| on the band of pixels that a shape covers in part, over its mean elsewhere, `[n]`; 1 is even.

    Args:
        sizes: |A|, `[n h w]`.
        masks: antialiased coverage in [0, 1], `[n h w]`; the band where it is neither 0 nor 1 is one pixel wide.
    """
    band = (masks > 0) & (masks < 1)
    on = np.where(band, sizes, 0).sum((1, 2)) / np.maximum(band.sum((1, 2)), 1)
    off = np.where(band, 0, sizes).sum((1, 2)) / np.maximum((~band).sum((1, 2)), 1)
    return np.divide(on, off, out=np.full(len(on), np.nan), where=off > 0)


def cosine(maps: np.ndarray, fields: np.ndarray) -> np.ndarray:
    """Cosine of signed maps and fields, both `[n h w]`, image by image; NaN where one is 0 everywhere."""
    lengths = np.sqrt((maps**2).sum((1, 2)) * (fields**2).sum((1, 2)))
    return np.divide((maps * fields).sum((1, 2)), lengths, out=np.full(len(maps), np.nan), where=lengths > 0)


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlation of maps `[n h w]`, image by image; NaN where one is constant."""
    a, b = (maps - maps.mean((1, 2), keepdims=True) for maps in (a, b))
    return cosine(a, b)


def image_gradient(images: np.ndarray) -> np.ndarray:
    """Magnitude of the gradient (Sobel) of luminance, of the mean where channels are not 1 or 3, `[n h w]`."""
    grey = images @ np.array(LUMINANCE) if images.shape[-1] == 3 else images.mean(-1)
    return np.hypot(ndimage.sobel(grey, axis=1), ndimage.sobel(grey, axis=2))


def insertion_deletion(
    logits_of: Callable[[Images], Any],
    images: Images,
    labels: Labels,
    ranking: np.ndarray,
    *,
    baseline: Any,
    ties: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Areas under the probability of the label as pixels are inserted, or deleted, in the order of a map, each `[n]`.

    A good map has a large insertion and a small deletion area. Source: Petsiuk et al., RISE (2018), section 4.2.

    Args:
        logits_of: images to logits.
        images: in [0, 1], `[n h w c]`.
        labels: int `[n]`.
        ranking: `[n h w]`; the largest values come first.
        baseline: what a missing pixel is: a value, or one a channel.
        ties: random numbers `[n h w]` by which equal values are ordered, the largest first: in the order of the image,
            a map that is 0 in most pixels would be scored by where these are.
    """
    n, pixels = len(images), ranking[0].size
    order = np.lexsort((-ties.reshape(n, -1), -ranking.reshape(n, -1)), axis=1)
    place = np.argsort(order, axis=1).reshape(ranking.shape)
    step, image = (index.ravel() for index in np.mgrid[: _STEPS + 1, :n])
    places, missing = jnp.asarray(place), jnp.broadcast_to(jnp.asarray(baseline, images.dtype), images.shape[-1:])

    def probability(step, image, *, inserted: bool):
        first = (places[image] * _STEPS < step[:, None, None] * pixels)[..., None]
        shown = jnp.where(first == inserted, images[image], missing)
        return jax.nn.softmax(logits_of(shown))[jnp.arange(len(image)), labels[image]]

    areas = []
    for inserted in (True, False):
        curve = map_batches(functools.partial(probability, inserted=inserted), step, image)
        areas.append(np.trapezoid(np.asarray(curve, np.float64).reshape(_STEPS + 1, n), dx=1 / _STEPS, axis=0))
    return areas[0], areas[1]
