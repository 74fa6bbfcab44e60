"""Information of each layer about shape, texture, colour and class, by linear probes and by mixture estimators.

The factors of a factorial set are independent and uniform, so their entropies are exact upper bounds.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from scipy import stats

from mi_jax import information
from mi_jax.errors import InputError
from mi_jax.information import LinearProbe
from mi_jax.information.estimator import limit_of
from mi_jax.measure.linear_probes import fit_probes, gains, mean_and_error, rescaled_gains
from mi_jax.records.table import Record, information_record
from mi_jax.typing import Key

Factors = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Measured:
    """The probes of one layer, and by factor their value and standard error in nats on held-out rows."""

    probes: dict[str, LinearProbe]
    values: dict[str, tuple[float, float]]
    records: list[Record]


def ceilings(factors: Factors, **columns: Any) -> list[Record]:
    """The entropy of each factor on the given rows, an upper bound of all information about it: `h_shape`, ..."""
    records = []
    for name, values in factors.items():
        entropy = stats.entropy(np.bincount(values))
        records.append(information_record(f"h_{name}", entropy, estimator="exact", n=len(values), **columns))
    return records


def probe_layer(
    fitted: np.ndarray, factors: Factors, held: np.ndarray, held_factors: Factors, *, num_classes: int, **columns: Any
) -> Measured:
    """Probes of one layer, fitted on some rows and evaluated on others: records `i_t_shape`, ... of estimator `probe`.

    Args:
        fitted, held: activations `[n ...]` of the rows to fit and of the held-out rows.
        factors, held_factors: the factors of these rows by name, int `[n]`.
        num_classes: number of classes of every factor.
        columns: columns of every record.
    """
    columns = {"estimator": "probe", **columns, "n": len(held)}
    try:
        probes = fit_probes(fitted, factors, num_classes=num_classes)
    except InputError as reason:
        note = {**columns, "note": str(reason)}
        return Measured({}, {}, [Record(quantity=f"i_t_{name}", value=None, ok=False, **note) for name in factors])
    values = {
        name: mean_and_error(gains(probe.log_probabilities(held), held_factors[name])) for name, probe in probes.items()
    }
    records = [
        information_record(f"i_t_{name}", value, stderr=error, **columns) for name, (value, error) in values.items()
    ]
    return Measured(probes, values, records)


def transferred(probes: Mapping[str, LinearProbe], t: np.ndarray, factors: Factors, **columns: Any) -> list[Record]:
    """Information in other activations by probes fitted on clean ones (see `rescaled_gains`): `i_t_shape`, ..."""
    records = []
    for name, probe in probes.items():
        value, error = mean_and_error(rescaled_gains(probe.log_probabilities(t), factors[name]))
        records.append(information_record(f"i_t_{name}", value, stderr=error, estimator="probe", n=len(t), **columns))
    return records


def mixture_records(
    t: np.ndarray, factors: Factors, *, noise_variance: float, num_classes: int, key: Key, **columns: Any
) -> list[Record]:
    """Information of the noisy layer about each factor: the certified KDE bracket, and its value by Monte Carlo.

    Quantities `i_t_<factor>_certified_lower`, `..._upper` (estimator `kde`) and `i_t_<factor>` (`monte_carlo`, whose
    standard error is that of sampling images and noise).
    """
    columns = {**columns, "noise_variance": noise_variance, "n": len(t)}
    records = []
    for name, values in factors.items():
        bracket = information.kde(t, values, noise_variance=noise_variance, num_classes=num_classes)
        value = information.monte_carlo(t, values, noise_variance=noise_variance, key=key, num_classes=num_classes)
        kde = {**columns, "estimator": "kde", "saturated": bracket.saturated, "numerical_error": bracket.error}
        limit = limit_of(bool(value.saturated), bool(value.i_ty_undersampled))
        records += [
            information_record(f"i_t_{name}_certified_lower", bracket.i_ty_certified_lower, **kde),
            information_record(f"i_t_{name}_certified_upper", bracket.i_ty_certified_upper, **kde),
            information_record(
                f"i_t_{name}",
                value.i_ty,
                stderr=value.i_ty_sampling_error,
                estimator="monte_carlo",
                saturated=bool(value.saturated),
                unreliable=limit,
                **columns,
            ),
        ]
    return records


def own_noise_variance(t: np.ndarray) -> float | None:
    """The `trace` rule on exactly these activations; None for a constant layer."""
    try:
        return information.noise_variance(t, rule="trace")
    except InputError:
        return None


def preference(shape: tuple[float, float], texture: tuple[float, float], **columns: Any) -> Record:
    """The preference index (I_S - I_T) / (I_S + I_T) of two (value, standard error): 1 shape only, -1 texture only.

    Negative bounds count as 0. The standard error is propagated as for independent errors. No index is given where the
    sum is within twice its standard error of 0.
    """
    (s, s_error), (t, t_error) = ((max(value, 0.0), error) for value, error in (shape, texture))
    total = s + t
    if total <= 2 * math.hypot(s_error, t_error):
        note = {**columns, "note": "the layer carries no information about either cue"}
        return Record(quantity="cue_preference", value=None, ok=False, **note)
    error = 2 * math.hypot(t * s_error, s * t_error) / total**2
    return Record(quantity="cue_preference", value=(s - t) / total, stderr=error, unit="1", **columns)


def as_array(tap: Any) -> np.ndarray:
    """A layer's activation on the host."""
    return np.asarray(jax.device_get(tap))
