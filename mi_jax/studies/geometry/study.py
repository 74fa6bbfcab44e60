"""Geometry behind the estimates of I(X;T): distances, rank, distinguishable samples; how much of a change is scale.

Measured on the clean images of the sample on which the run measured information.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from mi_jax import information
from mi_jax.data.sample import fixed_sample
from mi_jax.errors import InputError
from mi_jax.measure.information import activations
from mi_jax.records.table import Record, information_record
from mi_jax.studies.registry import StudyInput, StudyResult
from mi_jax.typing import Key

_GAIN = 0.5
"""Standard deviation of the logarithm of a channel's gain."""
_DISTANCES = ("within", "between", "nearest")
_NUMBERS = ("nearest_over_noise", "effective_rank", "distinguishable_upper", "distinguishable_lower")


def measure(study_input: StudyInput) -> StudyResult:
    """The geometry of every layer, and its change of I(X;T) split into scale and shape.

    Estimator `geometry`, under the fixed noise variance: `variance` of a feature; the squared distances `within`,
    `between` and `nearest` in units of the total variance (two independent rows are 2 apart); `nearest_over_noise`,
    `effective_rank`, and the effective numbers of distinguishable samples `distinguishable_upper` and
    `distinguishable_lower`, exp of the bounds.

    Estimator `kde`, under the fixed variance and under that of the trace rule at the untrained network: the change of
    the upper bound on I(X;T) from the `reference` (`untrained` or `baseline`), `i_tx_change`, and its
    parts `i_tx_change_scale` and `i_tx_change_shape`; and `i_tx_upper_rescaled`, the bound once the activations are
    rescaled to the variance of the baseline's. Under the same variances `i_tx_map_change`, the change of the bound by
    the map in `reference`: `scaling` (all activations doubled), `channel_gain` (every channel multiplied by a number of
    its own, at the same total variance) and `rotation` (coordinates permuted, with random signs) lose no information,
    `repetition` (of each of random pairs of images, one takes the activations of the other) loses one bit of what the
    activations without noise have, and keeps their distribution.
    """
    images, labels = fixed_sample(
        study_input.dataset.test.images, study_input.dataset.test.labels, study_input.information.samples
    )
    untrained, baseline = (
        None if variables is None else activations(study_input.network, variables, images)
        for variables in (study_input.untrained(), study_input.baseline())
    )
    records = []
    for layer, tap in activations(study_input.network, study_input.variables, images).items():
        columns = {"image_set": "test", "inputs": "clean", "layer": layer, "n": len(labels)}
        first = None if untrained is None else untrained[layer]
        records += _described(tap, labels, study_input, columns)
        for rule, variance in _noise_rules(first, study_input):
            ruled = {**columns, "estimator": "kde", "noise_rule": rule, "noise_variance": variance}
            records += _maps(tap, variance, study_input.key, ruled)
            if first is not None:
                records += _split(first, tap, variance, {**ruled, "reference": "untrained"})
            if baseline is not None:
                records += _split(baseline[layer], tap, variance, {**ruled, "reference": "baseline"})
                records += _rescaled(tap, baseline[layer], variance, {**ruled, "reference": "baseline"})
    return StudyResult(records)


def _described(tap: Any, labels: Any, study_input: StudyInput, columns: dict[str, Any]) -> list[Record]:
    variance = study_input.information.noise_variance
    columns = {**columns, "estimator": "geometry", "noise_rule": "fixed", "noise_variance": variance}
    try:
        found = information.geometry(tap, labels, noise_variance=variance, num_classes=study_input.network.num_classes)
    except InputError as reason:
        return [Record(quantity="variance", value=None, ok=False, note=str(reason), **columns)]
    records = [Record(quantity="variance", value=found.variance, unit="1", **columns)]
    records += [Record(quantity=name, value=getattr(found, name), unit="1", **columns) for name in _NUMBERS]
    total = found.variance * (tap.size // len(tap))
    for name in _DISTANCES:
        value = getattr(found, name)
        if value is not None and total > 0:
            records.append(Record(quantity=name, value=value / total, unit="1", **columns))
    return records


def _noise_rules(untrained: Any, study_input: StudyInput) -> Iterator[tuple[str, float]]:
    yield "fixed", study_input.information.noise_variance
    if untrained is not None and float(np.ptp(np.asarray(untrained))) > 0:
        yield "trace", information.noise_variance(untrained, rule="trace")


def _split(first: Any, second: Any, variance: float, columns: dict[str, Any]) -> list[Record]:
    try:
        found = information.scale_split(first, second, noise_variance=variance)
    except InputError as reason:
        return [Record(quantity="i_tx_change", value=None, ok=False, note=str(reason), **columns)]
    parts = {"i_tx_change": found.total, "i_tx_change_scale": found.scale, "i_tx_change_shape": found.shape}
    return [information_record(name, value, **columns) for name, value in parts.items()]


def _maps(tap: Any, variance: float, key: Key, columns: dict[str, Any]) -> list[Record]:
    """Change of the bound under maps that keep information and under one that loses a known amount."""
    t, rng = np.asarray(tap), np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
    rows, channels = rng.permutation(len(t)), t.shape[-1]
    gains = np.exp(_GAIN * rng.standard_normal(channels)).astype(t.dtype)
    power = t.var(axis=0, dtype=np.float64).reshape(-1, channels).sum(axis=0)
    if not power.sum() > 0:
        return []  # a constant layer: the other records say so
    gains *= np.sqrt(power.sum() / (gains.astype(np.float64) ** 2 @ power)).astype(t.dtype)
    flat = t.reshape(len(t), -1)
    turned = rng.permutation(flat.shape[1])
    repeated, half = t.copy(), len(t) // 2
    repeated[rows[:half]] = t[rows[half : 2 * half]]  # the mean of a pair would halve the variance as well
    mapped = {
        "scaling": 2 * t,
        "channel_gain": t * gains,
        "rotation": (flat * rng.choice([-1, 1], flat.shape[1]).astype(t.dtype))[:, turned],
        "repetition": repeated,
    }
    before = float(information.kde(t, noise_variance=variance).i_tx_upper)
    return [
        information_record(
            "i_tx_map_change",
            float(information.kde(values, noise_variance=variance).i_tx_upper) - before,
            **columns,
            reference=name,
        )
        for name, values in mapped.items()
    ]


def _rescaled(tap: Any, like: Any, variance: float, columns: dict[str, Any]) -> list[Record]:
    """The bound at the baseline's scale: rescaling activations by a divides the noise variance by a squared."""
    own, other = (float(np.var(np.asarray(t, np.float64), axis=0).mean()) for t in (tap, like))
    if not (own > 0 and other > 0):
        reason = "a layer is constant in one of the two trainings, so there is no common scale"
        return [Record(quantity="i_tx_upper_rescaled", value=None, ok=False, note=reason, **columns)]
    found = information.kde(tap, noise_variance=variance * own / other)
    return [information_record("i_tx_upper_rescaled", found.i_tx_upper, saturated=bool(found.saturated), **columns)]
