"""Which cue a network's predictions follow: shape bias on conflict images, and accuracy with one cue removed.

Needs ShapeTex, whose diagnostic sets separate the cues. It uses only predictions, so it takes seconds, and every quick
run on ShapeTex includes it.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from mi_jax.data import Dataset, ShapeTex, Split, shapetex
from mi_jax.data.shapetex import SHAPES
from mi_jax.measure.accuracy import accuracy_row, adversarial_examples, attack_columns
from mi_jax.records.table import Record
from mi_jax.statistics.intervals import wilson
from mi_jax.statistics.jackknife import blocks_to_text, means_without_block
from mi_jax.studies.registry import StudyInput, StudyResult
from mi_jax.studies.shape_texture import texture_match
from mi_jax.training import predictions
from mi_jax.typing import Images

CLASSES = len(SHAPES)
CUES = ("shape", "texture")
_PAIRS, _CONFLICTS = CLASSES**2, CLASSES * (CLASSES - 1)
_Z = float(stats.norm.ppf(0.975))


class Decisions(NamedTuple):
    """Predictions on images whose shape and texture belong to different classes.

    Attributes:
        shape: predictions of the shape's class.
        texture: predictions of the texture's class.
        n: images.
    """

    shape: int
    texture: int
    n: int

    @property
    def bias(self) -> float:
        """Shape bias, shape / (shape + texture) (Geirhos et al. 2019); NaN without any shape or texture decision."""
        decided = self.shape + self.texture
        return self.shape / decided if decided else math.nan

    @property
    def coverage(self) -> float:
        """Share of the images with a shape or texture decision; NaN without images."""
        return (self.shape + self.texture) / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % score interval of the bias; (0, 1) without any shape or texture decision."""
        decided = self.shape + self.texture
        return wilson(self.bias, decided) if decided else (0.0, 1.0)

    @property
    def stderr(self) -> float:
        """Standard error of the bias: half the interval over 1.96."""
        low, high = self.interval
        return (high - low) / 2 / _Z


def count_decisions(predicted: np.ndarray, shape: np.ndarray, texture: np.ndarray) -> Decisions:
    """Counts shape and texture decisions (Geirhos et al. 2019); images without a conflict are left out.

    Args:
        predicted: predicted class, int `[n]`.
        shape, texture: class of each cue, int `[n]`.

    Examples:
        >>> count_decisions(np.array([0, 1, 2, 3, 5]), np.array([0, 1, 0, 0, 5]), np.array([1, 0, 2, 1, 5]))
        Decisions(shape=2, texture=1, n=4)
    """
    predicted, shape, texture = (np.asarray(values) for values in (predicted, shape, texture))
    conflict = shape != texture
    return Decisions(
        int(np.sum(conflict & (predicted == shape))),
        int(np.sum(conflict & (predicted == texture))),
        int(np.sum(conflict)),
    )


def bias_records(
    predicted: np.ndarray,
    factors: Mapping[str, np.ndarray],
    *,
    class_names: Mapping[str, Sequence[str]],
    **columns: Any,
) -> list[Record]:
    """Shape bias, its 95 % Wilson interval and its coverage: of all conflict images, and by class of either cue.

    Those of all images have the column `blocks`.

    Quantities `shape_bias` (its standard error is half the Wilson interval over 1.96), `shape_bias_low`,
    `shape_bias_high`, `cue_coverage`; those of a class have it in the columns `factor` and `class`.

    Args:
        predicted: predicted class, int `[n]`.
        factors: `shape` and `texture`, int `[n]`.
        class_names: names of the values of the two factors.
        columns: columns of every record; the image set is `conflict` if they do not say otherwise.
    """
    columns = {"image_set": "conflict", **columns}
    records = _bias(predicted, factors, np.ones(len(predicted), bool), columns)
    records = [_with_blocks(record, predicted, factors) for record in records]
    for cue in CUES:
        for k in np.unique(factors[cue]):
            own = {**columns, "factor": cue, "class_": k, "note": class_names[cue][k]}
            records += _bias(predicted, factors, factors[cue] == k, own)
    return records


def _bias(
    predicted: np.ndarray, factors: Mapping[str, np.ndarray], rows: np.ndarray, columns: dict[str, Any]
) -> list[Record]:
    found = count_decisions(predicted[rows], factors["shape"][rows], factors["texture"][rows])
    decided = found.shape + found.texture
    failed: dict[str, Any] = {"quantity": "shape_bias", "value": None, "ok": False, **columns, "n": 0}
    if not found.n:
        return [Record(**{**failed, "note": "shape and texture have the same class in every image"})]
    columns = {**columns, "unit": "1"}
    share = np.sqrt(found.coverage * (1 - found.coverage) / found.n)
    coverage = Record(quantity="cue_coverage", value=found.coverage, stderr=share, n=found.n, **columns)
    if not decided:
        return [Record(**{**failed, "note": "no prediction is the class of either cue"}), coverage]
    low, high = found.interval
    return [
        Record(quantity="shape_bias", value=found.bias, stderr=found.stderr, n=decided, **columns),
        Record(quantity="shape_bias_low", value=low, n=decided, **columns),
        Record(quantity="shape_bias_high", value=high, n=decided, **columns),
        coverage,
    ]


def _with_blocks(record: Record, predicted: np.ndarray, factors: Mapping[str, np.ndarray]) -> Record:
    """The record of shape bias or coverage with its values without each block of images; any other as it is."""
    follows = np.stack([predicted == factors[cue] for cue in CUES], axis=-1)
    conflict = factors["shape"] != factors["texture"]
    shares = means_without_block(np.column_stack([follows & conflict[:, None], conflict]))
    decided = shares[:, 0] + shares[:, 1]
    if record.quantity == "cue_coverage":
        return dataclasses.replace(record, blocks=blocks_to_text(decided / shares[:, 2]))
    if record.quantity == "shape_bias" and record.ok and decided.all():
        return dataclasses.replace(record, blocks=blocks_to_text(shares[:, 0] / decided))
    return record


def sensitivity_records(logits: np.ndarray, factors: Mapping[str, np.ndarray], **columns: Any) -> list[Record]:
    """How high a network ranks the class of each cue among all classes: `shape_sensitivity`, `texture_sensitivity`.

    The mean over the conflict images of the reciprocal rank of the cue's class: 1 where it is always first, 0.29 where
    all ten ranks are equally frequent. A shape bias, as a ratio, hides how much a network follows either cue.

    Args:
        logits: `[n classes]` on conflict images.
        factors: `shape` and `texture`, int `[n]`.
        columns: columns of every record.

    References:
        Kim et al. 2026, "On the Reliability of Cue Conflict and Beyond" (cue sensitivity by reciprocal ranks).
    """
    records = []
    for cue in CUES:
        each = reciprocal_rank(logits, factors[cue])
        records.append(
            Record(quantity=f"{cue}_sensitivity", value=each.mean(), stderr=each.std(ddof=1) / math.sqrt(len(each)),
                   blocks=blocks_to_text(means_without_block(each)), unit="1", n=len(each),
                   **{"image_set": "conflict", **columns})
        )  # fmt: skip
    return records


def reciprocal_rank(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """One over the rank of each row's class among its logits, float `[n]`.

    Equal logits share their places, so that a constant network gives all classes the same rank.

    Args:
        logits: `[n k]`.
        classes: int `[n]`.

    Examples:
        >>> reciprocal_rank(np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), np.array([0, 1])).tolist()
        [1.0, 0.5]
    """
    own = logits[np.arange(len(logits)), classes][:, None]
    return 1 / ((logits > own).sum(1) + ((logits == own).sum(1) + 1) / 2)


def suppression_records(
    shape_alone: np.ndarray, texture_alone: np.ndarray, labels: np.ndarray, **columns: Any
) -> list[Record]:
    """Accuracy with only one cue, and `suppression_gap`: accuracy without texture minus accuracy without shape.

    The gap is positive where the network needs the shape more than the texture. Its standard error is that of the
    paired difference, as both sets are the same images otherwise.

    Args:
        shape_alone, texture_alone: predicted class of the texture-suppressed and of the shape-suppressed images, `[n]`.
        labels: int `[n]`, of both.
        columns: columns of every record.
    """
    kept, lost = (np.asarray(predicted == labels, float) for predicted in (shape_alone, texture_alone))
    gap, n = kept - lost, len(labels)
    return [
        accuracy_row(kept.mean(), n, image_set="texture_suppressed", **columns),
        accuracy_row(lost.mean(), n, image_set="shape_suppressed", **columns),
        Record(quantity="suppression_gap", value=gap.mean(), stderr=gap.std(ddof=1) / math.sqrt(n), unit="1", n=n,
               image_set="suppressed", **columns),
    ]  # fmt: skip


def unsupported_reason(dataset: Dataset) -> str | None:
    """Why the study does not apply to a data set, or None where it does."""
    if dataset.name != "shapetex":
        return "it needs images whose shape and texture are known separately, as only ShapeTex has them"
    few = dataset.test.images[:_PAIRS]
    if not np.array_equal(few, shapetex.split(shapetex.scene(ShapeTex(), "test", limit=len(few)), ShapeTex()).images):
        return "it measures images of the default ShapeTex, and those of this data set have another configuration"
    return None


def measure(study_input: StudyInput) -> StudyResult:
    """Shape bias, accuracy with one cue and the texture-match test, on about as many images as the input asks for."""
    config = ShapeTex()
    count = held_out_images(study_input, config)
    return measure_on(study_input, diagnostic_sets(config, count), count)


def measure_on(study_input: StudyInput, sets: Mapping[str, Split], count: int) -> StudyResult:
    """The same on the first `count` images of each of the diagnostic sets.

    Arrays: `predictions` and `predictions_adversarial` on the conflict images, int `[n]`, with `shape` and `texture`,
    and `shape_names`, the names of the classes.
    """
    shown = {name: split.take(slice(None, _length(name, count))) for name, split in sets.items()}
    records, arrays = _decisions(study_input, shown["conflict"])
    records += _one_cue(study_input, {cue: shown[f"{cue}_suppressed"] for cue in CUES})
    return StudyResult(records + _texture_match(study_input, shown["redundant"]), arrays)


def held_out_images(study_input: StudyInput, config: ShapeTex) -> int:
    """How many images of a diagnostic set are evaluated: about what is asked for, every pair of cues equally often."""
    return int(np.clip(study_input.samples // _PAIRS * _PAIRS, _PAIRS, config.n_test // 2))


@functools.lru_cache(maxsize=2)
def diagnostic_sets(config: ShapeTex, limit: int) -> Mapping[str, Split]:
    """The test sets of ShapeTex, made once for all networks; callers must not change them."""
    return shapetex.test_sets(dataclasses.replace(config, n_test=max(limit, _PAIRS)), limit=limit)


def _length(name: str, count: int) -> int:
    return max(count // _CONFLICTS, 1) * _CONFLICTS if name == "conflict" else count


def _decisions(study_input: StudyInput, conflict: Split) -> tuple[list[Record], dict[str, np.ndarray]]:
    """Shape bias on conflict images and on their adversarial examples.

    The attack starts from the network's own prediction, as the label would favour one cue.
    """
    images = conflict.to_float()
    logits = np.asarray(predictions(study_input.network, study_input.variables, images))
    predicted = np.argmax(logits, axis=1)
    attacked = predictions_of(study_input, adversarial_examples_of(study_input, images, predicted))
    names = {"shape": SHAPES, "texture": ShapeTex().texture_names}
    records = bias_records(predicted, conflict.factors, class_names=names, inputs="clean")
    made_by = attack_columns(study_input.attack)
    records += bias_records(attacked, conflict.factors, class_names=names, inputs="adversarial", **made_by)
    records += sensitivity_records(logits, conflict.factors, inputs="clean")
    arrays = {cue: conflict.factors[cue] for cue in CUES}
    arrays |= {"predictions": predicted, "predictions_adversarial": attacked, "shape_names": np.array(SHAPES)}
    return records, arrays


def _one_cue(study_input: StudyInput, suppressed: Mapping[str, Split]) -> list[Record]:
    """Accuracy on images without one cue, by the suppressed cue, and on their adversarial examples."""
    labels = suppressed["texture"].labels
    clean = {cue: split.to_float() for cue, split in suppressed.items()}
    attacked = {cue: adversarial_examples_of(study_input, shown, labels) for cue, shown in clean.items()}
    records = []
    for inputs, shown, made_by in (
        ("clean", clean, {}),
        ("adversarial", attacked, attack_columns(study_input.attack)),
    ):
        found = {cue: predictions_of(study_input, images) for cue, images in shown.items()}
        records += suppression_records(found["texture"], found["shape"], labels, inputs=inputs, **made_by)
    return records


def _texture_match(study_input: StudyInput, redundant: Split) -> list[Record]:
    """The texture-match test of the perturbations of redundant images."""
    images = redundant.to_float()
    adversarial_images = adversarial_examples_of(study_input, images, redundant.labels)
    similarity = texture_match.similarities(np.asarray(adversarial_images - images), _spectra(ShapeTex()))
    rng = np.random.default_rng(np.asarray(jax.random.key_data(study_input.key)).tolist())
    predicted = predictions_of(study_input, adversarial_images)
    found = texture_match.texture_match_test(similarity, redundant.labels, predicted, rng)
    return texture_match.match_records(found, inputs="adversarial", **attack_columns(study_input.attack))


@functools.lru_cache(maxsize=2)
def _spectra(config: ShapeTex) -> np.ndarray:
    scene = shapetex.scene(config, "factorial", limit=5 * _PAIRS)
    return texture_match.texture_spectra(scene.texture, scene.factors["texture"], CLASSES)


def predictions_of(study_input: StudyInput, images: Images) -> np.ndarray:
    """The predicted class of each image, int `[n]`."""
    return np.argmax(np.asarray(predictions(study_input.network, study_input.variables, images)), axis=1)


def adversarial_examples_of(study_input: StudyInput, images: Images, labels: np.ndarray) -> jax.Array:
    """Adversarial examples of images by the attack of the run, which leads away from the given labels, int `[n]`."""
    classes = jnp.asarray(labels, jnp.int32)
    return adversarial_examples(study_input.network, study_input.variables, images, classes, attack=study_input.attack)
