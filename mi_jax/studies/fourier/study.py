"""Sensitivity of a network to single Fourier waves, and the power spectrum of adversarial perturbations.

Frequencies are in cycles per image.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax.attacks import PGD
from mi_jax.batches import map_batches
from mi_jax.data.sample import fixed_sample
from mi_jax.measure.accuracy import adversarial_examples, attack_columns
from mi_jax.records.table import Record
from mi_jax.seeding import sample_rows
from mi_jax.studies.registry import StudyInput, StudyResult
from mi_jax.training import predictions
from mi_jax.typing import Images, Key, Labels

_WAVES_A_SIDE = 16
"""Least number of frequencies per side: a stride of 2 for images of 32 pixels, of 1 below."""
_SHARE = 5
"""Every wave is added to every `_SHARE`-th image of the sample."""


def frequencies(height: int, width: int, *, stride: int = 1) -> np.ndarray:
    """The different real waves of an image, int `[m 2]`: cycles downwards and to the right.

    All whose two components are multiples of the stride, but only one of a frequency and its opposite, which are the
    same wave: the one that points down, or to the right where neither does.

    Examples:
        >>> frequencies(3, 3).tolist()
        [[0, 0], [0, 1], [1, -1], [1, 0], [1, 1]]
    """
    down = [u for u in _range(height) if u % stride == 0]
    right = [v for v in _range(width) if v % stride == 0]
    kept = [(u, v) for u in down for v in right if (u, v) == _canonical(u, v, height, width)]
    return np.array(kept, np.int32)


def waves(chosen: Any, *, height: int, width: int) -> np.ndarray:
    """The real basis images of frequencies `[m 2]`, float32 `[m height width]`, each of L2 norm 1.

    cos(2 pi (u y / height + v x / width)) + sin(...), scaled: the two opposite Fourier coefficients have one magnitude,
    and the wave is not 0 at a frequency that is its own opposite. Waves of different frequencies (up to sign) are
    orthogonal. Source: Yin et al., A Fourier Perspective on Model Robustness in Computer Vision (2019), section 2.
    """
    y, x = np.mgrid[:height, :width]
    angle = 2 * np.pi * np.stack([u * y / height + v * x / width for u, v in np.asarray(chosen)])
    wave = np.cos(angle) + np.sin(angle)
    return (wave / np.sqrt((wave**2).sum((1, 2), keepdims=True))).astype(np.float32)


def sensitivity(
    logits_of: Callable[[Images], Any], images: Images, labels: Labels, key: Key, *, basis: Any, norm: float
) -> np.ndarray:
    """Share of images that are misclassified under each wave, `[m]` (Yin et al. 2019, section 4).

    The wave has a random sign in every channel; the perturbation of all channels together has the given L2 norm
    before the image is clipped to [0, 1].

    Args:
        logits_of: images to logits.
        images: in [0, 1], `[n h w c]`.
        labels: int `[n]`.
        key: random key for the signs, one for each image and channel, the same for all waves.
        basis: from `waves`, `[m h w]`.
        norm: L2 norm of the perturbation, pixel units of [0, 1].
    """
    n, channels = len(images), images.shape[-1]
    signs = jax.random.rademacher(key, (n, channels), jnp.float32)
    basis = jnp.asarray(basis) * (norm / channels**0.5)

    def wrong(wave, image):
        return jnp.argmax(logits_of(_perturbed(images, signs, basis, wave, image)), -1) != labels[image]

    wave, image = (index.ravel() for index in np.mgrid[: len(basis), :n])
    return np.asarray(map_batches(wrong, wave, image)).reshape(len(basis), n).mean(1)


@jax.jit
def _perturbed(images, signs, basis, wave, image) -> Images:
    return jnp.clip(images[image] + basis[wave][..., None] * signs[image][:, None, None, :], 0.0, 1.0)


def power(perturbations: Any) -> np.ndarray:
    """Mean power at each frequency, `[h w]` with frequency 0 in the middle, in units of what white noise would have.

    Means over images and channels; the mean over all frequencies is 1 (0 if all perturbations are 0).

    Args:
        perturbations: `[n h w c]`.
    """
    total = np.zeros(perturbations.shape[1:3])
    for delta in np.asarray(perturbations, np.float64):
        total += (np.abs(np.fft.fft2(delta, axes=(0, 1))) ** 2).mean(-1)
    return np.fft.fftshift(total / (total.mean() or 1.0))


def radial(values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Means of a map `[h w]`, frequency 0 in the middle, over rings of whole cycles per image height; NaN left out.

    Returns:
        Radii, int `[r]`, from 0 to the highest along an axis, and the means `[r]` (NaN for a ring without values).
    """
    height, width = np.shape(values)
    down, right = np.array(_range(height)), np.array(_range(width)) * (height / width)
    ring = np.rint(np.hypot(down[:, None], right[None, :])).astype(int)
    radii = np.arange(height // 2 + 1)
    known = ~np.isnan(values)
    means = [np.asarray(values)[known & (ring == radius)] for radius in radii]
    return radii, np.array([part.mean() if part.size else np.nan for part in means])


def mean_frequency(spectrum: np.ndarray) -> float:
    """Mean radial frequency of a power spectrum `[h w]` weighted by power, cycles per image height."""
    height, width = spectrum.shape
    radius = np.hypot(np.array(_range(height))[:, None], np.array(_range(width))[None, :] * (height / width))
    return float((radius * spectrum).sum() / spectrum.sum())


def measure(study_input: StudyInput) -> StudyResult:
    """Sensitivity to single waves and the spectrum of adversarial perturbations.

    A wave has the L2 norm of a perturbation at the radius of the run's attack that changes all d pixels and channels
    equally: eps sqrt(d) under Linf, eps under L2, eps / sqrt(d) under L1. It is added to a fifth of the sample; the
    stride of the frequencies leaves at least 16 per side. Records: `wave_error` (distortion `wave`), the
    error rate on rings of `level` cycles per image height, with the clean error of the same images as `error`;
    `perturbation_power` on rings, 1 being white noise, over the whole sample; and `perturbation_frequency`, the mean
    frequency of that power. Arrays: `error` `[h w]` (NaN between the strides) and `power` `[h w]`, both with frequency
    0 in the middle.
    """
    test, shape = study_input.dataset.test, study_input.network.input_shape
    images, labels = fixed_sample(test.images, test.labels, study_input.samples)
    adversarial_images = adversarial_examples(
        study_input.network, study_input.variables, images, labels, attack=study_input.attack
    )
    spectrum = power(np.asarray(adversarial_images) - np.asarray(images))

    logits_of = functools.partial(predictions, study_input.network, study_input.variables)
    few = sample_rows(len(labels), max(1, len(labels) // _SHARE))
    some, labels_of_some = images[few], labels[few]
    norm = wave_norm(study_input.attack, shape)
    stride = max(1, min(shape[:2]) // _WAVES_A_SIDE)
    chosen = frequencies(*shape[:2], stride=stride)
    basis = waves(chosen, height=shape[0], width=shape[1])
    errors = sensitivity(logits_of, some, labels_of_some, study_input.key, basis=basis, norm=norm)
    heat = _map(chosen, errors, *shape[:2])

    clean_error = float(jnp.mean(jnp.argmax(logits_of(some), -1) != labels_of_some))
    note = f"waves of L2 norm {norm:.3g}, every {stride} cycles"
    seen = {"image_set": "test", "inputs": "clean", "unit": "1", "n": len(some)}
    records = [Record(quantity="error", value=clean_error, **seen)]
    records += _rings("wave_error", heat, {**seen, "distortion": "wave", "note": note})
    made = {"image_set": "test", "inputs": "adversarial", "n": len(images), **attack_columns(study_input.attack)}
    records += _rings("perturbation_power", spectrum, {**made, "unit": "1"})
    if spectrum.any():
        frequency = mean_frequency(spectrum)
        records.append(Record(quantity="perturbation_frequency", value=frequency, unit="cycles per image", **made))
    return StudyResult(records, {"error": heat, "power": spectrum})


def wave_norm(attack: PGD, input_shape: tuple[int, int, int]) -> float:
    """The L2 norm of a perturbation of norm eps that changes all d pixels and channels equally, as a wave roughly does.

    eps sqrt(d) for an attack in Linf, eps in L2, and eps / sqrt(d) in L1, in pixel units of [0, 1].

    Examples:
        >>> round(wave_norm(PGD(norm="linf", eps=8 / 255), (32, 32, 3)), 3)
        1.739
        >>> round(wave_norm(PGD(norm="l1", eps=12.0), (32, 32, 3)), 3)
        0.217
    """
    return attack.eps * math.prod(input_shape) ** {"linf": 0.5, "l2": 0.0, "l1": -0.5}[str(attack.norm)]


def _rings(quantity: str, values: np.ndarray, columns: dict[str, Any]) -> list[Record]:
    rings = zip(*radial(values), strict=True)
    return [Record(quantity=quantity, value=v, level=r, **columns) for r, v in rings if not np.isnan(v)]


def _map(chosen: np.ndarray, values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Values of waves at their frequency and its opposite, frequency 0 in the middle, NaN elsewhere."""
    found = np.full((height, width), np.nan)
    for sign in (1, -1):
        found[sign * chosen[:, 0] % height, sign * chosen[:, 1] % width] = values
    return np.fft.fftshift(found)


def _range(size: int) -> range:
    """The frequencies of `size` samples, in the order of `fftshift`."""
    return range(-(size // 2), (size + 1) // 2)


def _canonical(u: int, v: int, height: int, width: int) -> tuple[int, int]:
    """Of a frequency and its opposite the one that comes later row by row."""
    opposite = (-u + height // 2) % height - height // 2, (-v + width // 2) % width - width // 2
    return max((u, v), opposite)
