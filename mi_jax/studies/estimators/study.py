"""Information by further estimators: unbiased Monte Carlo values under every noise rule, and estimators without noise.

They use the sample on which the run computed its KDE bounds, so that each value can be compared with its bracket.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mi_jax import information
from mi_jax.data.sample import fixed_sample
from mi_jax.errors import InputError
from mi_jax.information.estimator import limit_of
from mi_jax.measure.accuracy import adversarial_examples, attack_columns
from mi_jax.measure.information import activations, frozen_noise_variances, with_scale_free
from mi_jax.records.table import Record, information_record
from mi_jax.seeding import sample_rows
from mi_jax.studies.registry import StudyInput, StudyResult
from mi_jax.typing import Key, Labels


def without_noise() -> tuple[str, ...]:
    """Names of the registered estimators of I(T;Y) that add no noise and are marked for this study."""
    return tuple(
        name
        for name in information.estimators_for("label")
        if (entry := information.ESTIMATORS[name]).studied and "label" not in entry.adds_noise
    )


def measure(study_input: StudyInput) -> StudyResult:
    """Values of I(X;T) and I(T;Y) for every layer, on clean images and on their adversarial examples.

    Estimator `monte_carlo`, under every noise rule of the run: `i_tx` and `i_ty` with the standard error of the noise
    draws; `i_tx_sampling_error` and `i_ty_sampling_error`, standard errors that include the sampling of images; and,
    where they are finite, `i_tx_leave_one_out` and `i_ty_leave_one_out`, which with the values bracket the information
    of the population in expectation. For a network with a Gaussian code, layer `code_mean` also gets `i_tx` by the
    estimators `rate`, the variational upper bound of its objective, and `code`, the information of the code itself. The
    estimators of `without_noise` give `i_ty` on `samples` random images of the run's sample. `unreliable` names the
    limit that an estimate is beyond. The attack knows the labels, so that I(T;Y) on adversarial examples is no
    information about the clean image, see `records.labels.LABEL_LEAK`.
    """
    images, labels = fixed_sample(
        study_input.dataset.test.images, study_input.dataset.test.labels, study_input.information.samples
    )
    start = study_input.untrained()
    reference = study_input.variables if start is None else start
    clean = activations(study_input.network, study_input.variables, images)
    frozen = frozen_noise_variances(study_input.network, reference, images, config=study_input.information)
    noise_variances = with_scale_free(frozen, clean, config=study_input.information)
    adversarial_images = adversarial_examples(
        study_input.network, study_input.variables, images, labels, attack=study_input.attack
    )
    attacked = activations(study_input.network, study_input.variables, adversarial_images)
    few = sample_rows(len(labels), study_input.samples)
    records = []
    for inputs, taps, attack in (("clean", clean, {}), ("adversarial", attacked, attack_columns(study_input.attack))):
        if {"code_mean", "code_std"} <= set(taps):
            records += code_records(taps["code_mean"], taps["code_std"], study_input.key, {"inputs": inputs, **attack})
        for i, (layer, tap) in enumerate(taps.items()):
            key = jax.random.fold_in(study_input.key, i)
            columns = {"image_set": "test", "inputs": inputs, **attack, "layer": layer}
            variances = {rule: by_layer[layer] for rule, by_layer in noise_variances.items() if by_layer[layer] > 0}
            records += _mixture(tap, labels, variances, study_input.network.num_classes, key, columns)
            records += _without_noise(
                np.asarray(tap)[few], np.asarray(labels)[few], study_input.network.num_classes, key, columns
            )
    return StudyResult(records)


def code_records(mean: Any, std: Any, key: Key, columns: dict[str, Any]) -> list[Record]:
    """The variational upper bound on I(X;Z), and its value on these images."""
    columns = {"image_set": "test", **columns, "layer": "code_mean", "n": len(mean)}
    found = information.code_information(mean, std, key=key)
    return [
        information_record("i_tx", found.rate, stderr=found.rate_stderr, estimator="rate", **columns),
        information_record(
            "i_tx", found.i_tx, stderr=found.i_tx_stderr, estimator="code", saturated=found.saturated, **columns
        ),
    ]


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
            value, error, sampling, left_out, undersampled = (
                np.asarray(getattr(found, name + part))[i]
                for part in ("", "_stderr", "_sampling_error", "_leave_one_out", "_undersampled")
            )
            ruled["unreliable"] = limit_of(bool(saturated[i]), bool(undersampled))
            ruled["numerical_error"] = np.asarray(found.error)[i]
            kept = found.without_block[name][i]
            records.append(information_record(name, value, stderr=error, without_block=kept, **ruled))
            records.append(information_record(f"{name}_sampling_error", sampling, **ruled))
            if np.isfinite(left_out):  # infinite where a row is out of reach of all others
                ruled["numerical_error"] = np.asarray(found.leave_one_out_error)[i]
                records.append(information_record(f"{name}_leave_one_out", left_out, **ruled))
    return records


def _without_noise(
    tap: np.ndarray, labels: np.ndarray, num_classes: int, key: Key, columns: dict[str, Any]
) -> list[Record]:
    records = []
    for name in without_noise():
        given = {**columns, "estimator": name, "n": len(labels)}
        try:
            found = information.estimate(name, tap, labels, key=key, num_classes=num_classes)
        except InputError as reason:
            records.append(Record(quantity="i_ty", value=None, ok=False, note=str(reason), **given))
            continue
        given |= {"saturated": found.unreliable == "saturated", "unreliable": found.unreliable}
        records.append(information_record("i_ty", found.value, stderr=found.stderr, **given))
    return records
