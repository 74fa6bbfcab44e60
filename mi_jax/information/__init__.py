"""How much information a layer carries: bounds, unbiased values and their errors, for activations of any framework.

All values are in nats. This package knows nothing of models, data or training.
"""

from mi_jax.information import tasks
from mi_jax.information.binning import Binning, binning
from mi_jax.information.estimator import Estimate, Estimator, estimate, estimators, register
from mi_jax.information.estimators.knn import ksg, sliced
from mi_jax.information.estimators.linear_probe import LinearProbe, fit_probe, probe
from mi_jax.information.estimators.renyi import renyi
from mi_jax.information.estimators.variational import variational
from mi_jax.information.geometry import Geometry, ScaleSplit, geometry, scale_split
from mi_jax.information.kde import KDE, kde
from mi_jax.information.monte_carlo import MonteCarlo, monte_carlo
from mi_jax.information.noise import noise_grid, noise_variance

__all__ = [
    "KDE",
    "Binning",
    "Estimate",
    "Estimator",
    "Geometry",
    "LinearProbe",
    "MonteCarlo",
    "ScaleSplit",
    "binning",
    "estimate",
    "estimators",
    "fit_probe",
    "geometry",
    "kde",
    "ksg",
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
