"""What a study of a trained network is, and the list of them. Adding one is one file and one line here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from mi_jax.attacks import PGD
from mi_jax.data import Dataset
from mi_jax.errors import InputError
from mi_jax.measure.information import InformationConfig
from mi_jax.models import Network
from mi_jax.records.table import Record
from mi_jax.typing import Key, Variables

WhichCheckpoints = Literal["last", "measured"]
"""Which networks of a training are studied: the finished one, or that of every epoch at which a run measured."""


@dataclass(frozen=True, eq=False)
class StudyInput:
    """A trained network and what a study may use.

    Attributes:
        network: its description.
        variables: its variables.
        dataset: what it was trained on.
        attack: the attack of the run, which makes adversarial examples.
        samples: how many test images a study should look at.
        key: the same for every training of a seed, so that compared networks meet the same random draws.
        probe: what the run measured: on how many images, and under which fixed noise variance.
        baseline: loads the variables of the run's first training, of the same seed and epoch; None for that training
            itself, and where there is nothing to compare with.
        untrained: loads the variables that all trainings of the seed started from, or None.
    """

    network: Network
    variables: Variables
    dataset: Dataset
    attack: PGD
    samples: int
    key: Key
    probe: InformationConfig = InformationConfig()
    baseline: Callable[[], Variables | None] = lambda: None
    untrained: Callable[[], Variables | None] = lambda: None


@dataclass(frozen=True, eq=False)
class StudyResult:
    """What a study found: records without the columns that name run and moment, and arrays for its figure.

    The arrays of finished networks are kept as `<study>.npz` in the run directory, `<name>.<training>.<seed>`.
    """

    records: list[Record]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """A study by name.

    Attributes:
        name: what `experiments/study.py` takes.
        title: what it asks, in words.
        run: from a subject to findings; changes nothing and needs no other study.
        refusal: why it does not apply to a data set, or None where it does.
        moments: which networks it looks at unless told otherwise.
        part_of: the study that finds all this, too; None for most.
    """

    name: str
    title: str
    run: Callable[[StudyInput], StudyResult]
    unsupported_reason: Callable[[Dataset], str | None] = lambda dataset: None
    which_checkpoints: WhichCheckpoints = "last"
    part_of: str | None = None


STUDIES: dict[str, Study] = {}
"""Every study, by name."""


def register(study: Study) -> Study:
    """Adds a study; a module does this for its own when it is imported by `mi_jax.studies`."""
    if study.name in STUDIES:
        raise ValueError(f"two studies are called {study.name}")
    STUDIES[study.name] = study
    return study


def find(name: str) -> Study:
    """The study of that name.

    Raises:
        InputError: when there is none.
    """
    if name not in STUDIES:
        raise InputError(f"There is no study {name!r}; choose from {', '.join(STUDIES)}.")
    return STUDIES[name]


def find_for(dataset: Dataset, names: Sequence[str]) -> tuple[Study, ...]:
    """The studies of these names; `all` is each that applies to a data set.

    AutoAttack is not among `all`, as a run judges by it in its own right, nor is what is part of another study.

    Raises:
        InputError: when there is no such study, or it does not apply.
    """
    if "all" in names:
        whole = (s for s in STUDIES.values() if s.name != "autoattack" and s.part_of is None)
        return tuple(s for s in whole if not s.unsupported_reason(dataset))
    chosen = tuple(find(name) for name in names)
    for study in chosen:
        unsupported_reason = study.unsupported_reason(dataset)
        if unsupported_reason:
            raise InputError(f"The study {study.name} does not apply to {dataset.name}: {unsupported_reason}.")
    return chosen
