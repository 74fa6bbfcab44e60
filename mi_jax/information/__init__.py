"""How much information a layer carries: bounds, unbiased values and their errors, for activations of any framework.

All values are in nats. This package knows nothing of models, data or training.
"""

from mi_jax.information.binning import Binning, binning
from mi_jax.information.geometry import Geometry, ScaleSplit, geometry, scale_split
from mi_jax.information.kde import KDE, kde
from mi_jax.information.monte_carlo import MonteCarlo, monte_carlo
from mi_jax.information.noise import noise_grid, noise_variance

__all__ = [
    "KDE",
    "Binning",
    "Geometry",
    "MonteCarlo",
    "ScaleSplit",
    "binning",
    "geometry",
    "kde",
    "monte_carlo",
    "noise_grid",
    "noise_variance",
    "scale_split",
]
