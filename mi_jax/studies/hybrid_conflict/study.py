"""Cue conflict on any images: which cue predictions follow, and how much the layers carry about each.

The counterpart of `shape_texture` for images whose cues are not known but can be separated by a filter.
"""

from typing import Any

import jax
import numpy as np

from mi_jax.data import to_float
from mi_jax.errors import InputError
from mi_jax.measure.accuracy import accuracy_row, attack_columns
from mi_jax.measure.information import activations
from mi_jax.records.table import Record
from mi_jax.studies.hybrid_conflict.images import CUES, CueImages, Pairs, levels, make, pairs
from mi_jax.studies.registry import StudyInput, StudyResult
from mi_jax.studies.shape_texture import information
from mi_jax.studies.shape_texture.shape_bias import (
    adversarial_examples_of,
    count_decisions,
    predictions_of,
    reciprocal_rank,
)
from mi_jax.training import predictions
from mi_jax.typing import Images, Variables

_SHOWN = 4
_FITTED = 2 / 3


def measure(study_input: StudyInput) -> StudyResult:
    """Cue bias, its coverage, the sensitivity to each cue and accuracy on each by itself; information of every layer.

    Records have the kind of conflict (`hybrid` or `patches`) as `distortion`, its strength as `level` and the cue as
    `factor`. At every level: `cue_bias`, of the predictions on conflict images that are the class of either cue, the
    share that are of the first (as Geirhos et al. 2019); `cue_coverage`, the share that are of either;
    `cue_sensitivity`, the mean reciprocal rank of a cue's class among all classes (Kim et al. 2026), which does not
    hide that a network follows neither; and `accuracy` on images of one cue only (`image_set` `one_cue`).

    `balanced_level` is the level at which the worse of the two accuracies on a cue alone is best, on the network of the
    run's baseline, so that all networks of a seed are compared at one level. There, adversarial examples against
    the network's own prediction get a bias too, and the layers of the network are measured as on ShapeTex: `i_t_low`
    and `i_t_high` by a probe and by mixture estimators, `cue_preference`.

    Arrays: `images`, uint8 `[kind 3 pairs h w c]`: the first cue, the second, and both, of a few pairs and each kind.
    """
    test = study_input.dataset.test
    counts = np.unique(test.labels, return_counts=True)[1]
    # No image twice in one role: probes are fitted on some pairs and scored on the others.
    chosen = pairs(test.labels, min(study_input.samples, len(counts) * int(counts.min())))
    if np.array_equal(*chosen.classes):
        raise InputError(
            f"The {len(chosen.first)} pairs of test images of {study_input.dataset.name} are each of one class, so "
            "that cues never conflict; give more samples, and more images of every class."
        )
    first, second = to_float(test.images[chosen.first]), to_float(test.images[chosen.second])
    height, width, _ = study_input.dataset.input_shape
    reference = study_input.baseline()
    reference = study_input.variables if reference is None else reference
    records, shown = [], []
    for number, kind in enumerate(CUES):
        key = jax.random.fold_in(study_input.key, number)
        made = {level: make(kind, first, second, level, key) for level in levels(kind, height, width)}
        for level, images in made.items():
            records += _choices(study_input, chosen, images, {"distortion": kind, "level": level})
        if not made:
            continue
        balanced = max(made, key=lambda level: _worse_accuracy(study_input, reference, chosen, made[level]))
        where: dict[str, Any] = {"distortion": kind, "level": balanced}
        records.append(Record(quantity="balanced_level", value=balanced, unit="1", distortion=kind))
        records += _attacked_choices(study_input, chosen, made[balanced].combined, where)
        records += _layers(study_input, chosen, made[balanced].combined, kind, where)
        shown.append(_few(made[balanced]))
    return StudyResult(records, {"images": np.stack(shown), "kinds": np.array(list(CUES)[: len(shown)])})


def _choices(study_input: StudyInput, chosen: Pairs, images: CueImages, where: dict[str, Any]) -> list[Record]:
    """The records of one kind and level on clean images."""
    cues = CUES[where["distortion"]]
    records = _decisions(study_input, chosen, images.combined, {**where, "inputs": "clean"})
    for cue, alone, classes in zip(cues, images.alone, chosen.classes, strict=True):
        correct = predictions_of(study_input, alone) == classes
        columns = {"image_set": "one_cue", "factor": cue, "inputs": "clean", **where}
        records.append(accuracy_row(float(correct.mean()), len(correct), **columns))
    return records


def _decisions(study_input: StudyInput, chosen: Pairs, images: Images, where: dict[str, Any]) -> list[Record]:
    """Bias, coverage and sensitivities on the images whose two classes differ."""
    logits = np.asarray(predictions(study_input.network, study_input.variables, images))
    found = count_decisions(logits.argmax(1), *chosen.classes)
    decided, columns = found.shape + found.texture, {"image_set": "conflict_pairs", "unit": "1", **where}
    share = np.sqrt(found.coverage * (1 - found.coverage) / found.n)
    records = [Record(quantity="cue_coverage", value=found.coverage, stderr=share, n=found.n, **columns)]
    if decided:
        records.append(Record(quantity="cue_bias", value=found.bias, stderr=found.stderr, n=decided, **columns))
    else:
        reason = "no prediction is the class of either cue"
        records.append(Record(quantity="cue_bias", value=None, ok=False, note=reason, n=0, **columns))
    conflict = chosen.classes[0] != chosen.classes[1]
    for cue, classes in zip(CUES[where["distortion"]], chosen.classes, strict=True):
        ranks = reciprocal_rank(logits[conflict], classes[conflict])
        error = ranks.std(ddof=1) / np.sqrt(len(ranks))
        records.append(
            Record(quantity="cue_sensitivity", value=ranks.mean(), stderr=error, n=len(ranks), factor=cue, **columns)
        )
    return records


def _attacked_choices(study_input: StudyInput, chosen: Pairs, images: Images, where: dict[str, Any]) -> list[Record]:
    """Decisions on adversarial examples that lead away from the network's own prediction."""
    attacked = adversarial_examples_of(study_input, images, predictions_of(study_input, images))
    columns = {**where, "inputs": "adversarial", **attack_columns(study_input.attack)}
    return _decisions(study_input, chosen, attacked, columns)


def _worse_accuracy(study_input: StudyInput, variables: Variables, chosen: Pairs, images: CueImages) -> float:
    """The lower of the accuracies on one cue alone."""
    found = []
    for alone, classes in zip(images.alone, chosen.classes, strict=True):
        logits = np.asarray(predictions(study_input.network, variables, alone))
        found.append(float(np.mean(logits.argmax(1) == classes)))
    return min(found)


def _layers(study_input: StudyInput, chosen: Pairs, images: Images, kind: str, where: dict[str, Any]) -> list[Record]:
    """Information of every layer about the classes of the two cues."""
    fitted, k = int(len(images) * _FITTED), study_input.network.num_classes
    factors = dict(zip(CUES[kind], chosen.classes, strict=True))
    first, last = {n: v[:fitted] for n, v in factors.items()}, {n: v[fitted:] for n, v in factors.items()}
    common: dict[str, Any] = {**where, "image_set": "conflict_pairs", "inputs": "clean"}
    records = information.ceilings(last, **common)
    for layer, tap in activations(study_input.network, study_input.variables, images).items():
        t = information.as_array(tap)
        found = information.probe_layer(t[:fitted], first, t[fitted:], last, num_classes=k, layer=layer, **common)
        records += found.records
        if found.values:
            both = (found.values[cue] for cue in CUES[kind])
            records.append(information.preference(*both, estimator="probe", layer=layer, **common))
        variance = information.own_noise_variance(t)
        if variance is None:
            continue  # the probe's records say that the layer is constant
        records += information.mixture_records(
            t, factors, noise_variance=variance, noise_rule="scale_free", num_classes=k, key=study_input.key,
            layer=layer, **common,
        )  # fmt: skip
    return records


def _few(images: CueImages) -> np.ndarray:
    """The first pairs: first cue, second cue and both, uint8 `[3 pairs h w c]`."""
    rows = np.stack([np.asarray(part[:_SHOWN]) for part in (*images.alone, images.combined)])
    return np.round(255 * rows).astype(np.uint8)
