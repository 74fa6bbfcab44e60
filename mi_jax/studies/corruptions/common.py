"""Common corruptions in five severities, as in CIFAR-10-C (Hendrycks and Dietterich 2019), of any images."""

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

Corrupt = Callable[[np.ndarray, Any, np.random.Generator], np.ndarray]
"""`corrupt(images, strength, rng)`: images `[n h w c]` in [0, 1], not yet clipped."""


class Corruption(NamedTuple):
    """A corruption and its strengths from severity 1 to 5."""

    corrupt: Corrupt
    strengths: tuple[float, ...]


def corrupted(name: str, images: np.ndarray, severity: int, seed: int) -> np.ndarray:
    """The corrupted images, float32 `[n h w c]` in [0, 1], rounded to 8 bits.

    The stored CIFAR-10-C truncates instead, which is darker by half a level of 255 on average.

    Args:
        name: one of `CORRUPTIONS`.
        images: in [0, 1], `[n h w c]`.
        severity: 1 to 5.
        seed: seed of the random numbers.
    """
    corruption = CORRUPTIONS[name]
    rng = np.random.default_rng((seed, severity))
    changed = corruption.corrupt(np.asarray(images, np.float64), corruption.strengths[severity - 1], rng)
    return (np.round(255 * np.clip(changed, 0, 1)) / 255).astype(np.float32)


def _gaussian_noise(x: np.ndarray, std: float, rng: np.random.Generator) -> np.ndarray:
    return x + rng.normal(scale=std, size=x.shape)


def _shot_noise(x: np.ndarray, photons: float, rng: np.random.Generator) -> np.ndarray:
    return rng.poisson(x * photons) / photons


def _impulse_noise(x: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(x.shape) < share, rng.integers(0, 2, x.shape), x)


def _gaussian_blur(x: np.ndarray, std: float, rng: np.random.Generator) -> np.ndarray:
    return ndimage.gaussian_filter(x, (0, std, std, 0), mode="nearest")


def _brightness(x: np.ndarray, added: float, rng: np.random.Generator) -> np.ndarray:
    """Adds to the value of HSV, the largest channel; hue and saturation stay."""
    value = x.max(axis=-1, keepdims=True)
    raised = np.clip(value + added, 0, 1)
    return np.where(value > 0, x / np.where(value > 0, value, 1) * raised, raised)


def _contrast(x: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    mean = x.mean(axis=(1, 2), keepdims=True)
    return mean + factor * (x - mean)


def _jpeg(x: np.ndarray, quality: float, rng: np.random.Generator) -> np.ndarray:
    return np.stack([_compressed(image, int(quality)) for image in np.round(255 * x).astype(np.uint8)]) / 255


def _compressed(image: np.ndarray, quality: int) -> np.ndarray:
    if image.shape[-1] not in (1, 3):  # JPEG has no others: each channel by itself
        return np.concatenate([_compressed(channel, quality) for channel in np.split(image, image.shape[-1], -1)], -1)
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "jpeg", quality=quality)
    return np.asarray(Image.open(file)).reshape(image.shape)


CORRUPTIONS = {
    "gaussian_noise": Corruption(_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": Corruption(_shot_noise, (500.0, 250.0, 100.0, 75.0, 50.0)),
    "impulse_noise": Corruption(_impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "gaussian_blur": Corruption(_gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1.0)),
    "brightness": Corruption(_brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": Corruption(_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "jpeg_compression": Corruption(_jpeg, (80.0, 65.0, 58.0, 50.0, 40.0)),
}
"""By name, with the strengths of CIFAR-10-C: 7 of its 19, so that means over them are not those of the benchmark."""
