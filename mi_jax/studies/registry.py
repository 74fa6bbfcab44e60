"""What a study of a trained network is, and the registry that finds all of them.

A study is a package in `mi_jax.studies` that registers itself when it is imported; nothing else names it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from mi_jax.attacks import PGD
from mi_jax.data import Dataset
from mi_jax.errors import InputError
from mi_jax.measure.information import InformationConfig
from mi_jax.models import Network
from mi_jax.plotting.figures import FigureSpec
from mi_jax.records.table import Record
from mi_jax.registry import Registry
from mi_jax.typing import Key, Variables

WhichCheckpoints = Literal["last", "measured"]
"""Which networks of a training are studied: the finished one, or that of every epoch at which the run measured."""


@dataclass(frozen=True, eq=False)
class StudyInput:
    """A trained network and what a study may use.

    Attributes:
        network: its description.
        variables: its variables.
        dataset: the data set that it was trained on.
        attack: the run's attack, which makes adversarial examples.
        samples: how many test images the study should use.
        key: the same for every training of a seed, so that compared networks get the same random numbers.
        information: how the run measured information: its sample size and noise rules.
        baseline: loads the variables of the training with which the run compares its others (NT, or its first one
            without NT), of the same seed and epoch; None for that training itself, and where there is nothing to
            compare with.
        untrained: loads the variables from which all trainings of the seed started, or None.
        test_sets: by name, loads further data sets whose test images are used; for studies that take any.
        autoattacked: on how many test images the run's evaluation measured this network under AutoAttack `standard` of
            at least the default budget; 0 if it did not.
    """

    network: Network
    variables: Variables
    dataset: Dataset
    attack: PGD
    samples: int
    key: Key
    information: InformationConfig = InformationConfig()
    baseline: Callable[[], Variables | None] = lambda: None
    untrained: Callable[[], Variables | None] = lambda: None
    test_sets: Mapping[str, Callable[[], Dataset]] = field(default_factory=dict)
    autoattacked: int = 0


@dataclass(frozen=True, eq=False)
class StudyResult:
    """The result of a study of one network.

    Attributes:
        records: without the columns that identify run, training and checkpoint.
        arrays: by name, for the study's figures; those of finished networks are stored as `<study>.npz` in the run
            directory, under `<name>.<training>.<seed>`.
    """

    records: list[Record]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """A study by name.

    Attributes:
        name: as given on the command line.
        title: what it measures, in words.
        measure: the measurement; it changes nothing and needs no other study.
        figures: drawn in a report from the records and arrays of the study.
        unsupported_reason: why the study does not apply to a data set, or None where it does.
        which_checkpoints: networks that are studied by default.
        part_of: name of the study that includes this one; None for most.
        uses_test_sets: whether it takes further test sets.
    """

    name: str
    title: str
    measure: Callable[[StudyInput], StudyResult]
    figures: tuple[FigureSpec, ...] = ()
    unsupported_reason: Callable[[Dataset], str | None] = lambda dataset: None
    which_checkpoints: WhichCheckpoints = "last"
    part_of: str | None = None
    uses_test_sets: bool = False


STUDIES: Registry[Study] = Registry("study", package="mi_jax.studies")
"""Every study by name, in alphabetical order of their packages."""


def register(study: Study, *, aliases: tuple[str, ...] = ()) -> Study:
    """Adds a study and returns it.

    Args:
        study: to be found by its `name`.
        aliases: other names of it.

    Raises:
        ValueError: when the name or an alias is taken.
    """
    return STUDIES.register(study.name, study, aliases=aliases, defined_by=study.measure)


def find(name: str) -> Study:
    """The study of that name or alias.

    Args:
        name: one of `STUDIES`, or an alias.

    Raises:
        InputError: when there is none.
    """
    return STUDIES.get_or_explain(name)


def refuse_test_sets(name: str, test_sets: Collection[str]) -> None:
    """Raises `InputError` for test sets of a study that takes none, and where there is no such study.

    Args:
        name: name of the study.
        test_sets: names of further data sets.
    """
    if not find(name).uses_test_sets and test_sets:
        takers = [study.name for study in STUDIES.values() if study.uses_test_sets]
        raise InputError(f"The study {name} takes no test_sets; leave them out, or run {', '.join(takers)}.")


def find_for(dataset: Dataset, names: Sequence[str]) -> tuple[Study, ...]:
    """The studies of these names; `all` is each that applies to a data set.

    `all` leaves out AutoAttack, which is part of a run's evaluation, and studies that are part of another.

    Args:
        dataset: what they would be run on.
        names: names of studies, or `all`.

    Raises:
        InputError: when there is no such study, or it does not apply.
    """
    if "all" in names:
        whole = (s for s in STUDIES.values() if s.name != "autoattack" and s.part_of is None)
        return tuple(s for s in whole if not s.unsupported_reason(dataset))
    chosen = tuple(find(name) for name in names)
    for study in chosen:
        reason = study.unsupported_reason(dataset)
        if reason:
            raise InputError(f"The study {study.name} does not apply to {dataset.name}: {reason}.")
    return chosen
