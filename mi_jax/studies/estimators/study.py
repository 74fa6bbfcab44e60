"""What other estimators say of each layer: unbiased values under every ruler, and a panel that uses no noise.

It looks at the very sample on which the run measured its bounds, so that each value lies beside its bracket.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mi_jax import information
from mi_jax.data.sample import fixed_sample
from mi_jax.errors import InputError
from mi_jax.measure.accuracy import adversarial_twins
from mi_jax.measure.information import activations, frozen_rulers, with_scale_free
from mi_jax.records.table import Record, in_bits
from mi_jax.studies.registry import Findings, Study, Subject, register
from mi_jax.typing import Key, Labels

PANEL: Mapping[str, str] = {
    "probe": "held-out lower bound by a linear probe",
    "ksg": "nearest neighbours after PCA to 10 components",
    "sliced": "mean over 64 random directions, a smaller functional than I(T;Y)",
    "renyi": "matrix-based entropy of order 1.01, not Shannon's",
}
"""Estimators of I(T;Y) that need no noise, and what each of them is."""


def estimators(subject: Subject) -> Findings:
    """Values of I(X;T) and I(T;Y) for every layer, on clean images and on their adversarial twins.

    Estimator `monte_carlo`, under every noise rule of the run: `i_tx` and `i_ty` with the standard error of the noise
    draws, and `i_tx_sampling_error`, `i_ty_sampling_error`, by how much they would vary with the images as well. The
    estimators of `PANEL` give `i_ty` on as many images as the subject asks for, at most those of the run's sample.
    """
    images, labels = fixed_sample(subject.dataset.test.images, subject.dataset.test.labels, subject.probe.samples)
    start = subject.untrained()
    reference = subject.variables if start is None else start
    clean = activations(subject.network, subject.variables, images)
    frozen = frozen_rulers(subject.network, reference, images, config=subject.probe)
    rulers = with_scale_free(frozen, clean, config=subject.probe)
    twins = adversarial_twins(subject.network, subject.variables, images, labels, attack=subject.attack)
    attacked = activations(subject.network, subject.variables, twins)
    records = []
    for inputs, taps in (("clean", clean), ("adversarial", attacked)):
        for i, (layer, tap) in enumerate(taps.items()):
            key, columns = jax.random.fold_in(subject.key, i), {"layer": layer, "inputs": inputs}
            variances = {rule: by_layer[layer] for rule, by_layer in rulers.items() if by_layer[layer] > 0}
            records += _mixture(tap, labels, variances, subject.network.num_classes, key, columns)
            few = slice(None, subject.samples)
            records += _panel(np.asarray(tap)[few], np.asarray(labels)[few], subject.network.num_classes, key, columns)
    return Findings(records)


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
            records.append(in_bits(name, value, stderr=error, **ruled))
            records.append(in_bits(f"{name}_sampling_error", sampling, **ruled))
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
        records.append(in_bits("i_ty", found.value, stderr=found.stderr, note=what, **given))
    return records


STUDY = register(
    Study(
        name="estimators",
        title="What other estimators say: unbiased values under every ruler, and a panel without noise",
        run=estimators,
    )
)
