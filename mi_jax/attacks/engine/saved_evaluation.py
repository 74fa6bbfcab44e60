"""The saved state of an AutoAttack evaluation: host arrays, tied by a fingerprint to images, labels and plan."""

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
_ARRAYS = ("images", "broken_by", "done", "faults")


@dataclasses.dataclass(frozen=True)
class StageReport:
    """Numbers of one attack: images attacked, images broken, the robust accuracy after it, its time, and doubts.

    `unconfirmed` counts images that the attack found misclassified but that a second forward pass classified correctly.
    """

    name: str
    attacked: int
    broken: int
    unconfirmed: int
    robust_accuracy: float
    seconds: float
    warnings: tuple[str, ...] = ()


@dataclasses.dataclass
class EvaluationState:
    """Everything that an interrupted evaluation needs to be resumed to the same result.

    images [n h w c]: adversarial where broken, else clean; broken_by [n]: index of the stage that broke an image,
    ROBUST or CLEAN_ERROR; stage: the current one; done [n]: images which that stage has dealt with; faults [2, n]:
    shares of its steps with a zero and with a non-finite gradient.
    """

    fingerprint: str
    images: np.ndarray
    broken_by: np.ndarray
    done: np.ndarray
    faults: np.ndarray
    stage: int = 0
    seconds: float = 0.0
    unconfirmed: int = 0
    reports: list[StageReport] = dataclasses.field(default_factory=list)

    @classmethod
    def begin(cls, fingerprint: str, images: np.ndarray, broken_by: np.ndarray) -> "EvaluationState":
        """The state before the first stage."""
        count = len(images)
        return cls(fingerprint, images.copy(), broken_by, np.zeros(count, bool), np.zeros((2, count)))

    def save(self, path: str | Path) -> None:
        """Writes the state to an .npz file in one step: a reader sees the old file or the new one."""
        about = {
            "fingerprint": self.fingerprint,
            "stage": self.stage,
            "seconds": self.seconds,
            "unconfirmed": self.unconfirmed,
            "reports": [dataclasses.asdict(report) for report in self.reports],
        }
        with replacing(Path(path)) as file:
            arrays = {name: getattr(self, name) for name in _ARRAYS}
            np.savez(file, **arrays, about=np.array(json.dumps(about)))

    @classmethod
    def load(cls, path: str | Path) -> "EvaluationState":
        """Reads a state that `save` wrote. Raises `InputError` for any other file."""
        try:
            with np.load(Path(path), allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                reports = [
                    StageReport(**report | {"warnings": tuple(report["warnings"])}) for report in about.pop("reports")
                ]
                arrays = {name: file[name] for name in _ARRAYS}
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
