"""Information that a linear read-out finds: H(Y) minus its held-out cross-entropy, a valid bound on the population.

The probe itself (`LinearProbe`) is a pair of arrays that may be attacked, differentiated or read on other inputs.
"""

import dataclasses
import warnings
from typing import Any

import jax
import numpy as np

from mi_jax.errors import InputError
from mi_jax.information._input import as_activations, as_labels, check_finite
from mi_jax.information.estimator import Estimate, register

_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse penalties to choose from, for features whose rows have mean square norm 1 a component."""

GUESS = 1e-6
"""Weight of the uniform guess that is mixed into a probe's held-out probabilities."""


@dataclasses.dataclass(frozen=True)
class LinearProbe:
    """logits = t @ weight + bias; float64 on the host."""

    weight: np.ndarray
    """[features, classes]."""
    bias: np.ndarray
    """[classes]; minus infinity for a class that was absent when it was fitted."""

    def log_probabilities(self, t: Any) -> np.ndarray:
        """Return log q(y | t), [n, classes]."""
        x = np.asarray(as_activations(t), np.float64)
        logits = x @ self.weight + self.bias
        top = logits.max(axis=1, keepdims=True)
        return logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))


def fit_probe(
    t: Any, y: Any, *, num_classes: int | None = None, components: int = 256, layer: str = "t"
) -> LinearProbe:
    """Fit a multinomial logistic regression by L-BFGS, its penalty chosen on a held-out quarter of the rows.

    t: [n, ...]; y: int [n]. Layers wider than `components` are first projected on their leading principal directions,
    which the weight returned contains. Raises InputError for what `kde` refuses and for less than eight rows.
    """
    x = as_activations(t, layer)
    check_finite(x, layer)
    labels, classes = as_labels(y, len(x), num_classes)
    if len(x) < 8:
        raise InputError(f"{layer} has {len(x)} rows: a probe needs at least eight to fit and choose its penalty.")
    x = np.asarray(x, np.float64)
    mean = x.mean(axis=0)
    basis, scale = _principal(x - mean, components)
    z = (x - mean) @ basis / scale
    cut = len(x) - len(x) // 4
    losses = [_held_out(_regression(z[:cut], labels[:cut], c), z[cut:], labels[cut:]) for c in _STRENGTHS]
    present, coefficients, intercept = _regression(z, labels, _STRENGTHS[int(np.argmin(losses))])
    weight, bias = np.zeros((x.shape[1], classes)), np.full(classes, -np.inf)
    weight[:, present] = basis @ coefficients.T / scale
    bias[present] = intercept - mean @ weight[:, present]
    return LinearProbe(weight, bias)


def _principal(a: np.ndarray, components: int) -> tuple[np.ndarray, float]:
    """Return leading principal directions [d, r] of centred rows, and their root mean square coordinate."""
    from sklearn.utils.extmath import randomized_svd  # slow to import, and the bounds do without

    n, d = a.shape
    if d <= min(n, components):
        basis = np.eye(d)
    elif min(n, d) > components:
        basis = randomized_svd(a, components, random_state=0)[2].T
    else:
        w, v = np.linalg.eigh(a @ a.T)
        keep = np.flatnonzero(w > 1e-10 * max(w[-1], 1e-300))[::-1]
        basis = a.T @ (v[:, keep] / np.sqrt(w[keep]))
    scale = np.sqrt(np.mean((a @ basis) ** 2)) if basis.shape[1] else 1.0
    return basis, float(scale) if scale > 0 else 1.0


Regression = tuple[np.ndarray, np.ndarray, np.ndarray]


def _regression(z: np.ndarray, labels: np.ndarray, strength: float) -> Regression:
    """Return classes present, coefficients [present, r] and intercepts; a single class needs no regression."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    present = np.unique(labels)
    if len(present) == 1 or z.shape[1] == 0:
        frequency = np.array([np.mean(labels == k) for k in present])
        return present, np.zeros((len(present), z.shape[1])), np.log(frequency)
    # Threads of BLAS would wait for one another in products so small. A fit that stops early still gives a bound.
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=strength, max_iter=200, tol=1e-3).fit(z, labels)
    coefficients, intercept = model.coef_, model.intercept_
    if len(present) == 2:  # scikit-learn keeps one row for two classes
        coefficients, intercept = np.concatenate([-coefficients, coefficients]) / 2, np.array([-0.5, 0.5]) * intercept
    return present, coefficients, intercept


def _held_out(regression: Regression, z: np.ndarray, labels: np.ndarray) -> float:
    """Cross-entropy in nats; a class that was not fitted costs log 1e6."""
    present, coefficients, intercept = regression
    logits = z @ coefficients.T + intercept
    top = logits.max(axis=1)
    normaliser = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    where = np.searchsorted(present, labels).clip(max=len(present) - 1)
    own = logits[np.arange(len(z)), where] - normaliser
    return float(-np.where(present[where] == labels, own, -np.log(1e6)).mean())


@register("probe", targets=("label",))
def probe(
    t: Any,
    other: Any,
    *,
    key: jax.Array,
    num_classes: int | None = None,
    components: int = 256,
    folds: int = 2,
    layer: str = "t",
) -> Estimate:
    """Return H(Y) - held-out cross-entropy of a linear probe, nats: at most I(T;Y) on the population, up to stderr.

    t: [n, ...]; other: int labels [n], the class or any factor. Each row is judged once, by a probe fitted on the
    other folds, mixed with a uniform guess of weight 1e-6 so that no row costs more than a bounded amount. Negative
    values are reported as they come. details: `cross_entropy` in nats, `accuracy`, `label_entropy`.
    Raises InputError for what `kde` refuses and for folds outside 2..n/8.
    Source: Barber & Agakov 2003 (variational bound); Xu et al. 2020 (predictive information).
    """
    x = as_activations(t, layer)
    labels, classes = as_labels(other, len(x), num_classes)
    if not 2 <= folds <= len(x) // 8:
        raise InputError(f"folds is {folds} for {len(x)} rows: give between 2 and a fold for every eight rows.")
    order = np.asarray(jax.random.permutation(key, len(x)))
    x, labels = np.asarray(x)[order], labels[order]
    score, correct = np.empty(len(x)), np.empty(len(x), bool)
    for f in range(folds):
        out = np.arange(len(x)) % folds == f
        if np.ptp(labels[~out]) == 0:
            raise InputError("a fold of the probe sees one class only: give more rows or fewer folds.")
        log_q = fit_probe(x[~out], labels[~out], num_classes=classes, components=components, layer=layer)
        log_q = log_q.log_probabilities(x[out])
        score[out] = np.log((1 - GUESS) * np.exp(log_q[np.arange(out.sum()), labels[out]]) + GUESS / classes)
        correct[out] = log_q.argmax(axis=1) == labels[out]
    p = np.bincount(labels, minlength=classes) / len(labels)
    gain = score - np.log(p[labels])
    details = {
        "cross_entropy": float(-score.mean()),
        "accuracy": float(correct.mean()),
        "label_entropy": float(-np.log(p[labels]).mean()),
    }
    stderr = float(gain.std(ddof=1) / np.sqrt(len(x)))
    settings = {"components": components, "folds": folds}
    return Estimate("probe", float(gain.mean()), stderr, "lower", len(x), settings, details)
