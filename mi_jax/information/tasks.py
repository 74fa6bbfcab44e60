"""Tasks whose information is known in closed form, for testing estimators. Values in nats.

`mi_jax.information.benchmark` scores estimators on them.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np

from mi_jax import checks
from mi_jax.errors import InputError
from mi_jax.information._input import Target

Sample = tuple[np.ndarray, np.ndarray | None]


@dataclasses.dataclass(frozen=True)
class Task:
    """A joint distribution of T and another variable, with known information."""

    name: str
    target: Target
    information: float
    """True information of the population in nats, with the noise where `noise_variance` is given."""
    dimension: int
    sample: Callable[[int, int], Sample]
    """(n, seed) -> t [n, d] float32 and other: None for the input, int [n], or float32 [n, d']."""
    noise_variance: float | None = None
    """Variance of the noise to add to the sampled activations; None where they need none."""

    def observe(self, n: int, seed: int) -> Sample:
        """Sample with the noise added, for estimators that add none.

        Args:
            n: number of samples.
            seed: seed of the sample and of the noise.

        Returns:
            t [n, d] and the other variable, as from `sample`.
        """
        t, other = self.sample(n, seed)
        if self.noise_variance is None:
            return t, other
        noise = np.random.default_rng([seed, 1]).standard_normal(t.shape) * math.sqrt(self.noise_variance)
        return (t + noise).astype(np.float32), other


def gaussian_channel(d: int, noise_variance: float) -> float:
    """I(X; X + Z) in nats of a standard normal X in d dimensions: d/2 ln(1 + 1/noise_variance).

    Args:
        d: number of dimensions.
        noise_variance: variance of the Gaussian noise Z in every dimension.

    Raises:
        InputError: when there is no dimension or the variance is not positive.
    """
    checks.count("d", d)
    checks.positive("noise_variance", noise_variance, usual="0.1")
    return 0.5 * d * math.log1p(1 / noise_variance)


def amplitude_channel(levels: np.ndarray, noise_variance: float) -> float:
    """I(X; X + Z) in nats of equally likely real levels: the mean log-likelihood ratio, integrated over the noise.

    The trapezoidal rule converges faster than any power of its step for this smooth integrand.

    Args:
        levels: the values of X, [k].
        noise_variance: variance of the Gaussian noise Z.

    Raises:
        InputError: when the levels are not a list of finite numbers or the variance is not positive.
    """
    from scipy.special import logsumexp  # here, as scipy is slow to import and most callers do without

    levels = checks.array(levels, name="levels")
    if levels.ndim != 1 or not levels.size or levels.dtype.kind not in "iuf" or not np.isfinite(levels).all():
        raise InputError("levels must be a list of one or more finite numbers, such as [-1.0, 1.0].")
    checks.positive("noise_variance", noise_variance, usual="0.1")
    s, a = math.sqrt(noise_variance), np.asarray(levels, float)
    g = np.linspace(-12, 12, 6001)
    density = np.exp(-g * g / 2) / math.sqrt(2 * math.pi) * (g[1] - g[0])
    apart = (a[:, None] - a[None, :]) / s
    exponent = -(apart[:, :, None] ** 2) / 2 - apart[:, :, None] * g
    ratios = np.asarray(logsumexp(exponent, axis=1)).mean(axis=0)
    return math.log(len(a)) - float(density @ ratios)


def normal_information(covariance: np.ndarray, d: int) -> float:
    """Information in nats between the first d and the remaining coordinates of a normal vector.

    Args:
        covariance: covariance of the vector.
        d: number of coordinates of the first part.

    Raises:
        InputError: when the matrix is not positive definite, or a part has no coordinate.
    """
    covariance = checks.array(covariance, name="covariance")
    square = covariance.ndim == 2 and 0 < len(covariance) == covariance.shape[1] and covariance.dtype.kind in "iuf"
    if not square or not np.allclose(covariance, covariance.T):
        raise InputError(f"covariance must be a symmetric matrix of numbers; got shape {covariance.shape}.")
    eigenvalues = np.linalg.eigvalsh(covariance)
    if eigenvalues[0] <= len(covariance) * np.finfo(float).eps * eigenvalues[-1]:
        raise InputError("covariance must be positive definite; the information of other vectors is infinite.")
    checks.count("d", d, most=len(covariance) - 1)
    parts = (covariance[:d, :d], covariance[d:, d:], covariance)
    first, second, both = (np.linalg.slogdet(c)[1] for c in parts)
    return float(0.5 * (first + second - both))


def student_information(df: int, d: int, other: int) -> float:
    """Information in nats between d and `other` coordinates of a multivariate Student t of identity scale.

    Args:
        df: degrees of freedom.
        d: number of coordinates of the first part.
        other: number of coordinates of the second part.

    Raises:
        InputError: when the degrees of freedom are not positive, or a part has no coordinate.

    References:
        Czyz et al. 2023.
    """
    checks.positive("df", df, usual="3")
    checks.count("d", d)
    checks.count("other", other)
    from scipy.special import digamma, gammaln

    def entropy(k: int) -> float:
        tail = (df + k) / 2
        return (
            gammaln(df / 2) - gammaln(tail) + k / 2 * math.log(df * math.pi) + tail * (digamma(tail) - digamma(df / 2))
        )

    return float(entropy(d) + entropy(other) - entropy(d + other))


def additive_uniform(half_width: float) -> float:
    """I(X; X + U) in nats for X uniform on [0, 1] and U uniform on [-half_width, half_width].

    Args:
        half_width: half the width of the noise.

    Raises:
        InputError: when it is not positive.
    """
    checks.positive("half_width", half_width, usual="0.1")
    e = half_width
    return e - math.log(2 * e) if e <= 0.5 else 1 / (4 * e)


def staircase(m: int) -> float:
    """I(X; Y) in nats for X uniform on 0..m-1 and Y uniform on [X, X + 2]: ln m - (m - 1)/m ln 2.

    Args:
        m: number of values of X.

    Raises:
        InputError: when there is no value.

    References:
        Gao et al. 2017.
    """
    checks.count("m", m)
    return math.log(m) - (m - 1) / m * math.log(2)


def _column(a: np.ndarray) -> np.ndarray:
    return np.asarray(a, np.float32).reshape(len(a), -1)


def channel_task(d: int, noise_variance: float) -> Task:
    """Standard normal activations with Gaussian noise.

    Args:
        d: number of dimensions.
        noise_variance: variance of the noise.
    """
    return Task(
        f"gaussian-channel-d{d}-v{noise_variance:g}",
        "input",
        gaussian_channel(d, noise_variance),
        d,
        lambda n, seed: (np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32), None),
        noise_variance,
    )


def atoms_task(levels: tuple[float, ...], noise_variance: float, *, dimension: int = 1, labelled: bool = False) -> Task:
    """Equally likely amplitudes along a diagonal, in exact proportion.

    Args:
        levels: the amplitudes.
        noise_variance: variance of the Gaussian noise.
        dimension: number of axes that the diagonal spans.
        labelled: whether the task is about the index of the amplitude as a label, rather than about the input.

    Raises:
        InputError: as `amplitude_channel`, and for no axis.
    """
    checks.count("dimension", dimension)
    checks.flag("labelled", labelled)

    def sample(n: int, seed: int) -> Sample:
        index = np.random.default_rng(seed).permutation(np.arange(n) % len(levels))
        t = np.array(levels)[index][:, None] * np.full((1, dimension), 1 / math.sqrt(dimension))
        return t.astype(np.float32), index if labelled else None

    name = f"pam{len(levels)}-d{dimension}-v{noise_variance:g}" + ("-label" if labelled else "")
    truth = amplitude_channel(np.array(levels), noise_variance)
    return Task(name, "label" if labelled else "input", truth, dimension, sample, noise_variance)


def label_task(d: int, separation: float = 1.0, *, layer_noise: float = 0.5) -> Task:
    """Two equally likely classes, unit normals 2 `separation` apart: I(T;Y) is that of the binary channel.

    Args:
        d: number of dimensions.
        separation: half the distance of the class means.
        layer_noise: share of the unit variance that is noise at the layer, in (0, 1); the activations have the rest.

    Raises:
        InputError: when there is no dimension, the separation is negative, or `layer_noise` is out of range.
    """
    checks.count("d", d)
    checks.at_least("separation", separation, 0)
    checks.positive("layer_noise", layer_noise, usual="0.5")
    if layer_noise >= 1:
        raise InputError(f"layer_noise is {layer_noise}; it must be between 0 and 1.")

    def sample(n: int, seed: int) -> Sample:
        r = np.random.default_rng(seed)
        y = r.permutation(np.arange(n) % 2)
        t = math.sqrt(1 - layer_noise) * r.standard_normal((n, d))
        t += separation / math.sqrt(d) * (2 * y[:, None] - 1)
        return t.astype(np.float32), y

    known = amplitude_channel(np.array([-separation, separation]), 1.0)
    return Task(f"two-normals-d{d}", "label", known, d, sample, layer_noise)


def normal_task(d: int, other: int, rho: float) -> Task:
    """Jointly normal variables, every pair of coordinates with the same correlation.

    Args:
        d: number of coordinates of T.
        other: number of coordinates of the other variable.
        rho: the correlation.

    Raises:
        InputError: when a variable has no coordinate, or no normal vector has these correlations.
    """
    checks.count("d", d)
    checks.count("other", other)
    least = -1 / (d + other - 1)
    checks.between("rho", rho, least, 1, usual="0.5")
    if not least < rho < 1:
        raise InputError(f"Invalid rho {rho}: expected a number between {least:g} and 1, where information is finite.")
    covariance = np.full((d + other, d + other), rho) + (1 - rho) * np.eye(d + other)
    root = np.linalg.cholesky(covariance)

    def sample(n: int, seed: int) -> Sample:
        z = np.random.default_rng(seed).standard_normal((n, d + other)) @ root.T
        return _column(z[:, :d]), _column(z[:, d:])

    return Task(f"normal-{d}x{other}-rho{rho:g}", "continuous", normal_information(covariance, d), d, sample)


def paired_task(d: int, information: float) -> Task:
    """Two standard normals of d coordinates, correlated coordinate by coordinate.

    Args:
        d: number of coordinates of each.
        information: their information in nats.

    Raises:
        InputError: when there is no coordinate or the information is negative.
    """
    checks.count("d", d)
    checks.at_least("information", information, 0)
    rho = math.sqrt(-math.expm1(-2 * information / d))

    def sample(n: int, seed: int) -> Sample:
        x, z = np.random.default_rng(seed).standard_normal((2, n, d))
        return _column(x), _column(rho * x + math.sqrt(1 - rho * rho) * z)

    return Task(f"pairs-{d}x{d}-{information:g}", "continuous", information, d, sample)


def student_task(df: int, d: int) -> Task:
    """Heavy-tailed variables: the two halves of a multivariate Student t.

    Args:
        df: degrees of freedom.
        d: number of coordinates of each half.
    """

    def sample(n: int, seed: int) -> Sample:
        r = np.random.default_rng(seed)
        z = r.standard_normal((n, 2 * d)) / np.sqrt(r.chisquare(df, (n, 1)) / df)
        return _column(z[:, :d]), _column(z[:, d:])

    return Task(f"student-{d}x{d}-df{df}", "continuous", student_information(df, d, d), d, sample)


def uniform_task(half_width: float) -> Task:
    """A uniform variable with uniform noise, as in `additive_uniform`.

    Args:
        half_width: half the width of the noise.
    """

    def sample(n: int, seed: int) -> Sample:
        r = np.random.default_rng(seed)
        x = r.random(n)
        return _column(x + half_width * (2 * r.random(n) - 1)), _column(x)

    return Task(f"additive-uniform-{half_width:g}", "continuous", additive_uniform(half_width), 1, sample)


def staircase_task(m: int) -> Task:
    """Labels and a uniform variable of width two that begins at the label, as in `staircase`.

    Args:
        m: number of labels.
    """

    def sample(n: int, seed: int) -> Sample:
        r = np.random.default_rng(seed)
        y = r.permutation(np.arange(n) % m)
        return _column(y + 2 * r.random(n)), y

    return Task(f"staircase-{m}", "label", staircase(m), 1, sample)


def prescribed_task(information: float, *, classes: int = 10, width: int = 256) -> Task:
    """A fixed random convolutional layer on images of `classes` classes, with noise that fixes I(T;Y) = I(X;T).

    All images of a class are equal and the layer maps them to equidistant points, so that T is a regular simplex of
    atoms with noise; the noise variance is found by bisection.

    Args:
        information: in nats, above 0 and below ln(classes).
        classes: number of classes.
        width: number of features.

    Raises:
        InputError: when there are fewer than two classes or fewer features than classes, or `information` is out of
            range.
    """
    checks.count("classes", classes, 2)
    checks.count("width", width, classes)
    checks.positive("information", information, usual="1.0")
    if information >= math.log(classes):
        raise InputError(f"information is {information}; it must be between 0 and ln({classes}) nats.")
    low, high = -5.0, 14.0  # at exp(-5) not one noise vector in 1e16 leads to another class
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if simplex_channel(classes, math.exp(middle)) > information else (low, middle)
    variance = math.exp(low)

    def sample(n: int, seed: int) -> Sample:
        r = np.random.default_rng(seed)
        y = r.permutation(np.arange(n) % classes)
        return _class_activations(classes, width)[y], y

    return Task(f"prescribed-{information:g}", "label", simplex_channel(classes, variance), width, sample, variance)


def simplex_channel(classes: int, noise_variance: float) -> float:
    """I(X; X + Z) in nats of equally likely unit vectors along the axes: ln k - E ln(sum of k likelihood ratios).

    The ratios are independent log-normals, so Frullani's ln a = integral of (exp(-t) - exp(-a t)) / t dt turns the
    mean of a k-dimensional normal into one integral over ln t of products of Laplace transforms, each an integral over
    one normal. The trapezoidal rule computes both to 1e-9.

    Args:
        classes: number of vectors.
        noise_variance: variance of the Gaussian noise Z in every dimension.

    Raises:
        InputError: when there is no vector or the variance is not positive.
    """
    checks.count("classes", classes)
    checks.positive("noise_variance", noise_variance, usual="0.1")
    v, s, step = noise_variance, math.sqrt(noise_variance), 0.2
    g = np.arange(-10, 10, step * min(1, s))
    density = np.exp(-g * g / 2)
    density /= density.sum()

    def transform(u: np.ndarray) -> np.ndarray:
        """E exp(-exp(u + g / s)) for normal g; exp(-exp(50)) is 0 already."""
        return np.exp(-np.exp(np.minimum(u[:, None] + g / s, 50))) @ density

    u = np.arange(-1.5 / v - math.log(classes) - 32, 9 / s + 6, step)
    mean = step * np.sum(np.exp(-np.exp(np.minimum(u, 50))) - transform(u + 1 / v) * transform(u) ** (classes - 1))
    return math.log(classes) + 1 / v - float(mean)


def _class_activations(classes: int, width: int) -> np.ndarray:
    """Activations [classes, width] of one random image per class: convolution, ReLU, and a dense layer.

    The dense layer maps the features of the classes to orthonormal vectors.
    """
    r = np.random.default_rng(7)
    images, kernels = r.random((classes, 1, 8, 8)), r.standard_normal((1, 4, 8, 8))
    convolved = np.fft.irfft2(np.fft.rfft2(images) * np.fft.rfft2(kernels), s=(8, 8))
    features = np.maximum(convolved, 0).reshape(classes, -1)
    q, triangle = np.linalg.qr(features.T)
    frame = np.linalg.qr(r.standard_normal((width, classes)))[0].T
    dense = q @ np.linalg.solve(triangle, np.eye(classes)).T @ frame
    return (features @ dense).astype(np.float32)


@functools.lru_cache
def tasks() -> tuple[Task, ...]:
    """Return the standard set of tasks."""
    return (
        *(channel_task(d, v) for d, v in ((1, 0.1), (2, 0.5), (8, 1.0), (32, 4.0))),
        *(atoms_task((-1.0, 1.0), v) for v in (1.0, 0.25, 0.1)),
        atoms_task((-3.0, -1.0, 1.0, 3.0), 1.0, dimension=64),
        atoms_task(tuple(float(a) for a in range(-7, 8, 2)), 0.5, labelled=True),
        *(prescribed_task(bits * math.log(2)) for bits in (0.5, 1.5, 2.5)),
        *(label_task(d) for d in (1, 16, 128)),
        staircase_task(5),
        normal_task(1, 1, 0.75),
        *(normal_task(d, d, 0.5) for d in (2, 5, 25, 50)),
        student_task(1, 1),
        student_task(2, 2),
        student_task(3, 5),
        *(uniform_task(e) for e in (0.1, 0.75)),
    )
