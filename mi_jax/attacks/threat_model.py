"""Geometry of the two threat models: lengths, steepest steps, projections and random starts for Linf and L2.

Everything acts on perturbations of images, one row a picture; nothing here knows a model or a loss.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from mi_jax.errors import InputError
from mi_jax.typing import Images, Key

Norm = Literal["linf", "l2"]
StartLaw = Literal["uniform", "radius", "gaussian"]
Scalar = Float[Array, ""]

TINY = 1e-12
"""Added to a length before dividing by it, as the reference implementations do."""


def check_norm(norm: str) -> None:
    """Refuse a norm that the attacks do not know. Raises `InputError`."""
    if norm not in get_args(Norm):
        raise InputError(f"Norm {norm!r} is unknown; use one of {', '.join(get_args(Norm))}.")


def per_image(values: Shaped[Array, " b"]) -> Shaped[Array, "b 1 1 1"]:
    """Give one value an image the axes of the images."""
    return values[:, None, None, None]


def length(delta: Images, norm: str) -> Float[Array, " b"]:
    """Norm of each perturbation [b], in pixel units."""
    if norm == "linf":
        return jnp.max(jnp.abs(delta), axis=(1, 2, 3))
    return jnp.sqrt(jnp.sum(jnp.square(delta), axis=(1, 2, 3)))


def unit(direction: Images, norm: str) -> Images:
    """Scale each direction to length one; a zero direction stays zero."""
    return direction / (per_image(length(direction, norm)) + TINY)


def steepest(gradient: Images, norm: str) -> Images:
    """Direction of unit length along which a linear function rises fastest: sign(g), or g / |g|."""
    return jnp.sign(gradient) if norm == "linf" else unit(gradient, "l2")


def project(delta: Images, eps: Scalar, norm: str) -> Images:
    """Bring each perturbation back into the ball of radius eps."""
    if norm == "linf":
        return jnp.clip(delta, -eps, eps)
    return delta * jnp.minimum(1, eps / jnp.maximum(per_image(length(delta, norm)), TINY))


def project_image(images: Images, clean: Images, eps: Scalar, norm: str) -> Images:
    """Bring each image back into the eps ball around its clean image and into [0, 1]."""
    return jnp.clip(clean + project(images - clean, eps, norm), 0, 1)


def random_perturbation(key: Key, shape: tuple[int, ...], dtype, eps: Scalar, norm: str, law: str) -> Images:
    """Draw a starting perturbation for each image.

    `uniform` is uniform in the ball (Linf: each pixel; L2: direction uniform, radius eps u^(1/d)); `radius`
    draws the radius itself uniformly, as torchattacks does, and so starts nearer to the image; `gaussian` is
    1e-3 times a standard normal in each pixel, brought into the ball (TRADES, Zhang et al. 2019).
    """
    if law == "gaussian":
        return project(1e-3 * jax.random.normal(key, shape, dtype), eps, norm)
    if norm == "linf":
        direction_key, radius_key = jax.random.split(key)
        box = jax.random.uniform(direction_key, shape, dtype, -1, 1) * eps
        if law == "uniform":
            return box
        return box * jax.random.uniform(radius_key, (shape[0], 1, 1, 1), dtype)
    direction_key, radius_key = jax.random.split(key)
    direction = unit(jax.random.normal(direction_key, shape, dtype), "l2")
    radius = jax.random.uniform(radius_key, (shape[0], 1, 1, 1), dtype)
    if law == "uniform":
        radius = radius ** (1 / (shape[1] * shape[2] * shape[3]))
    return eps * radius * direction
