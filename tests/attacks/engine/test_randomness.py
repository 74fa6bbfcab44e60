"""Random numbers from words: finite at both ends, and of the law they are named after."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from mi_jax.attacks.engine.randomness import normal


def test_normal_is_finite_and_symmetric_at_the_extreme_words():
    least, largest = np.asarray(normal(jnp.array([0, 0xFFFFFFFF], jnp.uint32)))
    np.testing.assert_allclose(largest, stats.norm.isf(2.0**-24), rtol=1e-5)
    assert least == -largest


def test_normal_has_the_normal_law():
    draws = normal(jax.random.bits(jax.random.key(0), (4000,), jnp.uint32))
    assert stats.kstest(np.asarray(draws), "norm").pvalue > 0.01
