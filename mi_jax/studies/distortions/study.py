"""Accuracy and information under image distortions that remove shape or texture step by step.

Adversarial images are made first and distorted afterwards; images are the same for every network and level,
permutations, phases and noise for every network and level of a seed.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mi_jax import distortions
from mi_jax.batches import map_batches
from mi_jax.data.sample import fixed_sample
from mi_jax.measure.accuracy import adversarial_examples, attack_columns
from mi_jax.measure.information import (
    InformationConfig,
    NoiseVariances,
    activations,
    frozen_noise_variances,
    kde_records,
)
from mi_jax.records.table import Record
from mi_jax.studies.registry import StudyInput, StudyResult
from mi_jax.typing import Images, Key, Labels

Apply = Callable[[Images, float, Key], Images]
"""`apply(images, level, key)`: the distorted images."""


@dataclasses.dataclass(frozen=True)
class Distortion:
    """A distortion and the strengths at which it is studied.

    Attributes:
        name: as in `mi_jax.distortions`; column `distortion` of its records.
        levels: strengths, the identity first; column `level` of its records.
        apply: gives the distorted images.
    """

    name: str
    levels: tuple[float, ...]
    apply: Apply

    @property
    def identity(self) -> float:
        """The level at which images are unchanged."""
        return self.levels[0]


@functools.cache  # so that a distortion is compiled once for all networks
def distortions_for(input_shape: tuple[int, int, int]) -> tuple[Distortion, ...]:
    """The distortions that images of this shape allow, each from the identity to its strongest.

    Saturation and patch shuffle have the levels of Zhang et al. (2022), as far as k divides the image. Cut-offs are in
    cycles per image height: 3/8, 1/4 and 1/8 of the height. Noise is given by its standard deviation.

    Examples:
        >>> [(d.name, d.levels) for d in distortions_for((32, 32, 1))[1:3]]
        [('patch_shuffle', (1.0, 2.0, 4.0, 8.0)), ('low_pass', (23.0, 12.0, 8.0, 4.0))]
    """
    height, width, channels = input_shape
    sides = tuple(float(k) for k in (1, 2, 4, 8) if height % k == 0 and width % k == 0)
    cuts = tuple(height * share for share in (0.375, 0.25, 0.125))
    # The highest frequency lies in the corner of the spectrum, at half a cycle a pixel in both directions.
    everything = float(math.ceil(math.sqrt(0.5) * height))
    found = [
        Distortion("saturate", (2.0, 8.0, 16.0, 64.0, 1024.0), _without_key(distortions.saturate)),
        Distortion("patch_shuffle", sides, _patch_shuffle),
        Distortion("low_pass", (everything, *cuts), _without_key(distortions.low_pass)),
        Distortion("high_pass", (0.0, *cuts[::-1]), _without_key(distortions.high_pass)),
        Distortion("phase_scramble", (0.0, 0.5, 1.0), jax.jit(distortions.phase_scramble)),
        Distortion("gaussian_noise", (0.0, 8 / 255, 16 / 255, 32 / 255), jax.jit(distortions.gaussian_noise)),
    ]
    if channels == 3:
        found.append(Distortion("greyscale", (0.0, 1.0), lambda images, level, key: distortions.greyscale(images)))
    return tuple(distortion for distortion in found if len(distortion.levels) > 1)


def distort(images: Images, distortion: Distortion, level: float, key: Key) -> Images:
    """Every image at one level; random numbers depend on the key and the image's index alone.

    Args:
        images: in [0, 1], `[n h w c]`.
        distortion: one of `distortions_for`.
        level: one of its levels.
        key: the same for all levels, inputs and networks that are compared.
    """
    if level == distortion.identity:
        return images

    def part(batch, places):
        return distortion.apply(batch, level, jax.random.fold_in(key, places[0]))

    return map_batches(part, images, np.arange(len(images)))


def measure(study_input: StudyInput) -> StudyResult:
    """Accuracy, loss and information of every layer under each distortion, clean and adversarial.

    Records have the columns `distortion` and `level`; at the identity they are the undistorted measurement. The noise
    variance of the information estimates is that of the network's undistorted clean activations (`fixed`: 0.1;
    `scale_free`: the trace rule). The arrays are one example image at every level, uint8 `[condition h w c]` under
    `clean` and `adversarial`, with the `distortion` and `level` of each condition. The attack knows the labels, so that
    I(T;Y) on adversarial images is no information about the clean image, see `records.labels.LABEL_LEAK`.
    """
    network, variables = study_input.network, study_input.variables
    test = study_input.dataset.test
    images, labels = fixed_sample(test.images, test.labels, study_input.samples)
    adversarial_images = adversarial_examples(network, variables, images, labels, attack=study_input.attack)
    own = frozen_noise_variances(network, variables, images, config=InformationConfig(noise=("fixed", "trace")))
    noise_variances = {"fixed": own["fixed"], "scale_free": own["trace"]}

    records, arrays = [], {}
    for inputs, originals in (("clean", images), ("adversarial", adversarial_images)):
        columns = {"image_set": "test", "inputs": inputs}
        columns |= attack_columns(study_input.attack) if inputs == "adversarial" else {}
        untouched = _measure(study_input, originals, labels, noise_variances, columns)
        shown = []
        for number, distortion in enumerate(distortions_for(network.input_shape)):
            key = jax.random.fold_in(study_input.key, number)
            for level in distortion.levels:
                changed = distort(originals, distortion, level, key)
                rows = (
                    untouched
                    if changed is originals
                    else _measure(study_input, changed, labels, noise_variances, columns)
                )
                records += [dataclasses.replace(row, distortion=distortion.name, level=level) for row in rows]
                shown.append((distortion.name, level, np.asarray(changed[0])))
        names, levels, pictures = zip(*shown, strict=True)
        arrays[inputs] = np.round(np.stack(pictures) * 255).astype(np.uint8)
        arrays |= {"distortion": np.array(names), "level": np.array(levels, np.float64)}
    return StudyResult(records, arrays)


def _measure(
    study_input: StudyInput, images: Images, labels: Labels, noise_variances: NoiseVariances, columns: Mapping[str, Any]
) -> list[Record]:
    """Records of one set of images, without distortion and level."""
    taps = activations(study_input.network, study_input.variables, images)
    logits = taps[study_input.network.layers[-1]]
    n, classes = len(labels), study_input.network.num_classes
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
    accuracy = float(jnp.mean(jnp.argmax(logits, -1) == labels))
    error = math.sqrt(accuracy * (1 - accuracy) / n)
    records = [
        Record(quantity="loss", value=jnp.mean(losses), unit="nats", n=n, **columns),
        Record(quantity="accuracy", value=accuracy, stderr=error, unit="1", n=n, **columns),
    ]
    for layer, tap in taps.items():
        variances = {rule: by_layer[layer] for rule, by_layer in noise_variances.items()}
        where = {"layer": layer, "n": n, **columns}
        records += kde_records(tap, labels, variances, num_classes=classes, by_class=False, **where)
    return records


def _without_key(distortion: Callable[[Images, Any], Images]) -> Apply:
    return jax.jit(lambda images, level, key: distortion(images, level))


@functools.partial(jax.jit, static_argnums=1)
def _patch_shuffle(images: Images, k: float, key: Key) -> Images:
    return distortions.patch_shuffle(images, int(k), key)
