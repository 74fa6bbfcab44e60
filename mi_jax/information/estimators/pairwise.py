"""Registry entries of the mixture estimators, the KDE pair and Monte Carlo.

Their work is in `kde` and `monte_carlo`.
"""

from typing import Any

import jax

from mi_jax.information.estimator import Estimate, register
from mi_jax.information.kde import kde
from mi_jax.information.monte_carlo import monte_carlo


def _bound(name: str, t: Any, other: Any, noise_variance: float, options: dict[str, Any]) -> Estimate:
    side = "upper" if name == "kde_upper" else "lower"
    result = kde(t, other, noise_variance=noise_variance, **options)
    value = getattr(result, f"i_tx_{side}" if other is None else f"i_ty_certified_{side}")
    details = {"saturation": float(result.saturation), "error": float(result.error)}
    return Estimate(name, value, None, side, result.n, {"noise_variance": noise_variance} | options, details)


@register("kde_upper", targets=("input", "label"))
def _upper(t: Any, other: Any = None, *, key: jax.Array, noise_variance: float, **options: Any) -> Estimate:
    return _bound("kde_upper", t, other, noise_variance, options)


@register("kde_lower", targets=("input", "label"))
def _lower(t: Any, other: Any = None, *, key: jax.Array, noise_variance: float, **options: Any) -> Estimate:
    return _bound("kde_lower", t, other, noise_variance, options)


@register("monte_carlo", targets=("input", "label"))
def _value(t: Any, other: Any = None, *, key: jax.Array, noise_variance: float, **options: Any) -> Estimate:
    result = monte_carlo(t, other, noise_variance=noise_variance, key=key, **options)
    quantity = "i_tx" if other is None else "i_ty"
    value, stderr, sampling = (float(getattr(result, quantity + part)) for part in ("", "_stderr", "_sampling_error"))
    details = {"saturation": float(result.saturation), "sampling_error": sampling}
    details["degrees_of_freedom"] = float(result.blocks - 1)
    settings = options | {"noise_variance": noise_variance, "draws": result.draws}
    return Estimate("monte_carlo", value, stderr, "value", result.n, settings, details)
