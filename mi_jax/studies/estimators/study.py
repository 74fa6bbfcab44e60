"""What other estimators say of each layer: unbiased values under every noise rule, and a panel that uses no noise.

It looks at the very sample on which the run measured its bounds, so that each value lies beside its bracket.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mi_jax import information
from mi_jax.data.sample import fixed_sample
from mi_jax.errors import InputError
from mi_jax.measure.accuracy import adversarial_examples
from mi_jax.measure.information import activations, frozen_noise_variances, with_scale_free
from mi_jax.records.table import Record, information_record
from mi_jax.studies.registry import Study, StudyInput, StudyResult, register
from mi_jax.typing import Key, Labels

PANEL: Mapping[str, str] = {
    "probe": "held-out lower bound by a linear probe",
    "ksg": "nearest neighbours after PCA to 10 components",
    "sliced": "mean over 64 random directions, a smaller functional than I(T;Y)",
    "renyi": "matrix-based entropy of order 1.01, not Shannon's",
}
"""Estimators of I(T;Y) that need no noise, and what each of them is."""


def estimators(study_input: StudyInput) -> StudyResult:
    """Values of I(X;T) and I(T;Y) for every layer, on clean images and on their adversarial examples.

    Estimator `monte_carlo`, under every noise rule of the run: `i_tx` and `i_ty` with the standard error of the noise
    draws, and `i_tx_sampling_error`, `i_ty_sampling_error`, by how much they would vary with the images as well. The
    estimators of `PANEL` give `i_ty` on as many images as the subject asks for, at most those of the run's sample.
    """
    images, labels = fixed_sample(
        study_input.dataset.test.images, study_input.dataset.test.labels, study_input.probe.samples
    )
    start = study_input.untrained()
    reference = study_input.variables if start is None else start
    clean = activations(study_input.network, study_input.variables, images)
    frozen = frozen_noise_variances(study_input.network, reference, images, config=study_input.probe)
    noise_variances = with_scale_free(frozen, clean, config=study_input.probe)
    adversarial_images = adversarial_examples(
        study_input.network, study_input.variables, images, labels, attack=study_input.attack
    )
    attacked = activations(study_input.network, study_input.variables, adversarial_images)
    records = []
    for inputs, taps in (("clean", clean), ("adversarial", attacked)):
        for i, (layer, tap) in enumerate(taps.items()):
            key, columns = jax.random.fold_in(study_input.key, i), {"layer": layer, "inputs": inputs}
            variances = {rule: by_layer[layer] for rule, by_layer in noise_variances.items() if by_layer[layer] > 0}
            records += _mixture(tap, labels, variances, study_input.network.num_classes, key, columns)
            few = slice(None, study_input.samples)
            records += _panel(
                np.asarray(tap)[few], np.asarray(labels)[few], study_input.network.num_classes, key, columns
            )
    return StudyResult(records)


def _mixture(
    tap: Any, labels: Labels, variances: Mapping[str, float], num_classes: int, key: Key, columns: dict[str, Any]
) -> list[Record]:
    columns = {**columns, "estimator": "monte_carlo", "n": len(labels)}
    if not variances:
        reason = "the layer is constant, so no rule gives a noise variance"
        return [Record(quantity="i_tx", value=None, ok=False, note=reason, **columns)]
    try:
        found = information.monte_carlo(
            tap, labels, noise_variance=list(variances.values()), key=key, num_classes=num_classes
        )
    except InputError as reason:
        return [Record(quantity="i_tx", value=None, ok=False, note=str(reason), **columns)]
    records, saturated = [], np.asarray(found.saturated)
    for i, (rule, variance) in enumerate(variances.items()):
        ruled = {**columns, "noise_rule": rule, "noise_variance": variance, "saturated": bool(saturated[i])}
        for name in ("i_tx", "i_ty"):
            value, error, sampling = (
                np.asarray(getattr(found, name + part))[i] for part in ("", "_stderr", "_sampling_error")
            )
            records.append(information_record(name, value, stderr=error, **ruled))
            records.append(information_record(f"{name}_sampling_error", sampling, **ruled))
    return records


def _panel(tap: np.ndarray, labels: np.ndarray, num_classes: int, key: Key, columns: dict[str, Any]) -> list[Record]:
    records = []
    for name, what in PANEL.items():
        given = {**columns, "estimator": name, "n": len(labels)}
        try:
            found = information.estimate(name, tap, labels, key=key, num_classes=num_classes)
        except InputError as reason:
            records.append(Record(quantity="i_ty", value=None, ok=False, note=str(reason), **given))
            continue
        records.append(information_record("i_ty", found.value, stderr=found.stderr, note=what, **given))
    return records


STUDY = register(
    Study(
        name="estimators",
        title="What other estimators say: unbiased values under every noise rule, and a panel without noise",
        run=estimators,
    )
)
