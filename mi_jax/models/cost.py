"""Floating-point operations of a JAX function, counted from the shapes in its trace; nothing is run.

Counts convolutions and matrix products, which are all but a few per cent of a network's work.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core


def matmul_flops(function: Callable, *args: Any) -> int:
    """Operations in the convolutions and matrix products of `function(*args)`, a product and a sum counted as two.

    Args:
        function: traceable by JAX, without loops.
        *args: arrays or `jax.ShapeDtypeStruct`.
    """
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr: Any) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> int:
    if equation.primitive.name == "conv_general_dilated":
        output, kernel = equation.outvars[0].aval, equation.invars[1].aval
        features = kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
        return 2 * output.size * kernel.size // features
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        left = equation.invars[0].aval
        return 2 * equation.outvars[0].aval.size * math.prod(left.shape[axis] for axis in contracted)
    if equation.primitive.name == "cond":
        return max(map(_count, core.jaxprs_in_params(equation.params)))
    return sum(_count(inner) for inner in core.jaxprs_in_params(equation.params))
