"""A linear model with closed-form attacks, shared by the tests of the attacks."""

import jax
import jax.numpy as jnp
import pytest


def linear(variables, x):
    return x.reshape(len(x), -1) @ variables["w"] + variables["b"]


@pytest.fixture(scope="session")
def linear_model():
    """Logits of five classes, linear in 4 x 3 x 2 pixels: (logits_fn, variables)."""
    w = jax.random.normal(jax.random.key(0), (24, 5))
    return linear, {"w": w, "b": jnp.zeros(5)}


@pytest.fixture(scope="session")
def batch(linear_model):
    """Nine images away from the borders of [0, 1] with the labels that the linear model gives them."""
    x = jax.random.uniform(jax.random.key(1), (9, 4, 3, 2), minval=0.3, maxval=0.7)
    return x, jnp.argmax(linear(linear_model[1], x), axis=1)
