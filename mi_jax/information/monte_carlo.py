"""Unbiased values of I(X;T) and I(T;Y) for activations with Gaussian noise, with standard errors.

The object is the same mixture that `kde` brackets: x uniform over the given rows, noise at this layer alone.
"""

import dataclasses
import math
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mi_jax.errors import InputError
from mi_jax.information import _tiles
from mi_jax.information._input import as_activations, as_labels, as_variances, check_finite
from mi_jax.information._mixture import mixture_sums

_TOLERANCE = 1e-4
"""Rounding error in nats above which the sums are repeated in float64: far below any standard error."""
Value = float | np.ndarray


@dataclasses.dataclass(frozen=True)
class MonteCarlo:
    """Values in nats; every `Value` gains a leading axis when `noise_variance` was an array.

    The fields about labels are None when no labels were given.
    """

    i_tx: Value
    i_tx_stderr: Value
    """Standard error of i_tx as the information of the mixture on the given rows: the noise draws alone.

    Too small within some thousandths of a bit of a ceiling, ln n or for i_ty H(Y): what is missing there comes from
    noises so rare that few draws or none meet one.
    """
    i_tx_sampling_error: Value
    """Standard error when the rows, too, are a sample: delete-block jackknife; noise draws included.

    It has `blocks` - 1 degrees of freedom: an interval takes the quantile of Student's t with as many.
    """
    i_ty: Value | None
    i_ty_stderr: Value | None
    i_ty_sampling_error: Value | None
    saturation: Value
    """i_tx / log n."""
    saturated: bool | np.ndarray
    """Whether saturation exceeds 0.95."""
    noise_variance: Value
    n: int
    draws: int
    blocks: int


def monte_carlo(
    t: Any,
    y: Any = None,
    *,
    noise_variance: Any,
    key: jax.Array,
    num_classes: int | None = None,
    draws: int | None = None,
    blocks: int = 20,
    precision: _tiles.Precision | None = None,
    mesh: Mesh | None = None,
    layer: str = "t",
) -> MonteCarlo:
    """Estimate I(X;T) and I(T;Y) of T = t + N(0, noise_variance I) by sampling the noise, in nats.

    Every row gets `draws` noise vectors in antithetic pairs; the same draws serve all noise levels and both quantities,
    and a row's draws do not depend on its label. y may be the class or any other factor of the input.

    Args:
      t: activations [n, ...] of any float dtype and framework.
      y: int labels [n] in 0..num_classes-1, or None.
      noise_variance: one number, or an array of s numbers.
      key: JAX random key of the noise.
      num_classes: number of classes; by default the largest label plus one.
      draws: noise vectors a row, an even number; four or more give a standard error that is free of the spread of rows.
        None: as `default_draws` says.
      blocks: of the jackknife, at most n: rows are dealt to them at random, whatever their labels.
      precision: of the arithmetic, as in `kde`.
      mesh: devices that share the pairs; by default those over which t is spread.
      layer: name for messages.

    Raises InputError for what `kde` refuses, an odd number of draws, and less than two blocks.

    Source: Goldfeld et al. 2019 (entropy of a noisy network by sampling its mixture); Kunsch 1989 (blocks).
    """
    x = as_activations(t, layer)
    check_finite(x, layer)
    variances, scalar = as_variances(noise_variance)
    n = len(x)
    draws = default_draws(n) if draws is None else draws
    if draws < 2 or draws % 2:
        raise InputError(f"draws is {draws}: noise comes in antithetic pairs, so an even number is needed.")
    if blocks < 2:
        raise InputError(f"blocks is {blocks}: the jackknife needs at least two.")
    blocks = min(blocks, n)
    block = np.random.default_rng(0).permutation(n) % blocks  # independent of labels and of the order of the rows
    labels, classes = (np.zeros(n, np.int32), 1) if y is None else as_labels(y, n, num_classes)
    precision = precision or ("float64" if x.dtype == np.float64 else "float32")
    options = {"num_classes": classes, "mesh": mesh or _tiles.mesh_of(x)}
    sums, error = _sums(x, labels, block, variances, key, draws // 2, precision, options)
    if precision != "float64" and not error <= _TOLERANCE:
        sums, error = _sums(x, labels, block, variances, key, draws // 2, "float64", options)
    if not math.isfinite(error):
        raise InputError(f"{layer} is too large for its squared distances to be finite: rescale it first.")
    fields = _estimates(sums, labels, block, labelled=y is not None)
    fields["noise_variance"] = variances
    if scalar:
        fields: dict[str, Any] = {name: None if v is None else v[0].item() for name, v in fields.items()}
    return MonteCarlo(**fields, n=n, draws=draws, blocks=blocks)


def default_draws(n: int) -> int:
    """Return the fewest noise vectors a row, even and at least four, that make 1,024 or more from n rows.

    With fewer the standard error of the mean is itself so uncertain that intervals of 1.96 of them hold too seldom.
    """
    return max(4, 2 * math.ceil(512 / n))


def _sums(
    x: Any,
    labels: np.ndarray,
    block: np.ndarray,
    variances: np.ndarray,
    key: jax.Array,
    pairs: int,
    precision: _tiles.Precision,
    options: dict[str, Any],
) -> tuple[np.ndarray, float]:
    """Return sums [pair, s, sign, total | own, n, blocks] in float64, and the indicator of their rounding error."""
    with jax.enable_x64(precision == "float64"):
        rotated = _rotate(x, pairs, precision)
        taken = [
            mixture_sums(rotated, labels, block, np.sqrt(variances), k, precision=precision, **options)
            for k in jax.random.split(key, pairs)
        ]
        sums = np.stack([np.asarray(pair, np.float64) for pair, _ in taken])
        largest = float(taken[0][1])
    eps = float(np.finfo(np.float64 if precision == "float64" else np.float32).eps)
    share = 1 - 1 / sums[:, :, :, 0].sum(axis=-1).clip(1).mean(axis=(0, 2, 3))
    return sums, float(np.max(eps * largest * share / (2 * variances)))


def _rotate(x: Any, products: int, precision: _tiles.Precision) -> Any:
    """Rotate a layer wider than n to n coordinates when the QR factorisation costs less than it saves.

    Costs in units of 2 n^2: QR about 2 d, distances d / 2 and each draw d before; n in place of d afterwards.
    """
    n, d = x.shape
    if d <= n or 2 * d + n * (0.5 + products) >= d * (0.5 + products):
        return x
    wide = jax.numpy.asarray(x, jax.numpy.float64 if precision == "float64" else jax.numpy.float32)
    return jax.numpy.linalg.qr((wide - wide[:1]).T, mode="r").T


def _estimates(sums: np.ndarray, labels: np.ndarray, block: np.ndarray, *, labelled: bool) -> dict[str, Any]:
    """Turn sums [pair, s, sign, total | own, n, blocks] into values, standard errors and jackknife errors [s]."""
    n, blocks = sums.shape[-2:]
    counts = np.bincount(labels)
    whole = sums.sum(axis=-1)
    within = np.log(whole / np.stack([np.full(n, n), counts[labels]])).mean(axis=2)  # [pair, s, total | own, n]
    deleted = np.empty((blocks, *within.shape[1:3]))
    for b in range(blocks):
        keep = block != b
        size = np.stack([np.full(n, keep.sum()), np.bincount(labels[keep], minlength=len(counts))[labels]])
        rest = (whole - sums[..., b])[..., keep]
        deleted[b] = np.log(rest / size[:, keep]).mean(axis=(0, 2, 4))
    fields: dict[str, Any] = {}
    for name, sample, left_out in (
        ("i_tx", -within[:, :, 0], -deleted[:, :, 0]),
        ("i_ty", within[:, :, 1] - within[:, :, 0], deleted[:, :, 1] - deleted[:, :, 0]),
    ):
        known = name == "i_tx" or labelled
        jackknife = np.sqrt((blocks - 1) / blocks * ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0))
        fields[name] = sample.mean(axis=(0, 2)) if known else None
        fields[f"{name}_stderr"] = _stderr(sample) if known else None
        fields[f"{name}_sampling_error"] = jackknife if known else None
    fields["saturation"] = fields["i_tx"] / math.log(n)
    fields["saturated"] = fields["saturation"] > 0.95
    return fields


def _stderr(sample: np.ndarray) -> np.ndarray:
    """Standard error [s] of the mean of sample [pair, s, n]: within rows; over all rows when there is one pair."""
    pairs, _, n = sample.shape
    if pairs == 1:
        return sample[0].std(axis=-1, ddof=1) / math.sqrt(n)
    return np.sqrt(sample.var(axis=0, ddof=1).mean(axis=-1) / (n * pairs))
