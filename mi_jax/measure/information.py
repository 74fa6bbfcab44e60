"""How much each layer tells of the input and of the label, on clean images and their adversarial examples.

The images are one fixed sample, drawn without replacement; an adversarial example is made with the very network that is measured.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mi_jax import checks, information
from mi_jax.batches import map_batches
from mi_jax.errors import InputError
from mi_jax.models import Network
from mi_jax.options import Epochs, Names, check_names
from mi_jax.records.table import Record, information_record
from mi_jax.typing import Images, Labels, Variables

RULES = ("fixed", "layer", "trace", "median", "scale_free")
"""How the noise variance of a layer is chosen. `fixed` is one number for all layers. `layer`, `trace` and `median`
are measured once, on the untrained network that all trainings of a seed share, and kept for all epochs and trainings:
one noise rule. `scale_free` is the `trace` rule on the measured network's own clean activations, so that a mere change of
scale does not show."""

_KDE = ("i_tx_upper", "i_tx_lower", "i_ty_upper", "i_ty_lower", "i_ty_certified_upper", "i_ty_certified_lower")
_KDE_BY_CLASS = ("i_tx_given_y_upper", "i_tx_given_y_lower")
_BINNING = ("i_tx", "i_ty")

NoiseVariances = Mapping[str, Mapping[str, float]]
"""Rule to layer to noise variance."""
Tap = jax.Array | np.ndarray
"""A layer's activations `[n ...]`; on the host where those of all layers would fill the device (see `batches`)."""


@dataclasses.dataclass(frozen=True)
class InformationConfig:
    """What is measured while training.

    Attributes:
        samples: images of the fixed sample; the whole test split if it has fewer.
        epochs: when to measure; `auto` is 0, the last, and a log-spaced set between.
        noise: rules of the noise variance: fixed; layer, trace, median (measured once on the untrained network and
            kept); scale_free (trace of the measured network itself).
        noise_variance: of the fixed rule; the paper's is 0.1.
        bin_size: of the binning estimate; the paper's is 0.5.
    """

    samples: int = 1000
    epochs: Epochs = "auto"
    noise: Names = ("fixed", "trace", "scale_free")
    noise_variance: float = 0.1
    bin_size: float = 0.5

    def __post_init__(self):
        checks.count("information.samples", self.samples, 2)
        check_names("information.noise", self.noise, RULES)
        if not self.noise:
            raise InputError(f"Invalid information.noise: expected at least one of {', '.join(RULES)}.")
        checks.positive("information.noise_variance", self.noise_variance)
        checks.positive("information.bin_size", self.bin_size)
        for epoch in () if self.epochs == "auto" else self.epochs:
            checks.count("information.epochs", epoch, 0)

    def schedule(self, last: int) -> tuple[int, ...]:
        """The epochs at which to measure a training of `last` epochs; the untrained and the final network always.

        Examples:
            >>> InformationConfig().schedule(200)
            (0, 1, 2, 4, 7, 14, 27, 53, 103, 200)
            >>> InformationConfig(epochs=(3, 5, 900)).schedule(8)
            (0, 3, 5, 8)
        """
        if self.epochs == "auto":
            between = np.round(
                np.geomspace(1, max(last, 1), min(max(last, 1), 3 + 3 * len(str(last // 10 or ""))))
            ).astype(int)
        else:
            between = np.asarray(self.epochs)
        return tuple(sorted({0, last, *(int(e) for e in between if e < last)}))


def activations(network: Network, variables: Variables, images: Images) -> dict[str, Tap]:
    """Every layer's activation, `[n ...]`, first layer to logits, in evaluation mode."""
    taps = map_batches(functools.partial(_taps, network, variables), images)
    return {layer: taps[layer] for layer in network.layers}


def frozen_noise_variances(
    network: Network, variables: Variables, images: Images, *, config: InformationConfig
) -> NoiseVariances:
    """The noise variances that stay the same for all epochs and trainings of a seed.

    Args:
        network: what is to be trained.
        variables: of the untrained network.
        images: the fixed sample.
        config: names the rules.
    """
    rules = [rule for rule in config.noise if rule != "scale_free"]
    if rules in ([], ["fixed"]):
        return {rule: dict.fromkeys(network.layers, config.noise_variance) for rule in rules}
    taps = activations(network, variables, images)
    return {rule: {layer: _variance(tap, rule, config) for layer, tap in taps.items()} for rule in rules}


def information_plane(
    network: Network,
    variables: Variables,
    images: Images,
    adversarial_images: Images,
    labels: Labels,
    *,
    noise_variances: NoiseVariances,
    config: InformationConfig,
) -> list[Record]:
    """Information that every layer carries, on a sample of clean images and on their adversarial examples.

    Args:
        network: what is measured.
        variables: its variables.
        images: the sample, in [0, 1], `[n h w c]`.
        adversarial examples: the adversarial example of each, from `adversarial_examples`.
        labels: int `[n]`.
        noise rules: from `frozen_noise_variances`.
        config: names the rules and the bin size.

    Returns:
        Records without the columns that name the run and the moment.
    """
    clean = activations(network, variables, images)
    noise_variances = with_scale_free(noise_variances, clean, config=config)
    records = _layers(clean, labels, "clean", noise_variances, network.num_classes, config)
    del clean  # before the others are made: both would not fit where layers are wide
    adversarial = activations(network, variables, adversarial_images)
    return records + _layers(adversarial, labels, "adversarial", noise_variances, network.num_classes, config)


def with_scale_free(
    noise_variances: NoiseVariances, clean: Mapping[str, Tap], *, config: InformationConfig
) -> NoiseVariances:
    """The frozen noise rules and, where the configuration names it, the one that follows these clean activations."""
    if "scale_free" not in config.noise:
        return noise_variances
    return {**noise_variances, "scale_free": {layer: _variance(tap, "trace", config) for layer, tap in clean.items()}}


@functools.partial(jax.jit, static_argnums=0)
def _taps(network: Network, variables: Variables, images: Images) -> dict[str, jax.Array]:
    return dict(network.apply(variables, images)[1])


def _variance(tap: Tap, rule: Any, config: InformationConfig) -> float:
    if rule == "fixed":
        return config.noise_variance
    try:
        return float(information.noise_variance(tap, rule=rule))
    except InputError:  # a constant layer: no variance fits it, and the estimate says so in its row
        return 0.0


def _layers(
    taps: Mapping[str, Tap],
    labels: Labels,
    inputs: str,
    noise_variances: NoiseVariances,
    num_classes: int,
    config: InformationConfig,
) -> list[Record]:
    records = []
    for layer, tap in taps.items():
        columns = {"layer": layer, "inputs": inputs, "n": len(labels)}
        records += _kde(
            tap, labels, {rule: by_layer[layer] for rule, by_layer in noise_variances.items()}, num_classes, columns
        )
        records += _binning(tap, labels, num_classes, config.bin_size, columns)
    return records


def _kde(tap, labels, variances: Mapping[str, float], num_classes: int, columns: dict[str, Any]) -> list[Record]:
    measurable = {rule: variance for rule, variance in variances.items() if variance > 0}
    records = [
        Record(quantity=_KDE[0], value=None, ok=False, estimator="kde", noise_rule=rule, unit="bits", **columns,
               note="the layer is constant, so the rule gives no noise variance")
        for rule in variances if rule not in measurable
    ]  # fmt: skip
    if not measurable:
        return records
    try:
        estimate = information.kde(tap, labels, noise_variance=list(measurable.values()), num_classes=num_classes)
    except InputError as reason:
        return [*records, Record(quantity=_KDE[0], value=None, ok=False, estimator="kde", note=str(reason), **columns)]
    values = {name: np.asarray(getattr(estimate, name)) for name in (*_KDE, *_KDE_BY_CLASS, "saturation")}
    counts = np.bincount(labels, minlength=num_classes).tolist()
    for i, (rule, variance) in enumerate(measurable.items()):
        common = {
            "estimator": "kde",
            "noise_rule": rule,
            "noise_variance": variance,
            "saturated": bool(np.asarray(estimate.saturated)[i]),
            **columns,
        }
        records += [information_record(name, values[name][i], **common) for name in _KDE]
        records += [
            information_record(
                name, values[name][i, k], subset=f"class={k}", **common | _of_class(values, i, k, counts[k])
            )
            for name in _KDE_BY_CLASS
            for k in np.flatnonzero(counts).tolist()
        ]
        records.append(Record(quantity="saturation", value=values["saturation"][i], unit="1", **common))
    return records


def _of_class(values: Mapping[str, np.ndarray], i: int, k: int, count: int) -> dict[str, Any]:
    """What a row of one class says of its sample: the class's own images, and whether they are all told apart."""
    return {"n": count, "saturated": bool(values["i_tx_given_y_upper"][i, k] >= 0.95 * np.log(count))}


def _binning(tap, labels, num_classes: int, bin_size: float, columns: dict[str, Any]) -> list[Record]:
    try:
        estimate = information.binning(tap, labels, bin_size=bin_size, num_classes=num_classes)
    except InputError as reason:
        return [Record(quantity="i_tx", value=None, ok=False, estimator="binning", note=str(reason), **columns)]
    note = f"bin {bin_size:g}"
    return [
        information_record(name, getattr(estimate, name), estimator="binning", note=note, **columns)
        for name in _BINNING
    ]
