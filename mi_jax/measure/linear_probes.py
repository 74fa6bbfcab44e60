"""Linear probes of one layer for several factors at once, and the information they give on other inputs.

The factors share the reduction of a wide layer to its principal directions, which is most of the cost.
"""

import functools
import math
import warnings
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from mi_jax.information import LinearProbe, fit_probe
from mi_jax.information.estimators.linear_probe import GUESS
from mi_jax.models import Network
from mi_jax.typing import Variables

COMPONENTS = 256
"""Principal directions to which a wide layer is reduced."""
_RESCALINGS = np.concatenate([[0.0], np.geomspace(1 / 64, 16.0, 31)])
"""Factors on a probe's logits; 0 makes it the uniform guess, whose mean gain is H(Y) - log k, 0 for equal classes."""


def fit_probes(t: np.ndarray, labels: Mapping[str, np.ndarray], *, num_classes: int) -> dict[str, LinearProbe]:
    """A linear probe (`information.fit_probe`) of every factor on one layer.

    A layer of more than 256 features is first reduced to its 256 leading principal directions. For a convolutional map
    these are computed with the channel means appended, both scaled to unit total variance: the means do not depend on
    the position of a texture, but have too little variance to appear among the leading directions of the map alone. The
    probe remains a linear function of `t`, so its bound holds.

    Args:
        t: activations of the rows to fit, `[n ...]`, finite; maps are `[n h w c]`.
        labels: labels of each factor by its name, int `[n]` in 0..num_classes-1.
        num_classes: number of classes of every factor.

    Returns:
        A `LinearProbe` of the flattened activations for each factor.
    """
    # BLAS threads only slow down products this small. A fit that stops early still gives a bound.
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        flat = np.asarray(t, np.float32).reshape(len(t), -1)
        if flat.shape[1] <= COMPONENTS:
            return {name: fit_probe(flat, y, num_classes=num_classes) for name, y in labels.items()}
        mean = flat[0] + (flat - flat[0]).mean(axis=0)  # exact for a constant layer
        directions = _directions(flat - mean, t.shape)
        scores = (flat - mean) @ directions
        probes = {}
        for name, y in labels.items():
            found = fit_probe(scores, y, num_classes=num_classes)
            weight = directions.astype(np.float64) @ found.weight
            probes[name] = LinearProbe(weight, found.bias - mean @ weight, found.classes)
        return probes


def _directions(centred: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Directions `[features, r]` whose products with the centred rows are the principal coordinates.

    A constant layer gets one direction of zeros, on which a probe can only fit the class frequencies.
    """
    n = len(centred)
    if not centred.any():
        return np.zeros((centred.shape[1], 1), np.float32)
    scale = _total_variance(centred)
    gram = _gram(centred) / scale
    places = math.prod(shape[1:3]) if len(shape) == 4 else 1
    pooled = centred.reshape(n, places, -1).mean(axis=1) if places > 1 else centred[:, :0]
    pooled_scale = _total_variance(pooled)
    gram = gram + pooled @ pooled.T / pooled_scale
    kept = min(COMPONENTS, n - 1)
    variances, vectors = linalg.eigh(gram.astype(np.float64), subset_by_index=[n - kept, n - 1])
    kept = variances > 1e-6 * max(variances[-1], 1e-30)
    dual = (vectors[:, kept] / np.sqrt(variances[kept])).astype(np.float32)
    directions = centred.T @ dual / scale
    if places > 1:
        directions = directions + np.tile(pooled.T @ dual / (pooled_scale * places), (places, 1))
    return directions


def gains(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Gain log q(y | t) - log p(y) of every row, nats `[n]`: at most I(T; Y) in expectation.

    As in `information.probe`, a uniform guess of weight 1e-6 is mixed into q, which bounds the loss of a class that was
    absent when the probe was fitted.

    Args:
        log_probabilities: log q(y | t) of a probe that was not fitted on these rows, `[n, classes]`.
        labels: int `[n]`.

    References:
        Barber & Agakov 2003.
    """
    frequency = np.bincount(labels, minlength=log_probabilities.shape[1]) / len(labels)
    return _scores(log_probabilities, labels) - np.log(frequency[labels])


def rescaled_gains(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`gains` of a probe on inputs of another distribution, its logits rescaled on the other half of the rows.

    A probe under attack is confident in wrong classes, which makes its gain very negative. The best non-negative factor
    on the logits corrects the confidence; factor 0 is the uniform guess, so that without information the mean is, up to
    sampling error, H(Y) - log k: 0 for k equally frequent classes. A uniform guess is mixed in as in `gains`.

    Args:
        logits: logits of the probe, `[n, classes]`.
        labels: int `[n]`.
    """
    half = np.arange(len(labels)) % 2
    result = np.empty(len(labels))
    for fold in (0, 1):
        tune, test = half != fold, half == fold
        losses = [-_scores(_rescale(logits[tune], factor), labels[tune]).mean() for factor in _RESCALINGS]
        best = _RESCALINGS[int(np.argmin(losses))]
        result[test] = _scores(_rescale(logits[test], best), labels[test])
    frequency = np.bincount(labels, minlength=logits.shape[1]) / len(labels)
    return result - np.log(frequency[labels])


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean of independent rows and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


@jax.jit
def _product(a: jax.Array) -> jax.Array:
    return jnp.matmul(a, a.T, precision="highest")


def _gram(a: np.ndarray) -> np.ndarray:
    return np.asarray(_product(jnp.asarray(a)))


def _total_variance(centred: np.ndarray) -> float:
    """Mean squared length of centred rows; 1 where they are all zero."""
    total = float(np.mean(np.einsum("nd,nd->n", centred, centred)))
    return total if total > 0 else 1.0


def _rescale(logits: np.ndarray, factor: float) -> np.ndarray:
    """`factor` times the logits; zeros for 0 even where a logit is minus infinity."""
    return factor * logits if factor > 0 else np.zeros_like(logits)


def _scores(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Log probability of the label of each row, `[n]`, with a uniform guess mixed in."""
    own = np.exp(log_softmax(logits, axis=1)[np.arange(len(labels)), labels])
    return np.log((1 - GUESS) * own + GUESS / logits.shape[1])


class ProbedNetwork:
    """A probe on a layer of a network as a `logits_fn(variables, images)` for attacks.

    The probe is part of the variables, so all probes of one layer share a compiled attack.
    """

    def __init__(self, network: Network, layer: str):
        self._network, self._layer = network, layer

    def variables(self, variables: Variables, probe: LinearProbe) -> Variables:
        """The network's variables together with the probe's, in float32."""
        weight, bias = (jnp.asarray(part, jnp.float32) for part in (probe.weight, probe.bias))
        return {"network": variables, "weight": weight, "bias": bias}

    def __call__(self, variables: Variables, images: jax.Array) -> jax.Array:
        """The probe's logits `[b k]`."""
        tap = self._network.apply(variables["network"], images)[1][self._layer]
        t, weight = tap.reshape(len(images), -1), variables["weight"]
        return jnp.matmul(t, weight, precision="highest") + variables["bias"][None]


@functools.cache
def probed(network: Network, layer: str) -> ProbedNetwork:
    """Cached by network and layer, as attacks compile once for each `logits_fn` object."""
    return ProbedNetwork(network, layer)
