"""Threat models: the Linf, L2 or L1 ball around an image within [0, 1]: steps, projection and random points."""

import dataclasses
import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

from mi_jax import checks
from mi_jax.attacks.engine.input_checks import check_distance
from mi_jax.attacks.projections import l1_length, onto_l1_ball
from mi_jax.typing import Images, Key

Norm = Literal["linf", "l2", "l1"]
NORMS: tuple[Norm, ...] = get_args(Norm)
Init = Literal["uniform", "radius", "gaussian"]
Scalar = Float[Array, ""]

TINY = 1e-12
"""Added to a length before dividing by it, as the reference implementations do."""
DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}
"""The dual of each norm."""
DEFAULT_EPS = {"linf": 8 / 255, "l2": 0.5, "l1": 12.0}
"""The usual radii on CIFAR-10."""
SPARSITY = 0.01
"""Share of the pixels that one L1 step moves, as Tramèr and Boneh (2019) choose for CIFAR-10."""


def default_step_size(norm: str, eps: float) -> float:
    """Default step size of the attacks with a fixed one, pixel units: 2/255 in Linf, eps / 4 in L2 and L1."""
    return 2 / 255 if norm == "linf" else eps / 4 or 1.0


def check_norm(norm: str) -> Norm:
    """The norm of that name, in any case. Raises `InputError` for an unknown one.

    Examples:
        >>> check_norm("Linf")
        'linf'
    """
    known: dict[str, Norm] = {name: name for name in NORMS}
    lower = norm.lower() if isinstance(norm, str) else norm
    checks.one_of("norm", lower if lower in known else norm, known)
    return known[lower]


def per_image(values: Shaped[Array, " b"]) -> Shaped[Array, "b 1 1 1"]:
    """Reshapes one value per image to broadcast over images."""
    return values[:, None, None, None]


def flat(images: Images) -> Float[Array, "b d"]:
    """The pixels of each image in one row."""
    return images.reshape(len(images), -1)


def length(delta: Images, norm: str) -> Float[Array, " b"]:
    """Norm of each perturbation [b], in pixel units."""
    if norm == "linf":
        return jnp.max(jnp.abs(delta), axis=(1, 2, 3))
    if norm == "l1":
        return l1_length(flat(delta))
    return jnp.sqrt(jnp.sum(jnp.square(delta), axis=(1, 2, 3)))


def unit(direction: Images, norm: str) -> Images:
    """Scales each direction to length 1; a zero direction stays zero."""
    return direction / (per_image(length(direction, norm)) + TINY)


def largest_entry(direction: Images) -> Float[Array, "b 1 1 1"]:
    """The largest size of an entry of each direction, 1 for a zero one: divided by it, squares keep within range.

    Without this, those of entries below 1e-19 vanish, and gradients of confident networks are that small.
    """
    largest = per_image(length(direction, "linf"))
    return jnp.where(largest > 0, largest, 1)


def diameter(norm: str, shape: tuple[int, ...]) -> float:
    """Largest distance between two images of shape [..., h, w, c] in [0, 1]."""
    pixels = math.prod(shape[-3:])
    return {"linf": 1.0, "l2": math.sqrt(pixels), "l1": float(pixels)}[norm]


@dataclasses.dataclass(frozen=True)
class ThreatModel:
    """All images in [0, 1] within distance eps of a clean image.

    Attributes:
        norm: `linf`, `l2` or `l1`.
        eps: radius in pixel units of [0, 1], one number or one per image [b]; may be traced.

    Examples:
        >>> threat = ThreatModel("linf", 0.1)
        >>> clean = jnp.full((1, 1, 1, 2), 0.5)
        >>> threat.project(clean + jnp.array([[[[0.3, -0.05]]]]), clean).ravel()
        Array([0.6 , 0.45], dtype=float32)
    """

    norm: str = "linf"
    eps: ArrayLike = 8 / 255

    def __post_init__(self):
        object.__setattr__(self, "norm", check_norm(self.norm))
        check_distance("eps", self.eps, self.norm, per_image=True)

    @property
    def radius(self) -> Array:
        """The radius with a shape that broadcasts over images: a scalar, or [b 1 1 1]."""
        eps = jnp.asarray(self.eps)
        return eps.reshape(-1, 1, 1, 1) if eps.ndim else eps

    @property
    def radii(self) -> Array:
        """The radius with a shape that broadcasts over one value per image: [1] or [b]."""
        return jnp.ravel(jnp.asarray(self.eps))

    def distance(self, images: Images, clean: Images) -> Float[Array, " b"]:
        """Distance of each image from its clean image [b], in pixel units."""
        return length(images - clean, self.norm)

    def steepest(self, gradient: Images) -> Images:
        """Direction of unit length of one step: sign(g) in Linf, g / |g| in L2, the largest entries' signs in L1.

        In Linf and L2 a linear function increases fastest along it. In L1 that would be one pixel at a time, so the
        step is shared by the share `SPARSITY` of the pixels (Tramèr and Boneh 2019, section 4). Entries that are NaN,
        and in L2 and L1 infinite ones, are taken as zero.
        """
        if self.norm == "linf":
            return jnp.sign(jnp.where(jnp.isnan(gradient), 0, gradient))
        gradient = jnp.where(jnp.isfinite(gradient), gradient, 0)
        if self.norm == "l2":
            return unit(gradient / largest_entry(gradient), "l2")
        size = flat(jnp.abs(gradient))
        least = jax.lax.top_k(size, max(1, round(SPARSITY * size.shape[1])))[0][:, -1]
        return unit(jnp.where(jnp.abs(gradient) >= per_image(least), jnp.sign(gradient), 0), "l1")

    def project(self, images: Images, clean: Images) -> Images:
        """Each image projected into the ball, then clipped to [0, 1]; in L1 into the intersection of both."""
        return jnp.clip(clean + self._into_ball(images - clean, clean), 0, 1)

    def _into_ball(self, delta: Images, clean: Images) -> Images:
        if self.norm == "linf":
            return jnp.clip(delta, -self.radius, self.radius)
        if self.norm == "l1":
            return onto_l1_ball(flat(delta), flat(clean), self.radii).reshape(delta.shape)
        return delta * jnp.minimum(1, self.radius / jnp.maximum(per_image(length(delta, "l2")), TINY))

    def draws_normal(self, init: str) -> bool:
        """Whether `start` takes standard normal noise rather than noise uniform in [-1, 1)."""
        return init == "gaussian" or self.norm == "l2"

    def start(self, clean: Images, noise: Images, radius: Float[Array, "b 1 1 1"], init: str) -> Images:
        """A random first point for each image, from noise [b h w c] (see `draws_normal`) and radii uniform in [0, 1).

        `uniform` is uniform in the ball (Linf: each pixel; L2 and L1: uniform direction, radius eps u^(1/d)); `radius`
        draws the radius itself uniformly, as torchattacks does, and so starts nearer to the image; `gaussian` is 1e-3
        times a standard normal in each pixel, projected into the ball (TRADES, Zhang et al. 2019).
        """
        if init == "gaussian":
            delta = self._into_ball(1e-3 * noise, clean)
        elif self.norm == "linf":
            delta = noise * self.radius
            delta = delta if init == "uniform" else delta * radius
        else:
            radius = radius ** (1 / math.prod(clean.shape[1:])) if init == "uniform" else radius
            if self.norm == "l1":  # Laplace noise, whose direction is uniform on the L1 sphere
                noise = -jnp.sign(noise) * jnp.log1p(-jnp.minimum(jnp.abs(noise), 1 - 2**-24))
            delta = self.radius * radius * unit(noise, self.norm)
        return jnp.clip(clean + delta, 0, 1)

    def random_start(self, key: Key, clean: Images, init: str = "uniform") -> Images:
        """`start` with the noise of the whole batch from one key, for training."""
        noise_key, radius_key = (key, key) if init == "gaussian" else jax.random.split(key)
        shape, dtype = clean.shape, np.promote_types(clean.dtype, jnp.float32)  # deviates of half precision are coarse
        if self.draws_normal(init):
            noise = jax.random.normal(noise_key, shape, dtype)
        else:
            noise = jax.random.uniform(noise_key, shape, dtype, -1, 1)
        radius = jax.random.uniform(radius_key, (shape[0], 1, 1, 1), dtype)
        return self.start(clean.astype(dtype), noise, radius, init).astype(clean.dtype)
