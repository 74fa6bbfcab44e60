"""What information do normally and adversarially trained CNNs take from an image, and is it shape or texture?

`import mi_jax as mj` gives `mj.run` and `mj.study`, which do a complete experiment or one study, and the modules behind
them: `mj.data`, `mj.models`, `mj.attacks`, `mj.information`, `mj.distortions`, `mj.attribution`, `mj.training`,
`mj.studies`, `mj.report`, `mj.checkpoints`, `mj.records` and `mj.errors`. Each is imported when it is first used, so
that an engine used alone does not pay for the others.

A module imports only from layers below its own: `cli` > `cue_strength_sweep`, `information.benchmark` > `runs` >
`report` > `studies` > `measure` > `training`, `claims` > `data`, `models`, `attacks`, `information`, `plotting` >
`records`, `statistics` > the single modules.
"""

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

    from mi_jax import (
        attacks,
        attribution,
        data,
        distortions,
        errors,
        information,
        models,
        records,
        report,
        studies,
        training,
    )
    from mi_jax.runs import restore as checkpoints

__version__ = "0.1.0"
__all__ = [
    "attacks",
    "attribution",
    "checkpoints",
    "data",
    "distortions",
    "errors",
    "information",
    "models",
    "records",
    "report",
    "run",
    "studies",
    "study",
    "training",
]

_ELSEWHERE = {"checkpoints": "mi_jax.runs.restore"}


def run(
    *,
    arch: str = "vgg",
    dataset: str = "shapetex",
    preset: str = "quick",
    training: str | Sequence[str] = ("nt", "at"),
    run_dir: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    tensorboard: bool = False,
    **options: Any,
) -> "pandas.DataFrame":
    """Trains, measures and reports as `mi-jax run` does, or resumes a run, and returns its records.

    Args:
        arch: architecture, one of `mj.models.ARCHITECTURES`.
        dataset: `shapetex`, `digits`, `folder:PATH`, or a TFDS image-classification set.
        preset: `quick` (minutes on a laptop) or `paper`; the defaults of everything in `options`.
        training: the objectives to compare.
        run_dir: where everything is written; `runs/<dataset>-<arch>` by default.
        data_dir: where TFDS data sets are; by default, where TFDS stores them.
        overwrite: deletes an earlier run in `run_dir`.
        quiet: prints nothing while it works.
        tensorboard: mirrors the records to TensorBoard, in `run_dir/tensorboard`; needs tensorboardX.
        **options: any other field of `mi_jax.runs.config.RunConfig`, such as `epochs=2` or `attack=mj.attacks.PGD()`.

    Returns:
        The records, one row a number, as `mj.records.load(run_dir)` reads them.

    Raises:
        InputError: an option that does not exist, or a value that cannot be used.

    Examples:
        >>> import mi_jax as mj
        >>> rows = mj.run(arch="mlp", dataset="digits", seeds=1, epochs=1, run_dir="runs/first")  # doctest: +SKIP
        >>> rows[(rows.quantity == "accuracy") & (rows.inputs == "adversarial")]  # doctest: +SKIP
    """
    from mi_jax.runs.interface import run_from_options

    return run_from_options(
        arch=arch, dataset=dataset, preset=preset, training=training, run_dir=run_dir, data_dir=data_dir,
        overwrite=overwrite, quiet=quiet, tensorboard=tensorboard, options=options,
    )  # fmt: skip


def study(
    name: str,
    network: Any,
    variables: Any,
    dataset: Any,
    *,
    samples: int = 500,
    attack: Any = None,
    key: Any = None,
    baseline: Callable[[], Any] = lambda: None,
    untrained: Callable[[], Any] = lambda: None,
    test_sets: Mapping[str, Any] | None = None,
) -> "pandas.DataFrame":
    """Runs one study on one trained network, and returns what it measured.

    Args:
        name: one of `mj.studies.STUDIES`.
        network: from `mj.models.create`, `mj.checkpoints.restore(...)` or `mj.models.from_torch`; or anything that
            `mj.models.from_function` takes, such as a Flax model.
        variables: its nested dict of arrays, or what that function takes.
        dataset: an `mj.data.Dataset`, whose test images are used.
        samples: how many of them.
        attack: makes the adversarial examples; PGD of Linf radius 8/255 by default.
        key: random key for every random draw, or a seed; `jax.random.key(0)` by default.
        baseline: loads the variables of a network to compare with, or None.
        untrained: loads the variables before training, or None.
        test_sets: for `corruptions`, data sets by name, such as `{"fog_3": mj.data.load("npz:fog_3.npz")}`.

    Returns:
        The records, one row a number, without the columns that are empty.

    Raises:
        InputError: when there is no such study or it does not apply to the data set.

    Examples:
        >>> import jax, mi_jax as mj
        >>> dataset = mj.data.load("digits", limit=100)
        >>> network = mj.models.create("mlp", num_classes=10, input_shape=(8, 8, 1))
        >>> rows = mj.study("confusion", network, network.init(jax.random.key(0)), dataset, samples=50)
        >>> sorted(rows.inputs.unique())
        ['adversarial', 'clean']
    """
    from mi_jax.runs.interface import study_of_network

    return study_of_network(
        name, network, variables, dataset, samples=samples, attack=attack, key=key, baseline=baseline,
        untrained=untrained, test_sets=test_sets or {},
    )  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(_ELSEWHERE.get(name, f"mi_jax.{name}"))
    raise AttributeError(f"module 'mi_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
