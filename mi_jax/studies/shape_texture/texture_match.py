"""The delta oracle: does an adversarial perturbation carry the texture of the class that the network then sees?

Perturbations are compared with textures by their power spectra, so that phase and place do not matter. It attacks
nothing and knows no network.
"""

from typing import Any, NamedTuple

import numpy as np

from mi_jax.records.table import Record

_PERMUTATIONS = 2000


class Oracle(NamedTuple):
    """How often the best-matching texture of another class than the true one is that of the predicted class.

    rate: over the images that the attack has misclassified. among_images: the same with predictions exchanged between
    images, in expectation; within_class: exchanged between images of one true class, in expectation, which also
    keeps any habit of taking one class for another. p_among_images, p_within_class: share of random exchanges that
    reach the rate. n: misclassified images.
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


def matches(deltas: np.ndarray, spectra: np.ndarray) -> np.ndarray:
    """Cosine of each perturbation's power spectrum with every texture's, `[n num_classes]`, between 0 and 1.

    Args:
        deltas: perturbations `[n h w c]`; channels are averaged, as textures are grey.
        spectra: from `texture_spectra`.
    """
    return np.einsum("nhw,khw->nk", power(np.asarray(deltas).mean(axis=-1)), spectra)


def delta_oracle(match: np.ndarray, labels: np.ndarray, answers: np.ndarray, rng: np.random.Generator) -> Oracle | None:
    """Compares the best match among the wrong classes with the class predicted, on the misclassified images.

    Args:
        match: from `matches`, `[n k]`.
        labels, answers: true class, and class predicted on the adversarial image, int `[n]`.
        rng: of the permutations.

    Returns:
        None where fewer than two images are misclassified: nothing can be exchanged.
    """
    wrong = answers != labels
    if wrong.sum() < 2:
        return None
    match, labels, answers = match[wrong].copy(), labels[wrong], answers[wrong]
    match[np.arange(len(labels)), labels] = -np.inf
    best = match.argmax(axis=1)
    rate = float(np.mean(best == answers))
    size = match.shape[1]
    counts = np.zeros((size, size), int)
    np.add.at(counts, (labels, answers), 1)
    own = counts[labels]
    within = float(np.mean(own[np.arange(len(best)), best] / own.sum(axis=1)))
    # An answer that is this image's true class could not have been given: it is no valid exchange.
    everywhere = counts.sum(axis=0)
    valid = len(labels) - everywhere[labels]
    usable = valid > 0
    among = float(np.mean(everywhere[best][usable] / valid[usable])) if usable.any() else rate
    reached = np.zeros(2)
    for _ in range(_PERMUTATIONS):
        exchanged = answers[rng.permutation(len(answers))]
        fair = exchanged != labels
        reached[0] += np.mean(best[fair] == exchanged[fair]) >= rate if fair.any() else True
        reached[1] += np.mean(best == _within(answers, labels, rng)) >= rate
    p_among, p_within = (reached + 1) / (_PERMUTATIONS + 1)
    return Oracle(rate, among, within, float(p_among), float(p_within), len(labels))


def _within(answers: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Answers permuted among the images of each label."""
    random = rng.random(len(labels))
    source, target = np.lexsort((random, labels)), np.argsort(labels, kind="stable")
    permuted = np.empty_like(answers)
    permuted[target] = answers[source]
    return permuted


def oracle_records(found: Oracle | None, **columns: Any) -> list[Record]:
    """Records `delta_oracle`, `delta_oracle_baseline` (subset says what was exchanged) and `delta_oracle_p`."""
    if found is None:
        reason = "fewer than two images are misclassified, so there is nothing to compare"
        return [Record(quantity="delta_oracle", value=None, ok=False, **{**columns, "note": reason})]
    error = np.sqrt(found.rate * (1 - found.rate) / found.n)
    columns = {**columns, "unit": "1", "n": found.n}
    records = [Record(quantity="delta_oracle", value=found.rate, stderr=error, subset="misclassified", **columns)]
    for subset, baseline, p in (
        ("exchanged among images", found.among_images, found.p_among_images),
        ("exchanged within classes", found.within_class, found.p_within_class),
    ):
        records.append(Record(quantity="delta_oracle_baseline", value=baseline, subset=subset, **columns))
        records.append(Record(quantity="delta_oracle_p", value=p, subset=subset, **columns))
    return records
