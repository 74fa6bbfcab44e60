"""The saved state of an AutoAttack evaluation, with a fingerprint of the images, labels, variables and attacks."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from mi_jax.errors import InputError
from mi_jax.files import read_arrays, replacing

ROBUST, CLEAN_ERROR = -1, -2
_ARRAYS = ("broken_by", "done", "faults", "clean")


class OtherEvaluation(InputError):
    """A saved state belongs to another evaluation than the one that it should resume."""


@dataclasses.dataclass(frozen=True)
class StageReport:
    """Outcome of one attack of an evaluation.

    Attributes:
        name: name of the attack.
        attacked: images that were still robust before it.
        broken: images that it broke.
        unconfirmed: images that it found misclassified but that a second forward pass classified correctly.
        robust_accuracy: after it.
        seconds: wall-clock time.
        warnings: what makes its outcome doubtful.
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

    Attributes:
        fingerprint: fingerprint of the images, labels, variables, arrays that the model closes over, key and attacks.
        adversarial: {index: image [h w c]} of the images that are broken.
        broken_by: [n], index of the stage that broke an image, `ROBUST` or `CLEAN_ERROR`.
        done: [n], images that the current stage has attacked.
        faults: [2, n], shares of the current stage's steps with a zero and with a non-finite gradient.
        clean: [n k], logits of the clean images, by which another model is recognised.
        stage: index of the current stage.
        seconds: wall-clock time of the current stage so far.
        unconfirmed: as in `StageReport`, for the current stage so far.
        reports: reports of the finished stages.
    """

    fingerprint: str
    adversarial: dict[int, np.ndarray]
    broken_by: np.ndarray
    done: np.ndarray
    faults: np.ndarray
    clean: np.ndarray
    stage: int = 0
    seconds: float = 0.0
    unconfirmed: int = 0
    reports: list[StageReport] = dataclasses.field(default_factory=list)

    @classmethod
    def begin(cls, fingerprint: str, broken_by: np.ndarray, clean: np.ndarray) -> "EvaluationState":
        """The state before the first stage."""
        count = len(broken_by)
        return cls(fingerprint, {}, broken_by, np.zeros(count, bool), np.zeros((2, count)), clean)

    def next_stage(self, report: StageReport) -> None:
        """Adds the report of the current stage and continues with the next.

        In one call, between whose parts no exception of a signal is raised: an interruption leaves either stage whole.
        """
        first = self.begin(self.fingerprint, self.broken_by, self.clean)
        vars(self).update(
            reports=[*self.reports[: self.stage], report],
            stage=self.stage + 1,
            seconds=first.seconds,
            unconfirmed=first.unconfirmed,
            done=first.done,
            faults=first.faults,
        )

    def save(self, path: str | Path) -> None:
        """Writes the state to an .npz file, replacing an old one atomically."""
        about = {
            "fingerprint": self.fingerprint,
            "stage": self.stage,
            "seconds": self.seconds,
            "unconfirmed": self.unconfirmed,
            "reports": [dataclasses.asdict(report) for report in self.reports],
        }
        with replacing(Path(path)) as file:
            arrays = {name: getattr(self, name) for name in _ARRAYS}
            arrays |= {"index": np.array(list(self.adversarial), int), "images": np.array([*self.adversarial.values()])}
            np.savez(file, **arrays, about=np.array(json.dumps(about)))

    @classmethod
    def load(cls, path: str | Path) -> "EvaluationState":
        """Reads a state that `save` wrote. Raises `InputError` for any other file."""
        try:
            found = read_arrays(Path(path))
            about = json.loads(str(found["about"]))
            reports = [
                StageReport(**report | {"warnings": tuple(report["warnings"])}) for report in about.pop("reports")
            ]
            arrays: dict[str, Any] = {name: found[name] for name in _ARRAYS}
            arrays["adversarial"] = dict(zip(found["index"].tolist(), found["images"], strict=True))
            return cls(**arrays, **about, reports=reports)
        except (InputError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not the saved state of an evaluation ({error}); start without it.") from None


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
