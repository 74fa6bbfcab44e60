"""What a study of a trained network is, and the list of them. Adding one is one file and one line here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from mi_jax.attacks import PGD
from mi_jax.data import Dataset
from mi_jax.errors import InputError
from mi_jax.models import Network
from mi_jax.storage.records import Record
from mi_jax.typing import Key, Variables


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained network and what a study may use.

    Attributes:
        network: its description.
        variables: its variables.
        dataset: what it was trained on.
        attack: the attack of the run, which makes adversarial twins.
        samples: how many test images a study should look at.
        key: the same for every training of a seed, so that compared networks meet the same random draws.
    """

    network: Network
    variables: Variables
    dataset: Dataset
    attack: PGD
    samples: int
    key: Key


@dataclass(frozen=True, eq=False)
class Findings:
    """What a study found: records without the columns that name run and moment, and arrays for its figure.

    The arrays are kept as `<study>.npz` in the run directory under `<name>.<training>.<seed>`.
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
    """

    name: str
    title: str
    run: Callable[[Subject], Findings]
    refusal: Callable[[Dataset], str | None] = lambda dataset: None


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
