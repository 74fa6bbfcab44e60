"""Runs and studies from Python: keyword options in, records as a table out."""

import contextlib
import dataclasses
import difflib
import functools
import io
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi_jax import checks, models, records
from mi_jax.attacks import PGD
from mi_jax.data import Dataset
from mi_jax.errors import InputError
from mi_jax.options import split_commas
from mi_jax.runs import config as configuration
from mi_jax.runs.config import RunConfig

if TYPE_CHECKING:
    import pandas


def run_from_options(
    *,
    arch: str,
    dataset: str,
    preset: str,
    training: str | Sequence[str],
    run_dir: str | os.PathLike[str] | None,
    data_dir: str | os.PathLike[str] | None,
    overwrite: bool,
    quiet: bool,
    tensorboard: bool,
    options: Mapping[str, Any],
) -> "pandas.DataFrame":
    """What `mi_jax.run` does.

    Raises:
        InputError: an option that does not exist, or a value that cannot be used.
    """
    from rich.console import Console

    from mi_jax import runs
    from mi_jax.runs.progress import Reporter
    from mi_jax.runs.tensorboard import TensorBoard

    if preset not in ("quick", "paper"):
        raise InputError(f"preset is {preset!r}; choose quick or paper.")
    for name, text in (("arch", arch), ("dataset", dataset)):
        _of_kind(name, text, str, "a name")
    if not isinstance(training, str):
        _of_kind("training", training, list | tuple, "names, such as ('nt', 'at')")
        for objective in training:
            _of_kind("training", objective, str, "names, such as ('nt', 'at')")
    for name, folder in (("run_dir", run_dir), ("data_dir", data_dir)):
        if folder is not None:
            _of_kind(name, folder, str | os.PathLike, "the path of a folder")
            if "\0" in os.fspath(folder):
                raise InputError(f"Invalid {name} {folder!r}: expected the path of a folder, without a null character.")
    for name, switch in (("overwrite", overwrite), ("quiet", quiet), ("tensorboard", tensorboard)):
        checks.flag(name, switch)
    config = _configured(configuration.preset(preset, dataset=dataset, arch=arch, trainings=_listed(training)), options)
    directory = Path(run_dir) if run_dir is not None else default_directory(config)
    with contextlib.ExitStack() as stack:
        reporter = stack.enter_context(Reporter(Console(file=io.StringIO())) if quiet else Reporter())
        on_records = stack.enter_context(TensorBoard(directory / "tensorboard")) if tensorboard else lambda rows: None
        runs.run(
            config,
            run_dir=directory,
            data_dir=None if data_dir is None else os.fspath(data_dir),
            overwrite=overwrite,
            command=shlex.join(sys.argv),
            reporter=reporter,
            on_records=on_records,
        )
    return records.load(directory)


def study_of_network(
    name: str,
    network: Any,
    variables: Any,
    dataset: Dataset,
    *,
    samples: int,
    attack: Any,
    key: Any,
    baseline: Callable[[], Any],
    untrained: Callable[[], Any],
    test_sets: Mapping[str, Dataset],
) -> "pandas.DataFrame":
    """What `mi_jax.study` does.

    Raises:
        InputError: when there is no such study, it does not apply to the data set, there are no test images, or
            `samples` is below 1.
    """
    from mi_jax import studies

    checks.count("samples", samples)
    _of_kind("name", name, str, f"one of {', '.join(sorted(studies.STUDIES))}")
    if name == "all":
        raise InputError(f"Invalid name 'all': expected one study; choose from {', '.join(sorted(studies.STUDIES))}.")
    _of_kind("dataset", dataset, Dataset, "a data set of mi_jax.data.load or from_arrays")
    _of_kind("test_sets", test_sets, Mapping, "data sets by name, such as {'fog_3': mi_jax.data.load('npz:fog_3.npz')}")
    for test_set in test_sets.values():
        _of_kind("test_sets", test_set, Dataset, "data sets by name, such as those of mi_jax.data.load")
    for role, load in (("baseline", baseline), ("untrained", untrained)):
        if not callable(load):
            raise InputError(f"Invalid {role}: expected a function that loads variables, not {type(load).__name__}.")
    studies.refuse_test_sets(name, test_sets)
    if attack is not None and not isinstance(attack, PGD):
        raise InputError(f"attack must be mi_jax.attacks.PGD, not {type(attack).__name__}.")
    if attack is not None and (attack.restarts > 1 or attack.loss == "kl"):
        raise InputError(
            f"The attack has restarts={attack.restarts} and loss={attack.loss!r}: expected one run on another loss "
            "than 'kl', since a study attacks from the image itself."
        )
    for studied in (dataset, *test_sets.values()):
        if not len(studied.test):
            raise InputError(f"The test split of {studied.name} has no images; a study needs at least 1 test image.")
    (chosen,) = studies.find_for(dataset, (name,))
    if not isinstance(network, models.Network):
        network, variables = models.from_function(network, variables, input_shape=dataset.input_shape)
    if network.num_classes < dataset.num_classes:
        raise InputError(
            f"The network has {network.num_classes} logits, fewer than the {dataset.num_classes} classes of "
            f"{dataset.name}."
        )
    result = chosen.measure(
        studies.StudyInput(
            network=network,
            variables=variables,
            dataset=dataset,
            attack=attack or PGD(),
            samples=samples,
            key=checks.key(0 if key is None else key),
            baseline=baseline,
            untrained=untrained,
            test_sets={name: functools.partial(_same, test_set) for name, test_set in test_sets.items()},
        )
    )
    with tempfile.TemporaryDirectory() as folder:  # through the file, so that the types are those of a run
        records.append(folder, result.records)
        return records.load(folder).dropna(axis=1, how="all")


def _same(dataset: Dataset) -> Dataset:
    return dataset


def default_directory(config: RunConfig) -> Path:
    """The run directory of a configuration when none is given: `runs/<dataset>-<arch>`."""
    return Path("runs") / f"{config.dataset.replace('/', '_')}-{config.arch}"


def _listed(training: str | Sequence[str]) -> tuple[str, ...]:
    return split_commas(training) if isinstance(training, str) else tuple(training)


def _configured(defaults: RunConfig, options: Mapping[str, Any]) -> RunConfig:
    known = [field.name for field in dataclasses.fields(RunConfig)]
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise InputError(
                f"There is no option {name!r}; {f'did you mean {near[0]}?' if near else f'choose from {known}.'}"
            )
        default = getattr(defaults, name)
        if dataclasses.is_dataclass(default):
            kind = type(default)
            _of_kind(name, options[name], kind, f"{kind.__module__}.{kind.__name__}")
        elif name == "mesh":
            _of_kind(name, options[name], str, "auto, none, data=N, or seed=M,data=N")
        elif isinstance(default, tuple):
            _of_kind(name, options[name], list | tuple, "a tuple, which is empty for none")
            for part in options[name]:
                if name != "objective_options":
                    _of_kind(name, part, str, "names")
                elif not (isinstance(part, tuple) and len(part) == 2 and isinstance(part[0], str)):
                    raise InputError(f"Invalid {name} {part!r}: expected pairs such as ('smoothed.smoothing', 0.1).")
    return dataclasses.replace(defaults, **options)


def _of_kind(name: str, value: Any, kind: Any, expected: str) -> None:
    """Raises `InputError` unless the value is of the kind."""
    if not isinstance(value, kind):
        raise InputError(f"Invalid {name}: expected {expected}, not {type(value).__name__}.")
