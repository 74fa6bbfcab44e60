"""Texture-match test: do adversarial perturbations carry the texture of the class that the network then predicts?

Perturbations are compared with textures by their power spectra, so that phase and position do not matter.
"""

from typing import Any, NamedTuple

import numpy as np

from mi_jax.records.table import Record

_PERMUTATIONS = 2000


class TextureMatch(NamedTuple):
    """How often the best-matching texture, of all classes but the true one, is that of the predicted class.

    Attributes:
        rate: share of the misclassified adversarial images.
        among_images: expected rate with predictions permuted among all images.
        within_class: expected rate with predictions permuted among the images of each true class, which keeps the
            confusion matrix.
        p_among_images, p_within_class: p-values, the share of random permutations that reach the rate.
        n: misclassified images.
    """

    rate: float
    among_images: float
    within_class: float
    p_among_images: float
    p_within_class: float
    n: int


def power(fields: np.ndarray) -> np.ndarray:
    """Power spectra `[n h w]` of fields `[n h w]` without their mean, each of unit length."""
    spectrum = np.abs(np.fft.fft2(fields)) ** 2
    spectrum[:, 0, 0] = 0.0
    length = np.sqrt(np.sum(spectrum**2, axis=(1, 2), keepdims=True))
    return spectrum / np.where(length > 0, length, 1.0)


def texture_spectra(textures: np.ndarray, index: np.ndarray, num_classes: int) -> np.ndarray:
    """Mean power spectrum of each texture, `[num_classes h w]`, of unit length.

    Args:
        textures: fields `[n h w]`.
        index: which texture each is, int `[n]`; every one occurs.
    """
    spectra = power(textures)
    means = np.stack([spectra[index == k].mean(axis=0) for k in range(num_classes)])
    return means / np.sqrt(np.sum(means**2, axis=(1, 2), keepdims=True))


def similarities(perturbations: np.ndarray, spectra: np.ndarray) -> np.ndarray:
    """Cosine of each perturbation's power spectrum with every texture's, `[n num_classes]`, between 0 and 1.

    Args:
        perturbations: `[n h w c]`; channels are averaged, as textures are grey.
        spectra: from `texture_spectra`.
    """
    return np.einsum("nhw,khw->nk", power(np.asarray(perturbations).mean(axis=-1)), spectra)


def texture_match_test(
    similarity: np.ndarray, labels: np.ndarray, predicted: np.ndarray, rng: np.random.Generator
) -> TextureMatch | None:
    """Compares the best-matching texture of a wrong class with the predicted class, on the misclassified images.

    Args:
        similarity: from `similarities`, `[n k]`.
        labels: true class, int `[n]`.
        predicted: class predicted on the adversarial image, int `[n]`.
        rng: for the permutations.

    Returns:
        None where fewer than two images are misclassified, so that nothing can be permuted.
    """
    wrong = predicted != labels
    if wrong.sum() < 2:
        return None
    similarity, labels, predicted = similarity[wrong].copy(), labels[wrong], predicted[wrong]
    similarity[np.arange(len(labels)), labels] = -np.inf
    best = similarity.argmax(axis=1)
    rate = float(np.mean(best == predicted))
    size = similarity.shape[1]
    counts = np.zeros((size, size), int)
    np.add.at(counts, (labels, predicted), 1)
    own = counts[labels]
    within = float(np.mean(own[np.arange(len(best)), best] / own.sum(axis=1)))
    # A misclassified image cannot get its true class as its prediction.
    everywhere = counts.sum(axis=0)
    valid = len(labels) - everywhere[labels]
    usable = valid > 0
    among = float(np.mean(everywhere[best][usable] / valid[usable])) if usable.any() else rate
    reached = np.zeros(2)
    for _ in range(_PERMUTATIONS):
        permuted = predicted[rng.permutation(len(predicted))]
        valid = permuted != labels
        reached[0] += np.mean(best[valid] == permuted[valid]) >= rate if valid.any() else True
        reached[1] += np.mean(best == _within(predicted, labels, rng)) >= rate
    p_among, p_within = (reached + 1) / (_PERMUTATIONS + 1)
    return TextureMatch(rate, among, within, float(p_among), float(p_within), len(labels))


def _within(predicted: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Predictions permuted among the images of each label."""
    random = rng.random(len(labels))
    source, target = np.lexsort((random, labels)), np.argsort(labels, kind="stable")
    permuted = np.empty_like(predicted)
    permuted[target] = predicted[source]
    return permuted


def match_records(found: TextureMatch | None, **columns: Any) -> list[Record]:
    """Records `texture_match`, and by `reference` `texture_match_baseline` and `texture_match_p`."""
    columns = {"image_set": "redundant", **columns}
    if found is None:
        reason = "fewer than two images are misclassified, so there is nothing to compare"
        return [Record(quantity="texture_match", value=None, ok=False, note=reason, **columns)]
    columns |= {"unit": "1", "n": found.n}
    error = np.sqrt(found.rate * (1 - found.rate) / found.n)
    records = [Record(quantity="texture_match", value=found.rate, stderr=error, **columns)]
    for reference, baseline, p in (
        ("among_images", found.among_images, found.p_among_images),
        ("within_class", found.within_class, found.p_within_class),
    ):
        records.append(Record(quantity="texture_match_baseline", value=baseline, reference=reference, **columns))
        records.append(Record(quantity="texture_match_p", value=p, reference=reference, **columns))
    return records
