"""Information that each layer carries about the input and the label, on clean images and on adversarial examples.

All networks are measured on one fixed sample of test images, drawn without replacement.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

import jax
import numpy as np

from mi_jax import checks, information
from mi_jax.attacks import PGD
from mi_jax.batches import map_batches
from mi_jax.errors import InputError
from mi_jax.information.estimator import limit_of
from mi_jax.measure.accuracy import attack_columns, label_free_examples
from mi_jax.models import Network
from mi_jax.options import Epochs, Names, check_names
from mi_jax.parallel import mesh_of
from mi_jax.records.table import Record, information_record
from mi_jax.statistics.jackknife import BLOCKS
from mi_jax.typing import Images, Key, Labels, Variables

_KDE = ("i_tx_upper", "i_tx_lower", "i_ty_upper", "i_ty_lower", "i_ty_certified_upper", "i_ty_certified_lower")
_LEAVE_ONE_OUT = ("i_tx_leave_one_out", "i_ty_leave_one_out")
_KDE_BY_CLASS = "i_tx_given_y_upper"
_BLOCKS_OF = ("i_tx_upper", "i_tx_lower", "i_ty_upper")
"""The quantities whose values without each block of images are recorded: those that the claims compare."""
_BINNING = ("i_tx", "i_ty")

NoiseVariances = Mapping[str, Mapping[str, float]]
"""Rule to layer to noise variance."""
Tap = jax.Array | np.ndarray
"""A layer's activations `[n ...]`, on the host if those of all layers would fill the device (see `batches`)."""


@dataclasses.dataclass(frozen=True)
class InformationConfig:
    """How information is measured during training.

    Attributes:
        samples: images of the fixed sample; the entire test split if it has fewer.
        epochs: epochs at which to measure; `auto` is 0, the last, and a log-spaced set between.
        noise: noise rules: fixed; layer, trace, median or any registered rule (evaluated once on the untrained network
            that all trainings of a seed share); scale_free (trace rule on the clean activations of the measured
            network).
        noise_variance: noise variance of the fixed rule (0.1 in the paper).
        bin_size: bin width of the binning estimate (0.5 in the paper).
        precision: of the distances between activations, see `mi_jax.information.kde`; `tf32x3` is fast on a GPU
            with an error near that of float32. Where its error would be too large, float64 is used.
        label_free: networks that are also measured on adversarial examples made without the label: `finished` ones (and
            the first untrained one), those of all measured `epochs`, or `none`.

    Raises:
        InputError: for an unknown noise rule, numbers that are not positive, or fewer than 2 samples.
    """

    samples: int = 1000
    epochs: Epochs = "auto"
    noise: Names = ("fixed", "trace", "scale_free")
    noise_variance: float = 0.1
    bin_size: float = 0.5
    precision: information.Precision = "float32"
    label_free: Literal["finished", "epochs", "none"] = "finished"

    def __post_init__(self):
        checks.count("information.samples", self.samples, 2)
        check_names("information.noise", self.noise, noise_rules())
        if not self.noise:
            raise InputError(f"Invalid information.noise: expected at least one of {', '.join(noise_rules())}.")
        checks.positive("information.noise_variance", self.noise_variance)
        checks.positive("information.bin_size", self.bin_size)
        checks.one_of("information.precision", self.precision, get_args(information.Precision))
        for epoch in () if self.epochs == "auto" else self.epochs:
            checks.count("information.epochs", epoch, 0)

    def schedule(self, last: int) -> tuple[int, ...]:
        """The epochs at which to measure a training, 0 and the last among them.

        Args:
            last: number of epochs of the training.

        Examples:
            >>> InformationConfig().schedule(200)
            (0, 1, 2, 3, 5, 8, 14, 24, 41, 69, 118, 200)
            >>> InformationConfig(epochs=(3, 5, 900)).schedule(8)
            (0, 3, 5, 8)
        """
        chosen = _log_spaced(last) if self.epochs == "auto" else self.epochs
        return tuple(sorted({0, last, *(epoch for epoch in chosen if epoch < last)}))


def _log_spaced(last: int) -> set[int]:
    """Three of fewer than ten epochs, else at least the ten that a trend needs, as even in logarithm as whole ones are.

    One more per factor of ten beyond a hundred.
    """
    wanted = 3 if last < 10 else 10 + max(len(str(last)) - 2, 0)
    for count in itertools.count(wanted):
        epochs = {int(epoch) for epoch in np.round(np.geomspace(1, max(last, 1), count))}
        if len(epochs) >= min(wanted, last):
            return epochs
    raise AssertionError


def noise_rules() -> tuple[str, ...]:
    """Names of the noise rules that a run can use: the registered ones, `fixed` and `scale_free`."""
    return ("fixed", *information.NOISE_RULES, "scale_free")


def activations(network: Network, variables: Variables, images: Images) -> dict[str, Tap]:
    """Activations `[n ...]` of every layer, from the first to the logits, in evaluation mode."""
    taps = map_batches(functools.partial(_taps, network, variables), images, mesh=mesh_of(variables))
    return {layer: taps[layer] for layer in network.layers}


def frozen_noise_variances(
    network: Network, variables: Variables, images: Images, *, config: InformationConfig
) -> NoiseVariances:
    """Noise variances that are kept for all epochs and trainings of a seed.

    Args:
        network: the network.
        variables: variables of the untrained network.
        images: the fixed sample, `[n h w c]`.
        config: gives the noise rules; `scale_free` is left out.
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
    attack: PGD,
    blocks: int = BLOCKS,
) -> list[Record]:
    """Information in every layer, on a sample of clean images and on their adversarial examples, as records.

    I(T;Y) on adversarial examples that were made with the labels measures above all that the attack wrote the label
    into the image; `label_free_information` measures it without.

    Args:
        network: the network.
        variables: its variables.
        images: the sample, in [0, 1], `[n h w c]`.
        adversarial_images: their adversarial examples, from `adversarial_examples`.
        labels: int `[n]`.
        noise_variances: from `frozen_noise_variances`.
        config: gives the noise rules and the bin size.
        attack: the attack that made the adversarial examples.
        blocks: blocks of images without each of which KDE estimates are also made, for errors over images (about a
            third more time); 0 for none.
    """
    clean = activations(network, variables, images)
    noise_variances = with_scale_free(noise_variances, clean, config=config)
    columns = {"image_set": "test", "inputs": "clean"}
    records = _layers(clean, labels, noise_variances, network.num_classes, config, blocks, columns)
    del clean  # wide layers of both kinds of inputs would not fit in memory
    adversarial = activations(network, variables, adversarial_images)
    columns |= {"inputs": "adversarial", **attack_columns(attack)}
    return records + _layers(adversarial, labels, noise_variances, network.num_classes, config, blocks, columns)


def label_free_information(
    network: Network,
    variables: Variables,
    images: Images,
    labels: Labels,
    key: Key,
    *,
    noise_variances: NoiseVariances,
    config: InformationConfig,
    attack: PGD,
) -> list[Record]:
    """Information in every layer on adversarial examples made without the labels, as records.

    Args:
        network: the network.
        variables: its variables.
        images: the sample, in [0, 1], `[n h w c]`.
        labels: int `[n]`; no attack knows them.
        key: for the random classes.
        noise_variances: from `frozen_noise_variances`.
        config: gives the noise rules.
        attack: the attack, see `label_free_examples`.

    Returns:
        Records of the KDE bounds whose column `attack` is `pgd-prediction` or `pgd-random-target`.
    """
    noise_variances = with_scale_free(noise_variances, activations(network, variables, images), config=config)
    records = []
    for name, made in label_free_examples(network, variables, images, key, attack=attack).items():
        columns = {"image_set": "test", "inputs": "adversarial", **attack_columns(attack), "attack": name}
        for layer, tap in activations(network, variables, made).items():
            variances = {rule: by_layer[layer] for rule, by_layer in noise_variances.items()}
            own = {**columns, "layer": layer, "n": len(labels)}
            records += kde_records(
                tap, labels, variances, num_classes=network.num_classes, by_class=False, blocks=BLOCKS,
                precision=config.precision, **own,
            )  # fmt: skip
    return records


def with_scale_free(
    noise_variances: NoiseVariances, clean: Mapping[str, Tap], *, config: InformationConfig
) -> NoiseVariances:
    """Add the noise variances of `scale_free` for clean activations to the frozen ones, where configured."""
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
    except InputError:  # a constant layer: `kde_records` writes a failed record
        return 0.0


def _layers(
    taps: Mapping[str, Tap],
    labels: Labels,
    noise_variances: NoiseVariances,
    num_classes: int,
    config: InformationConfig,
    blocks: int,
    columns: dict[str, Any],
) -> list[Record]:
    records, by_class = [], columns["inputs"] == "clean"
    for layer, tap in taps.items():
        own = {**columns, "layer": layer, "n": len(labels)}
        variances = {rule: by_layer[layer] for rule, by_layer in noise_variances.items()}
        records += kde_records(
            tap, labels, variances, num_classes=num_classes, by_class=by_class, blocks=blocks,
            precision=config.precision, **own,
        )  # fmt: skip
        records += _binning(tap, labels, num_classes, config.bin_size, own)
    return records


def kde_records(
    tap: Tap,
    labels: Labels,
    variances: Mapping[str, float],
    *,
    num_classes: int,
    by_class: bool,
    blocks: int = 0,
    precision: information.Precision = "float32",
    **columns: Any,
) -> list[Record]:
    """KDE estimates of one layer under every noise rule, in one pass; a rule that fails gives a record with `ok` false.

    Args:
        tap: activations `[n ...]`.
        labels: int `[n]`.
        variances: noise variance by rule; 0 for a constant layer, to which the rule assigns none.
        num_classes: number of classes.
        by_class: whether to add I(X;T) within each class, under the last of the noise rules.
        blocks: blocks of images without each of which the estimates are also made; 0 for none.
        precision: precision of the distances, see `mi_jax.information.kde`.
        **columns: further columns of every record.
    """
    columns = {**columns, "estimator": "kde"}
    given = {rule: variance for rule, variance in variances.items() if variance > 0}

    def failed(rules: Iterable[str], reason: str) -> list[Record]:
        row = {"quantity": _KDE[0], "value": None, "ok": False, "unit": "bits", **columns, "note": reason}
        return [Record(**row, noise_rule=rule) for rule in rules]

    constant = (rule for rule in variances if rule not in given)
    records = failed(constant, "the layer is constant, so the rule gives no noise variance")
    if not given:
        return records
    try:
        estimate = information.kde(
            tap, labels, noise_variance=list(given.values()), num_classes=num_classes, blocks=blocks,
            precision=precision,
        )  # fmt: skip
    except InputError as reason:
        return records + failed(given, str(reason))
    values = {name: np.asarray(getattr(estimate, name)) for name in (*_KDE, *_LEAVE_ONE_OUT, _KDE_BY_CLASS)}
    undersampled = np.asarray(estimate.undersampled)
    saturated, error = np.asarray(estimate.saturated), np.asarray(estimate.error)
    left_out_error = np.asarray(estimate.leave_one_out_error)
    without_block = estimate.without_block or {}
    counts = np.bincount(labels, minlength=num_classes).tolist()
    for i, (rule, variance) in enumerate(given.items()):
        common = {**columns, "noise_rule": rule, "noise_variance": variance, "saturated": bool(saturated[i])}
        common["unreliable"] = limit_of(bool(saturated[i]), bool(undersampled[i]))
        common["numerical_error"] = error[i]
        for name in _KDE:
            left_out = np.asarray(without_block[name][i]) if name in without_block and name in _BLOCKS_OF else None
            records.append(information_record(name, values[name][i], without_block=left_out, **common))
        finite = [name for name in _LEAVE_ONE_OUT if np.isfinite(values[name][i])]  # all rows within reach of others
        of_left_out = common | {"numerical_error": left_out_error[i]}
        records += [information_record(name, values[name][i], **of_left_out) for name in finite]
    if by_class:
        for k in np.flatnonzero(counts).tolist():
            value = values[_KDE_BY_CLASS][-1, k]
            saturated_class = bool(value >= 0.95 * np.log(counts[k]))
            of_class = {"class_": k, "n": counts[k], "saturated": saturated_class}
            of_class["unreliable"] = limit_of(saturated_class, undersampled=False)
            of_class["numerical_error"] = error[-1] * len(labels) / counts[k]
            records.append(information_record(_KDE_BY_CLASS, value, **common | of_class))
    return records


def _binning(tap, labels, num_classes: int, bin_size: float, columns: dict[str, Any]) -> list[Record]:
    columns = {**columns, "estimator": "binning"}
    try:
        estimate = information.binning(tap, labels, bin_size=bin_size, num_classes=num_classes)
    except InputError as reason:
        return [Record(quantity="i_tx", value=None, ok=False, note=str(reason), **columns)]
    columns |= {"note": f"bin size {bin_size:g}", "saturated": estimate.saturated}
    return [information_record(name, getattr(estimate, name), **columns) for name in _BINNING]
