"""Which cue a network's answers follow: shape bias, accuracy without one cue, and the oracle of perturbations.

Only for ShapeTex, whose diagnostic sets take its cues apart. It asks for answers alone and looks into no layer, so it
takes seconds and every quick run on ShapeTex includes it.
"""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax.data import Dataset, ShapeTex, Split, shapetex, to_float
from mi_jax.data.shapetex import SHAPES
from mi_jax.measure.accuracy import adversarial_examples, describe
from mi_jax.records.table import Record
from mi_jax.studies.registry import Study, StudyInput, StudyResult, register
from mi_jax.studies.shape_texture import shape_bias, texture_match
from mi_jax.studies.shape_texture.information import CUES
from mi_jax.training import predictions
from mi_jax.typing import Images

CLASSES = len(SHAPES)
PAIRS, _CONFLICTS = CLASSES**2, CLASSES * (CLASSES - 1)


def unsupported_reason(dataset: Dataset) -> str | None:
    """Why the study does not apply to a data set, or None where it does."""
    if dataset.name == "shapetex":
        return None
    return "it needs images whose shape and texture are known apart, which ShapeTex alone has"


def cue_answers(study_input: StudyInput) -> StudyResult:
    """The records and arrays of `choices` on as many images as the subject asks for, and of the delta oracle."""
    config = ShapeTex()
    count = held_out_images(study_input, config)
    return behaviour(study_input, diagnostic_sets(config, count), count)


def behaviour(study_input: StudyInput, sets: Mapping[str, Split], count: int) -> StudyResult:
    """What `choices` and `delta` find on the first `count` images of each set."""
    shown = {name: split.take(slice(None, _length(name, count))) for name, split in sets.items()}
    records, arrays = choices(study_input, shown)
    return StudyResult(records + delta(study_input, shown["redundant"]), arrays)


def held_out_images(study_input: StudyInput, config: ShapeTex) -> int:
    """How many images of a diagnostic set are judged: about what the subject asks for, all pairs of cues alike."""
    return int(np.clip(study_input.samples // PAIRS * PAIRS, PAIRS, config.n_test // 2))


@functools.lru_cache(maxsize=2)
def diagnostic_sets(config: ShapeTex, limit: int) -> Mapping[str, Split]:
    """The test sets of ShapeTex, drawn once for all networks; callers leave them as they are."""
    return shapetex.test_sets(dataclasses.replace(config, n_test=max(limit, PAIRS)), limit=limit)


def _length(name: str, held: int) -> int:
    return max(held // _CONFLICTS, 1) * _CONFLICTS if name == "conflict" else held


def choices(study_input: StudyInput, sets: Mapping[str, Split]) -> tuple[list[Record], dict[str, np.ndarray]]:
    """What the network answers where the cues disagree and where one is missing, on clean images and on their adversarial examples.

    Args:
        subject: the network.
        sets: `conflict`, `texture_suppressed` and `shape_suppressed`.
    """
    conflict = sets["conflict"]
    images = images_of(conflict)
    answers = answers_of(study_input, images)
    adversarial_images = adversarial_examples_of(study_input, images, answers)
    names = {"shape": SHAPES, "texture": ShapeTex().texture_names}
    records, arrays = [], {cue: conflict.factors[cue] for cue in CUES}
    for inputs, found in (("clean", answers), ("adversarial", answers_of(study_input, adversarial_images))):
        records += shape_bias.bias_records(found, conflict.factors, class_names=names, inputs=inputs)
        arrays["answers" if inputs == "clean" else f"answers_{inputs}"] = found
    alone = {name: sets[f"{name}_suppressed"] for name in CUES}
    labels = alone["texture"].labels
    clean = {name: images_of(split) for name, split in alone.items()}
    attacked = {name: adversarial_examples_of(study_input, shown, labels) for name, shown in clean.items()}
    for inputs, shown, note in (("clean", clean, None), ("adversarial", attacked, describe(study_input.attack))):
        found = {name: answers_of(study_input, x) for name, x in shown.items()}
        records += shape_bias.suppression_records(found["texture"], found["shape"], labels, inputs=inputs, note=note)
    return records, arrays


def delta(study_input: StudyInput, redundant: Split) -> list[Record]:
    """The delta oracle on redundant images."""
    images = images_of(redundant)
    adversarial_images = adversarial_examples_of(study_input, images, redundant.labels)
    match = texture_match.matches(np.asarray(adversarial_images - images), _spectra(ShapeTex()))
    rng = np.random.default_rng(np.asarray(jax.random.key_data(study_input.key)).tolist())
    found = texture_match.delta_oracle(match, redundant.labels, answers_of(study_input, adversarial_images), rng)
    return texture_match.oracle_records(found, inputs="adversarial", note=describe(study_input.attack))


@functools.lru_cache(maxsize=2)
def _spectra(config: ShapeTex) -> np.ndarray:
    scene = shapetex.scene(config, "factorial", limit=5 * PAIRS)
    return texture_match.texture_spectra(scene.texture, scene.factors["texture"], CLASSES)


def images_of(split: Split) -> jax.Array:
    """The images of a split as floats in [0, 1], `[n h w c]`."""
    return to_float(jnp.asarray(split.images))


def answers_of(study_input: StudyInput, images: Images) -> np.ndarray:
    """The class that the network answers, int `[n]`."""
    return np.argmax(np.asarray(predictions(study_input.network, study_input.variables, images)), axis=1)


def adversarial_examples_of(study_input: StudyInput, images: Images, labels: np.ndarray) -> jax.Array:
    """Adversarial adversarial examples of images, made by the attack of the run to lead away from these labels, int `[n]`."""
    classes = jnp.asarray(labels, jnp.int32)
    return adversarial_examples(study_input.network, study_input.variables, images, classes, attack=study_input.attack)


STUDY = register(
    Study(
        name="cue_answers",
        title="Shape or texture: what the answers follow",
        run=cue_answers,
        unsupported_reason=unsupported_reason,
        part_of="cue_conflict",
    )
)
