"""Task families of the benchmark "Beyond Normal", whose information is known: invertible maps of known tasks, mixtures.

The maps leave information unchanged; that of the mixtures is an integral over two coordinates.
"""

import functools
import math
from collections.abc import Callable

import numpy as np

from mi_jax.information.tasks import Sample, Task, normal_task, student_task

Map = Callable[[np.ndarray], np.ndarray]
"""An invertible map of rows, [n, d] to [n, d'] in float64."""


def mapped_task(task: Task, name: str, map_t: Map, map_other: Map | None = None) -> Task:
    """Apply invertible maps to the two variables of a task, which leaves their information as it is.

    Args:
        task: the task, with a continuous variable.
        name: text to put before its name.
        map_t: the map of T, rows to rows.
        map_other: the map of the other variable; by default the same.

    Examples:
        >>> task = mapped_task(normal_task(1, 1, 0.75), "asinh", np.arcsinh)
        >>> task.name, round(task.information, 6)
        ('asinh-normal-1x1-rho0.75', 0.413339)
    """

    def sample(n: int, seed: int) -> Sample:
        t, other = task.sample(n, seed)
        assert other is not None
        pair = map_t(t.astype(np.float64)), (map_other or map_t)(other.astype(np.float64))
        return pair[0].astype(np.float32), pair[1].astype(np.float32)

    dimension = map_t(np.zeros((1, task.dimension))).shape[1]
    return Task(f"{name}-{task.name}", task.target, task.information, dimension, sample)


def sparse_task(d: int, *, pairs: int = 2, rho: float = 0.8) -> Task:
    """Two normals of d coordinates, of which a few are correlated pair by pair and the others are noise.

    Args:
        d: number of coordinates of each.
        pairs: number of correlated pairs.
        rho: their correlation.
    """
    information = -0.5 * pairs * math.log1p(-rho * rho)

    def sample(n: int, seed: int) -> Sample:
        x, z = np.random.default_rng(seed).standard_normal((2, n, d))
        z[:, :pairs] = rho * x[:, :pairs] + math.sqrt(1 - rho * rho) * z[:, :pairs]
        return x.astype(np.float32), z.astype(np.float32)

    return Task(f"sparse-{d}x{d}-rho{rho:g}", "continuous", information, d, sample)


def half_cube(x: np.ndarray) -> np.ndarray:
    """Stretch the tails: sign(x) |x|^(3/2)."""
    return np.sign(x) * np.abs(x) ** 1.5


def normal_cdf(x: np.ndarray) -> np.ndarray:
    """Make standard normals uniform on [0, 1]."""
    from scipy.special import ndtr  # here, as scipy is slow to import and most callers do without

    return ndtr(x)


def wiggly(x: np.ndarray) -> np.ndarray:
    """Add sines whose slopes sum to less than one."""
    return x + 0.4 * np.sin(x) + 0.2 * np.sin(1.7 * x + 1) + 0.03 * np.sin(3.3 * x - 2.5)


def bimodal(x: np.ndarray) -> np.ndarray:
    """Turn standard normals into the mixture 0.3 N(0, 1) + 0.7 N(5, 1), by the inverse of its distribution function."""
    grid = np.linspace(-9, 14, 20_001)
    return np.interp(normal_cdf(x), 0.3 * normal_cdf(grid) + 0.7 * normal_cdf(grid - 5), grid)


def spiral(x: np.ndarray) -> np.ndarray:
    """Rotate the first two coordinates by a third of the squared norm of the row, in radians."""
    angle = (x**2).sum(axis=1) / 3
    turned = x.copy()
    turned[:, 0] = np.cos(angle) * x[:, 0] - np.sin(angle) * x[:, 1]
    turned[:, 1] = np.sin(angle) * x[:, 0] + np.cos(angle) * x[:, 1]
    return turned


def swiss_roll(x: np.ndarray) -> np.ndarray:
    """Roll standard normals, made uniform, up in the plane, [n, 1] to [n, 2]."""
    angle = 1.5 * math.pi * (1 + 2 * normal_cdf(x[:, 0]))
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) * angle[:, None] / 21


def mixture_information(weights: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> float:
    """Information in nats between the coordinates of a mixture of bivariate normals, by the trapezoidal rule.

    Args:
        weights: weights of the components, [k].
        means: [k, 2].
        covariances: [k, 2, 2].

    Examples:
        >>> cov = np.array([[[1.0, 0.75], [0.75, 1.0]]])
        >>> round(mixture_information(np.ones(1), np.zeros((1, 2)), cov), 6)
        0.413339
    """
    deviation = np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
    axes = [
        np.linspace(m.min() - 8 * s.max(), m.max() + 8 * s.max(), 1501)
        for m, s in zip(means.T, deviation.T, strict=True)
    ]
    joint = np.zeros((1501, 1501))
    for w, mean, covariance in zip(weights, means, covariances, strict=True):
        a, b = axes[0] - mean[0], axes[1] - mean[1]
        p = np.linalg.inv(covariance)
        exponent = p[0, 0] * a[:, None] ** 2 + 2 * p[0, 1] * np.outer(a, b) + p[1, 1] * b[None, :] ** 2
        joint += w * np.exp(-0.5 * exponent) * math.sqrt(np.linalg.det(p)) / (2 * math.pi)
    joint *= (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
    first, second = joint.sum(axis=1, keepdims=True), joint.sum(axis=0, keepdims=True)
    ratio = np.divide(joint, first * second, out=np.ones_like(joint), where=joint > 1e-300)
    return float(np.sum(joint * np.log(ratio)))


def mixture_task(name: str, weights: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> Task:
    """The two coordinates of a mixture of bivariate normals.

    Args:
        name: name of the task.
        weights: weights of the components, [k].
        means: [k, 2].
        covariances: [k, 2, 2].
    """

    def sample(n: int, seed: int) -> Sample:
        r = np.random.default_rng(seed)
        which = r.choice(len(weights), n, p=weights)
        roots = np.linalg.cholesky(covariances)
        rows = means[which] + np.einsum("nij,nj->ni", roots[which], r.standard_normal((n, 2)))
        return rows[:, :1].astype(np.float32), rows[:, 1:].astype(np.float32)

    return Task(name, "continuous", mixture_information(weights, means, covariances), 1, sample)


def _with_a_second_coordinate(task: Task, name: str, deviation: float, map_t: Map) -> Task:
    """Add an independent coordinate to T, of zero mean, and map the two; the information stays."""

    def sample(n: int, seed: int) -> Sample:
        t, other = task.sample(n, seed)
        noise = deviation * np.random.default_rng([seed, 2]).standard_normal((n, 1))
        return map_t(np.concatenate([t.astype(np.float64), noise], axis=1)).astype(np.float32), other

    return Task(name, "continuous", task.information, 2, sample)


def _galaxy() -> Task:
    """Two balls in three dimensions, of which two are the arms of a spiral.

    In coordinates along and across the axis of the balls the two dimensions are one coordinate and noise.
    """
    ends = 1.5 * np.array([[math.sqrt(2), 1.0]])
    base = mixture_task("two-balls", np.full(2, 0.5), np.concatenate([-ends, ends]), np.stack([np.eye(2)] * 2))

    def arms(x: np.ndarray) -> np.ndarray:
        angle = 0.5 * (x**2).sum(axis=1) + math.pi / 4
        return np.stack(
            [np.cos(angle) * x[:, 0] - np.sin(angle) * x[:, 1], np.sin(angle) * x[:, 0] + np.cos(angle) * x[:, 1]], 1
        )

    return _with_a_second_coordinate(base, "galaxy-2x1", 1.0, arms)


def _waves() -> Task:
    """Twelve waves in the plane, whose positions repeat every four in the other variable."""
    which = np.arange(12)
    means = 1.5 * np.stack([which, which % 4], axis=1)
    base = mixture_task("combs", np.full(12, 1 / 12), means, np.stack([0.1 * np.eye(2)] * 12))
    return _with_a_second_coordinate(
        base, "waves-2x1", 1.0, lambda x: np.stack([0.1 * (x[:, 0] + 5 * np.sin(3 * x[:, 1])) - 0.8, 0.5 * x[:, 1]], 1)
    )


def _cross() -> Task:
    """Two normals of opposite correlation: the letter X."""
    covariances = np.array([[[1, r], [r, 1]] for r in (-0.9, 0.9)])
    return mixture_task("cross-1x1", np.full(2, 0.5), np.zeros((2, 2)), covariances)


def _letters() -> Task:
    """Six normals that draw the letters A and I."""
    means = np.array([[1, 0], [1, 1], [1, -1], [-0.8, -0.2], [-1.2, 0], [-0.4, 0]], float)
    slope = 0.95 * math.sqrt(0.04 * 0.2)
    straight = [np.diag(v) for v in ((0.01, 0.2), (0.05, 0.001), (0.05, 0.001), (0.03, 0.001))]
    slanted = [np.array([[0.04, sign * slope], [sign * slope, 0.2]]) for sign in (1, -1)]
    return mixture_task("letters-1x1", np.full(6, 1 / 6), means, np.stack([*straight, *slanted]))


@functools.lru_cache
def beyond_normal_tasks() -> tuple[Task, ...]:
    """Return a task of every family of the benchmark that `tasks.tasks` does not have.

    References:
        Czyz et al. 2023 (Beyond Normal); Czyz et al. 2025 (mixtures: cross, letters, galaxy, waves).
    """
    normal, cauchy = normal_task(1, 1, 0.75), student_task(1, 1)
    sparse = {d: sparse_task(d) for d in (2, 3, 5, 25)}
    return (
        mapped_task(normal, "uniform", normal_cdf),
        mapped_task(normal, "bimodal", bimodal),
        mapped_task(normal, "wiggly", wiggly),
        mapped_task(normal, "half-cube", half_cube),
        mapped_task(normal, "swiss-roll", swiss_roll, normal_cdf),
        mapped_task(cauchy, "asinh", np.arcsinh),
        *sparse.values(),
        *(mapped_task(sparse[d], "uniform", normal_cdf) for d in (3, 25)),
        *(mapped_task(sparse[d], "half-cube", half_cube) for d in (5, 25)),
        *(mapped_task(sparse[d], "spiral", spiral) for d in (3, 25)),
        mapped_task(student_task(2, 5), "asinh", np.arcsinh),
        _cross(),
        _letters(),
        _galaxy(),
        _waves(),
    )
