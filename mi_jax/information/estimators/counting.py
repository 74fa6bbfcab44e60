"""Registry entries of binned information, plain and bias-corrected. The counting is in `binning`."""

import functools
from typing import Any

import jax

from mi_jax.information.binning import CORRECTIONS, binning
from mi_jax.information.estimator import Estimate, register


def _entry(name: str, correction: str, t: Any, other: Any = None, *, key: jax.Array, **options: Any) -> Estimate:
    options.pop("noise_variance", None)  # counting takes the layer as it is
    result = binning(t, other, correction=correction, **options)
    value = result.i_tx if other is None else result.i_ty
    assert value is not None
    details = {"saturation": result.saturation}
    settings = {"bin_size": result.bin_size, "correction": correction}
    return Estimate(name, value, None, "heuristic", result.n, settings, details)


for _correction in CORRECTIONS:
    _name = "binning" if _correction == "none" else f"binning_{_correction}"
    register(_name, targets=("input", "label"))(functools.partial(_entry, _name, _correction))
