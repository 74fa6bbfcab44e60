"""Information of every layer from saved activations of any framework, as one table."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mi_jax import checks
from mi_jax.errors import InputError
from mi_jax.information._input import as_array, as_variance
from mi_jax.information.kde import kde
from mi_jax.information.noise import noise_variance as variance_by_rule

if TYPE_CHECKING:
    import pandas

_COLUMNS = ("i_tx_lower", "i_tx_upper", "i_ty_lower", "i_ty_upper", "i_ty_certified_lower", "i_ty_certified_upper")


def measure_layers(
    activations: Any,
    labels: Any = None,
    *,
    noise_rule: str = "trace",
    noise_variance: float | None = None,
    num_classes: int | None = None,
    samples: int | None = None,
    unit: Literal["bits", "nats"] = "bits",
) -> "pandas.DataFrame":
    """KDE bounds on I(X;T) and I(T;Y) for every layer of a network, from its activations.

    `i_ty_lower` and `i_ty_upper`, usual in the literature, are estimates; the `certified` columns are bounds.

    Layers are read and measured one after the other, so that files larger than the memory will do with `samples`.

    Args:
        activations: layer name to activations `[n ...]`: arrays or tensors of any framework and float dtype, memory
            maps, or paths of `.npy` files; or the path of a folder of `.npy` files or of an `.npz` archive, whose names
            are the layers; or one such array.
        labels: int `[n]` in 0..num_classes-1, an array, a tensor or the path of a `.npy` file; None for I(X;T) only.
        noise_rule: how the noise variance of a layer is chosen from its activations, see `noise_variance`.
        noise_variance: one variance for all layers, in place of the rule. Use it to compare networks or epochs.
        num_classes: number of classes; by default the largest label plus one.
        samples: rows to use, the same for every layer: a fixed draw without replacement; None for all.
        unit: unit of the information, `bits` or `nats`.

    Returns:
        One row a layer in the order given (files by name), with the columns of `KDE`: `i_tx_lower`, `i_tx_upper` and,
        with labels, `i_ty_lower`, `i_ty_upper`, `i_ty_certified_lower`, `i_ty_certified_upper`; `saturated`,
        `undersampled`, `noise_variance`, `n` and the number of `features`.

    Raises:
        InputError: for no layers, two of one name, a file that cannot be read, layers of different lengths, and what
            `kde` refuses; it names the layer.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> labels = np.arange(60) % 3
        >>> layers = {"conv1": rng.normal(size=(60, 4, 2, 2)), "logits": np.eye(3)[labels] + 1e-3}
        >>> table = measure_layers(layers, labels, noise_variance=0.01)
        >>> table.loc["logits", "i_ty_certified_upper"].round(3), table.features.to_dict()
        (np.float64(1.585), {'conv1': 16, 'logits': 3})
    """
    import pandas as pd  # here, as it is slow to import

    checks.one_of("unit", unit, ("bits", "nats"))
    if samples is not None:
        checks.count("samples", samples, 2)
    y = None if labels is None else np.atleast_1d(_opened(labels, "labels"))
    rows: dict[str, dict[str, Any]] = {}
    first = None
    for layer, given in _layers(activations):
        if layer in rows:
            raise InputError(f"Two layers are named {layer!r}; give each its own name.")
        t = _opened(given, layer)
        if t.ndim < 1 or len(t) < 2:
            raise InputError(f"{layer} has shape {tuple(t.shape)}; at least two samples on the first axis are needed.")
        first = first or (layer, len(t))
        for name, other in ((first[0], first[1]), ("labels", len(t) if y is None else len(y))):
            if len(t) != other:
                raise InputError(f"{layer} has {len(t)} rows and {name} {other}; give the same images for all.")
        chosen = _chosen(len(t), samples)
        rows[layer] = _measured(layer, t[chosen], None if y is None else y[chosen], noise_rule, noise_variance,
                                num_classes)  # fmt: skip
    if not rows:
        raise InputError("There are no activations; give at least one layer.")
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("layer")
    if unit == "bits":
        found = [column for column in _COLUMNS if column in table]
        table[found] = table[found] / np.log(2)
    return table


def _measured(layer, t, y, rule, variance, num_classes) -> dict[str, Any]:
    """The row of one layer, in nats."""
    variance = variance_by_rule(t, rule=rule, layer=layer) if variance is None else as_variance(variance)
    try:
        found = kde(t, y, noise_variance=variance, num_classes=num_classes, layer=layer)
    except InputError as error:
        named = str(error).startswith(f"{layer} ")
        raise InputError(str(error) if named else f"{layer}: {error}") from None
    row = {name: float(value) for name in _COLUMNS if (value := getattr(found, name)) is not None}
    return row | {
        "saturated": bool(found.saturated),
        "undersampled": bool(found.undersampled),
        "noise_variance": variance,
        "n": len(t),
        "features": int(np.prod(t.shape[1:])),
    }


def _layers(activations: Any) -> Iterator[tuple[str, Any]]:
    """Layers by name, each still to be opened."""
    if isinstance(activations, str | Path):
        with _reading(activations):
            path = Path(activations).expanduser()
        if path.is_dir():
            yield from ((file.stem, file) for file in sorted(path.glob("*.npy")))
        elif path.suffix == ".npz":
            with _reading(path), np.load(path, allow_pickle=False) as archive:
                yield from archive.items()
        else:
            yield path.stem, path
    elif isinstance(activations, Mapping):
        yield from ((str(name), given) for name, given in activations.items())
    else:
        yield "activations", activations


def _opened(given: Any, name: str) -> Any:
    """An array; a memory map where a path is given."""
    if not isinstance(given, str | Path):
        return as_array(given, name)
    with _reading(given):
        found = np.load(Path(given).expanduser(), mmap_mode="r", allow_pickle=False)
    if not isinstance(found, np.ndarray):
        raise InputError(f"{given} is an archive of arrays; give the path of one array, saved with np.save.")
    return found


@contextlib.contextmanager
def _reading(path: str | Path) -> Iterator[None]:
    """Raises InputError for a file that NumPy cannot read."""
    try:
        yield
    except Exception as error:  # no such file or user, pickled objects, a damaged member, another format: several kinds
        raise InputError(f"{path} cannot be read as NumPy arrays; save them with np.save or np.savez.") from error


def _chosen(n: int, samples: int | None) -> Any:
    if samples is None or samples >= n:
        return slice(None)
    return np.sort(np.random.default_rng(0).permutation(n)[:samples])
