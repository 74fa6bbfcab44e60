"""Information found by a linear probe: H(Y) minus its held-out cross-entropy, a lower bound on the population.

The fitted probe (`LinearProbe`) is a pair of arrays that can be attacked, differentiated or applied to other inputs.
"""

import dataclasses
import functools
import warnings
from typing import Any

import jax
import numpy as np
from threadpoolctl import ThreadpoolController

from mi_jax import checks
from mi_jax.errors import InputError
from mi_jax.information._input import as_activations, as_array, as_labels, check_finite, compact
from mi_jax.information.estimator import Estimate, register
from mi_jax.typing import Key

_STRENGTHS = tuple(10.0**power for power in range(-4, 3))
"""Inverse penalties to choose from, for features of mean square 1; the largest reads directions of a tenth of that
scale."""

GUESS = 1e-6
"""Weight of the uniform guess mixed into the held-out probabilities of a probe."""


@dataclasses.dataclass(frozen=True)
class LinearProbe:
    """logits = t @ weight + bias; float64 on the host."""

    weight: np.ndarray
    """[features, k]."""
    bias: np.ndarray
    """[k]; minus infinity for a class that was absent when the probe was fitted."""
    classes: np.ndarray
    """The label of each column, int [k], in rising order."""

    def log_probabilities(self, t: Any) -> np.ndarray:
        """Return log q(y | t), [n, k], for activations t [n, ...]."""
        x = np.asarray(as_activations(t), np.float64)
        logits = x @ self.weight + self.bias
        top = logits.max(axis=1, keepdims=True)
        return logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))


def fit_probe(
    t: Any,
    y: Any,
    *,
    num_classes: int | None = None,
    components: int = 256,
    shuffle: bool = True,
    layer: str = "t",
) -> LinearProbe:
    """Fit a multinomial logistic regression by L-BFGS, its penalty chosen on a held-out quarter of the rows.

    Layers wider than `components` are first projected on their leading principal directions; the returned weight
    includes the projection.

    Args:
        t: activations [n, ...], float.
        y: int labels [n].
        num_classes: the probe has a column for each label in 0..num_classes-1; by default for each that occurs.
        components: largest number of principal components to fit on.
        shuffle: whether the held-out quarter is drawn at random, the same in every call, as rows may be sorted by
            class; otherwise it is the last one, for rows in random order of which those of one image lie together.
        layer: name for messages.

    Raises:
        InputError: for what `kde` refuses, no components, and fewer than eight rows.

    Examples:
        >>> import numpy as np
        >>> y = np.arange(40) % 2
        >>> fitted = fit_probe(10.0 * y[:, None], y)
        >>> fitted.log_probabilities(np.array([[0.0], [10.0]])).argmax(axis=1).tolist()
        [0, 1]
    """
    checks.count("components", components, usual="256")
    checks.flag("shuffle", shuffle)
    x = as_activations(t, layer)
    check_finite(x, layer)
    labels, _ = as_labels(y, len(x), num_classes)
    classes, labels = (
        np.unique(labels, return_inverse=True) if num_classes is None else (np.arange(num_classes), labels)
    )
    if len(x) < 8:
        raise InputError(f"{layer} has {len(x)} rows; a probe needs at least eight to fit and to choose its penalty.")
    x = np.asarray(x, np.float64)
    mean = x.mean(axis=0)
    basis, scale = _principal(x - mean, components)
    z = (x - mean) @ basis / scale
    order = np.random.default_rng(0).permutation(len(x)) if shuffle else np.arange(len(x))
    seen, out = np.split(order, [len(x) - len(x) // 4])
    losses = [_held_out(_regression(z[seen], labels[seen], c), z[out], labels[out]) for c in _STRENGTHS]
    present, coefficients, intercept = _regression(z, labels, _STRENGTHS[int(np.argmin(losses))])
    weight, bias = np.zeros((x.shape[1], len(classes))), np.full(len(classes), -np.inf)
    weight[:, present] = basis @ coefficients.T / scale
    bias[present] = intercept - mean @ weight[:, present]
    return LinearProbe(weight, bias, classes)


def _principal(a: np.ndarray, components: int) -> tuple[np.ndarray, float]:
    """Return leading principal directions [d, r] of centred rows, and their root mean square coordinate."""
    from sklearn.utils.extmath import randomized_svd  # slow to import, and not needed by the bounds

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

    present = np.unique(labels)
    if len(present) == 1 or z.shape[1] == 0:
        frequency = np.array([np.mean(labels == k) for k in present])
        return present, np.zeros((len(present), z.shape[1])), np.log(frequency)
    # BLAS threads only slow down products this small. A fit that stops early still gives a bound.
    with _thread_pools().limit(limits=1, user_api="blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=strength, max_iter=200, tol=1e-3).fit(z, labels)
    coefficients, intercept = model.coef_, model.intercept_
    if len(present) == 2:  # scikit-learn keeps one row for two classes
        coefficients, intercept = np.concatenate([-coefficients, coefficients]) / 2, np.array([-0.5, 0.5]) * intercept
    return present, coefficients, intercept


@functools.cache
def _thread_pools() -> ThreadpoolController:
    """The loaded BLAS libraries: to look for them takes as long as a small regression."""
    return ThreadpoolController()


def _held_out(regression: Regression, z: np.ndarray, labels: np.ndarray) -> float:
    """Cross-entropy in nats; a class that was not fitted costs log 1e6."""
    present, coefficients, intercept = regression
    logits = z @ coefficients.T + intercept
    top = logits.max(axis=1)
    normaliser = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    where = np.searchsorted(present, labels).clip(max=len(present) - 1)
    own = logits[np.arange(len(z)), where] - normaliser
    return float(-np.where(present[where] == labels, own, -np.log(1e6)).mean())


@register(
    "probe",
    targets=("label",),
    label="linear probe",
    title="Linear probe (held out)",
    description="held-out lower bound by a linear probe",
    slow=True,
)
def probe(
    t: Any,
    other: Any,
    *,
    key: Key | int,
    num_classes: int | None = None,
    components: int = 256,
    folds: int = 2,
    groups: Any = None,
    layer: str = "t",
) -> Estimate:
    """Return H(Y) - held-out cross-entropy of a linear probe, nats: at most I(T;Y) on the population, up to stderr.

    Each row is scored once, by a probe fitted on the other folds and mixed with a uniform guess of weight 1e-6, which
    bounds the loss of a row. Negative values are not clipped.

    Args:
        t: activations [n, ...], float.
        other: int labels [n], the class or any factor of the input.
        key: JAX random key of the assignment to folds, or a seed.
        num_classes: number of classes; by default the largest label plus one.
        components: as in `fit_probe`.
        folds: number of folds, from 2 to n / 8.
        groups: [n], equal for rows of one image (augmentations, frames), which stay in one fold and count as one sample
            in the standard error. By default every row is its own group.
        layer: name for messages.

    Returns:
        Estimate; details: `cross_entropy` and `label_entropy` in nats, `accuracy`.

    Raises:
        InputError: for what `kde` refuses, no components, folds out of range or more than there are groups,
            and when a fold would be fitted on one class.

    References:
        Barber & Agakov 2003 (variational bound); Xu et al. 2020 (predictive information).

    Examples:
        >>> import jax, numpy as np
        >>> y = np.arange(200) % 2
        >>> found = probe(10.0 * y[:, None], y, key=jax.random.key(0))
        >>> found.details["accuracy"], bool(0.6 < found.value < np.log(2))
        (1.0, True)
    """
    x = as_activations(t, layer)
    n = len(x)
    labels, classes = as_labels(other, n, num_classes, "other")
    labels, fitted = compact(labels, classes)
    checks.count("components", components, usual="256")
    checks.count("folds", folds, 2)
    if folds > n // 8:
        raise InputError(f"folds is {folds} for {n} rows; give at least 2, and at least eight rows per fold.")
    group = _group_ranks(groups, n, checks.key(key))
    if folds > group.max() + 1:
        raise InputError(
            f"folds is {folds}, but groups holds {group.max() + 1} groups; give at most one fold per group."
        )
    order = np.argsort(group, kind="stable")
    x, labels, group = np.asarray(x)[order], labels[order], group[order]
    score, correct = np.empty(n), np.empty(n, bool)
    for f in range(folds):
        out = group % folds == f
        if np.ptp(labels[~out]) == 0:
            raise InputError("The rows outside one fold are of a single class; give more rows or fewer folds.")
        fold = fit_probe(x[~out], labels[~out], num_classes=fitted, components=components, shuffle=False, layer=layer)
        log_q = fold.log_probabilities(x[out])
        score[out] = np.log((1 - GUESS) * np.exp(log_q[np.arange(out.sum()), labels[out]]) + GUESS / classes)
        correct[out] = log_q.argmax(axis=1) == labels[out]
    p = np.bincount(labels) / n
    gain = score - np.log(p[labels])
    details = {
        "cross_entropy": float(-score.mean()),
        "accuracy": float(correct.mean()),
        "label_entropy": float(-np.log(p[labels]).mean()),
    }
    sums = np.bincount(group, gain - gain.mean())
    stderr = float(np.sqrt(len(sums) / (len(sums) - 1) * np.sum(sums**2)) / n)
    settings = {"components": components, "folds": folds}
    return Estimate("probe", float(gain.mean()), stderr, "lower", n, settings, details)


def _group_ranks(groups: Any, n: int, key: jax.Array) -> np.ndarray:
    """Number the groups of the rows 0, 1, ... in random order, int [n]."""
    index = np.arange(n) if groups is None else np.asarray(as_array(groups, "groups"))
    if index.shape != (n,):
        raise InputError(f"groups has shape {index.shape}, but there are {n} rows; give one group per row.")
    present, index = np.unique(index, return_inverse=True)
    return np.argsort(np.asarray(jax.random.permutation(key, len(present))))[index]
