"""Where an AutoAttack evaluation stands, and what it found: plain host arrays that can be saved and given back.

Knows no attack. The fingerprint ties a state to its images, labels and plan.
"""

import dataclasses
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from mi_jax.errors import InputError
from mi_jax.files import replacing

ROBUST, CLEAN_ERROR = -1, -2


@dataclasses.dataclass(frozen=True)
class StageReport:
    """Numbers of one attack: images it was given, those it broke, what of the data is still robust, and its time.

    `unconfirmed` counts images that the attack thought broken but that a fresh forward pass classified correctly.
    """

    name: str
    attacked: int
    broken: int
    unconfirmed: int
    robust_accuracy: float
    seconds: float


@dataclasses.dataclass
class EvaluationState:
    """Everything an interrupted evaluation needs to go on to the result that it would have had.

    images [n h w c]: adversarial where broken, else clean; broken_by [n]: index of the stage that broke an image,
    ROBUST or CLEAN_ERROR; stage: the one under way; done [n]: images which that stage has dealt with.
    """

    fingerprint: str
    images: np.ndarray
    broken_by: np.ndarray
    done: np.ndarray
    stage: int = 0
    seconds: float = 0.0
    unconfirmed: int = 0
    reports: list[StageReport] = dataclasses.field(default_factory=list)

    def save(self, path: str | Path) -> None:
        """Write the state to an .npz file in one step: a reader sees the old file or the new one."""
        about = {
            "fingerprint": self.fingerprint,
            "stage": self.stage,
            "seconds": self.seconds,
            "unconfirmed": self.unconfirmed,
            "reports": [dataclasses.asdict(report) for report in self.reports],
        }
        with replacing(Path(path)) as file:
            np.savez(
                file, images=self.images, broken_by=self.broken_by, done=self.done, about=np.array(json.dumps(about))
            )

    @classmethod
    def load(cls, path: str | Path) -> "EvaluationState":
        """Read a state that `save` wrote. Raises `InputError` if the file is no such state."""
        try:
            with np.load(Path(path), allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                reports = [StageReport(**report) for report in about.pop("reports")]
                arrays = {name: file[name] for name in ("images", "broken_by", "done")}
            return cls(**arrays, **about, reports=reports)
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} holds no state of an evaluation ({error}); start without it.") from None


def fingerprint(*parts: Any) -> str:
    """SHA-256 over arrays (dtype, shape, bytes) and the text of everything else."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()
