"""Estimators of the information a layer carries about its input, labels or other variables, in nats.

They take activations of any framework; `measure_layers` gives a table of all layers, by default in bits. `register`
adds an estimator, `NOISE_RULES.registering` a noise rule.
"""

from mi_jax.information import tasks
from mi_jax.information._products import Precision
from mi_jax.information.binning import Binning, binning
from mi_jax.information.bottleneck import CodeInformation, code_information, gaussian_rate
from mi_jax.information.estimator import ESTIMATORS, Estimate, Estimator, estimate, estimators_for, register
from mi_jax.information.estimators.denoiser import Denoiser, denoiser
from mi_jax.information.estimators.knn import ksg, sliced
from mi_jax.information.estimators.linear_probe import LinearProbe, fit_probe, probe
from mi_jax.information.estimators.renyi import renyi
from mi_jax.information.estimators.variational import variational
from mi_jax.information.geometry import Geometry, ScaleSplit, geometry, scale_split
from mi_jax.information.kde import KDE, kde
from mi_jax.information.layers import measure_layers
from mi_jax.information.lazy import LazyActivations
from mi_jax.information.monte_carlo import MonteCarlo, monte_carlo
from mi_jax.information.noise import NOISE_RULES, noise_grid, noise_variance

__all__ = [
    "ESTIMATORS",
    "KDE",
    "NOISE_RULES",
    "Binning",
    "CodeInformation",
    "Denoiser",
    "Estimate",
    "Estimator",
    "Geometry",
    "LazyActivations",
    "LinearProbe",
    "MonteCarlo",
    "Precision",
    "ScaleSplit",
    "binning",
    "code_information",
    "denoiser",
    "estimate",
    "estimators_for",
    "fit_probe",
    "gaussian_rate",
    "geometry",
    "kde",
    "ksg",
    "measure_layers",
    "monte_carlo",
    "noise_grid",
    "noise_variance",
    "probe",
    "register",
    "renyi",
    "scale_split",
    "sliced",
    "tasks",
    "variational",
]
