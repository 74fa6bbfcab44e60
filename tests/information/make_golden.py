"""Float64 reference values of the KDE and binning estimators, from direct differences and dense matrices.

`python tests/information/make_golden.py` rewrites golden.json. Nothing of mi_jax is used here, on purpose.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from scipy.special import digamma, logsumexp

GOLDEN = Path(__file__).with_name("golden.json")
VARIANCES = (0.01, 0.1, 1.0)
BIN_SIZES = (0.5, 0.07)


def squared_distances(x):
    x = np.asarray(x, np.float64)
    return np.stack([((x - row) ** 2).sum(axis=1) for row in x])


def j_term(d, c):
    return float(np.log(len(d)) - logsumexp(-d / c, axis=1).mean()) if len(d) else 0.0


def kde(x, y, classes, variance):
    d, out = squared_distances(x), {}
    for name, c in (("upper", 2 * variance), ("lower", 8 * variance)):
        given = [j_term(d[np.ix_(y == k, y == k)], c) for k in range(classes)]
        total = j_term(d, c)
        within = sum(np.mean(y == k) * j for k, j in enumerate(given))
        out[name] = {"i_tx": total, "i_ty": total - within, "i_tx_given_y": given}
    return out


def binning(x, y, classes, size):
    q = np.floor(np.asarray(x, np.float64) / size).astype(np.int64)

    def entropy(rows):
        if not len(rows):
            return 0.0
        p = np.unique(rows, axis=0, return_counts=True)[1] / len(rows)
        return float(-(p * np.log(p)).sum())

    total = entropy(q)
    return {"i_tx": total, "i_ty": total - sum(np.mean(y == k) * entropy(q[y == k]) for k in range(classes))}


def blobs():
    """Ten overlapping clusters."""
    r = np.random.default_rng(0)
    y = r.integers(0, 10, 200)
    mu = r.standard_normal((10, 16)) * 0.5
    return (mu[y] + 0.15 * r.standard_normal((200, 16))).astype(np.float32), y, 10


def relu():
    """Sparse and non-negative, with eight duplicated rows."""
    r = np.random.default_rng(1)
    y = r.integers(0, 10, 128)
    x = np.maximum(r.standard_normal((128, 192)) * 0.12, 0)
    x[120:], y[120:] = x[:8], y[:8]
    return x.astype(np.float32), y, 10


def unbalanced():
    """Class 3 empty, class 4 a singleton."""
    r = np.random.default_rng(2)
    y = np.array([0] * 40 + [1] * 20 + [2] * 3 + [4])
    return (r.standard_normal((64, 5)) * 0.4 + y[:, None] * 0.3).astype(np.float32), y, 5


def offset():
    """A common mean of norm 1e3 under a spread of 1: raw float32 Gram products fail here."""
    r = np.random.default_rng(3)
    y = r.integers(0, 4, 96)
    m = r.standard_normal(2048)
    m *= 1000 / np.linalg.norm(m)
    return (m + r.standard_normal((96, 2048)) * np.sqrt(1 / 4096)).astype(np.float32), y, 4


def constant():
    return np.full((32, 7), 3.0, np.float32), np.arange(32) % 4, 4


CASES = {f.__name__: f for f in (blobs, relu, unbalanced, offset, constant)}


def rbf(x, width):
    return np.exp(-squared_distances(x) / (2 * width**2)) / len(x)


def renyi(matrices, alpha):
    a = len(matrices[0]) ** (len(matrices) - 1) * np.prod(matrices, axis=0)
    w = np.clip(np.linalg.eigvalsh(a / np.trace(a)), 0, None)
    w /= w.sum()
    return float(np.log((w[w > 0] ** alpha).sum()) / (1 - alpha))


def renyi_cases():
    x, y, classes = blobs()
    z = np.random.default_rng(11).standard_normal((200, 16)).astype(np.float32)
    onehot, out = np.eye(classes)[y], {}
    kx, kz, ky = rbf(x, 1.0), rbf(z, 4.0), onehot @ onehot.T / len(y)
    for alpha in (1.01, 2.0):
        sx, sy, sz = renyi([kx], alpha), renyi([ky], alpha), renyi([kz], alpha)
        out[str(alpha)] = {
            "entropy": sx,
            "label_entropy": sy,
            "i_label": sx + sy - renyi([kx, ky], alpha),
            "i_other": sx + sz - renyi([kx, kz], alpha),
        }
    return out


def ksg(x, y, k):
    """Kraskov's first algorithm: maximum norm, strictly smaller neighbours."""
    dx, dy = (np.abs(v[:, None] - v[None]).max(axis=-1) for v in (x, y))
    dz = np.maximum(dx, dy)
    np.fill_diagonal(dz, np.inf)
    radius = np.sort(dz, axis=1)[:, k - 1][:, None]
    nx, ny = (dx < radius).sum(axis=1) - 1, (dy < radius).sum(axis=1) - 1
    return float(digamma(k) + digamma(len(x)) - (digamma(nx + 1) + digamma(ny + 1)).mean())


def ksg_pair():
    z = np.random.default_rng(9).standard_normal((1000, 2))
    return z[:, :1], 0.75 * z[:, :1] + np.sqrt(1 - 0.75**2) * z[:, 1:]


def mixture(x, variance, draws, rng):
    """Monte-Carlo information of the mixture on the rows of x, nats, and its standard error."""
    values = []
    for _ in range(draws):
        z = rng.standard_normal(x.shape) * np.sqrt(variance)
        d = ((x + z)[:, None] - x[None]) ** 2
        values.append(
            np.log(len(x)) - (z**2).sum(axis=1) / (2 * variance) - logsumexp(-d.sum(-1) / (2 * variance), axis=1)
        )
    v = np.concatenate(values)
    return {"value": float(v.mean()), "stderr": float(v.std(ddof=1) / np.sqrt(len(v)))}


GAUSSIANS = ((5, 256, 1, 0.1), (6, 256, 2, 0.5), (7, 256, 8, 1.0), (8, 256, 32, 4.0))


def make():
    golden = {"unit": "nats", "cases": {}, "renyi": renyi_cases(), "mixture": {}}
    for name, case in CASES.items():
        x, y, classes = case()
        digest = hashlib.sha256(x.tobytes() + y.astype(np.int64).tobytes()).hexdigest()[:16]
        golden["cases"][name] = {
            "sha256": digest,
            "kde": {str(v): kde(x, y, classes, v) for v in VARIANCES},
            "binning": {str(b): binning(x, y, classes, b) for b in BIN_SIZES},
        }
    golden["ksg"] = {str(k): ksg(*ksg_pair(), k) for k in (3, 5, 10)}
    for seed, n, d, variance in GAUSSIANS:
        x = np.random.default_rng(seed).standard_normal((n, d))
        golden["mixture"][f"{seed}"] = mixture(x, variance, 40, np.random.default_rng(1000 + seed))
    return golden


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(make(), indent=1) + "\n")
