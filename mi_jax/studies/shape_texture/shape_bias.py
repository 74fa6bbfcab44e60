"""Which cue a network's answers follow: shape bias on conflict images, and accuracy with one cue taken away.

It counts answers; it neither attacks nor looks into the network.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from mi_jax.records.table import Record
from mi_jax.statistics.intervals import wilson

_Z = float(stats.norm.ppf(0.975))


class Choices(NamedTuple):
    """Answers on images whose shape and texture belong to different classes.

    shape, texture: answers that name the shape's, the texture's class. n: images.
    """

    shape: int
    texture: int
    n: int

    @property
    def bias(self) -> float:
        """Shape bias, shape / (shape + texture) (Geirhos et al. 2019); NaN if no answer names either cue."""
        decided = self.shape + self.texture
        return self.shape / decided if decided else math.nan

    @property
    def coverage(self) -> float:
        """Share of the images whose answer names one of the two cues."""
        return (self.shape + self.texture) / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % score interval of the bias; (0, 1) if no answer names either cue."""
        decided = self.shape + self.texture
        return wilson(self.bias, decided) if decided else (0.0, 1.0)


def count_choices(answers: np.ndarray, shape: np.ndarray, texture: np.ndarray) -> Choices:
    """Counts the answers on conflict images.

    Args:
        answers: predicted class, int `[n]`.
        shape, texture: the class of each cue, int `[n]`, different from one another in every image.

    Examples:
        >>> count_choices(np.array([0, 1, 2, 3]), np.array([0, 1, 0, 0]), np.array([1, 0, 2, 1]))
        Choices(shape=2, texture=1, n=4)
    """
    answers = np.asarray(answers)
    return Choices(int(np.sum(answers == shape)), int(np.sum(answers == texture)), len(answers))


def bias_records(
    answers: np.ndarray,
    factors: Mapping[str, np.ndarray],
    *,
    class_names: Mapping[str, Sequence[str]],
    **columns: Any,
) -> list[Record]:
    """Shape bias, its 95 % Wilson interval and its coverage: of all conflict images, and by class of either cue.

    Quantities `shape_bias` (its standard error is half the Wilson interval over 1.96), `shape_bias_low`,
    `shape_bias_high`, `cue_coverage`; subset `conflict`, or for instance `conflict,shape=3`.

    Args:
        answers: predicted class, int `[n]`.
        factors: `shape` and `texture`, int `[n]`.
        class_names: of the values of the two factors.
        columns: of every record, `inputs` above all.
    """
    records = _bias(answers, factors, np.ones(len(answers), bool), {**columns, "subset": "conflict"})
    for cue in ("shape", "texture"):
        for k in np.unique(factors[cue]):
            where = {**columns, "subset": f"conflict,{cue}={k}", "note": class_names[cue][k]}
            records += _bias(answers, factors, factors[cue] == k, where)
    return records


def _bias(
    answers: np.ndarray, factors: Mapping[str, np.ndarray], rows: np.ndarray, columns: dict[str, Any]
) -> list[Record]:
    found = count_choices(answers[rows], factors["shape"][rows], factors["texture"][rows])
    share = np.sqrt(found.coverage * (1 - found.coverage) / found.n)
    coverage = Record(quantity="cue_coverage", value=found.coverage, stderr=share, unit="1", n=found.n, **columns)
    decided = found.shape + found.texture
    if not decided:
        reason = "no answer names the class of either cue"
        return [Record(quantity="shape_bias", value=None, ok=False, **{**columns, "note": reason, "n": 0}), coverage]
    low, high = found.interval
    columns = {**columns, "unit": "1"}
    return [
        Record(quantity="shape_bias", value=found.bias, stderr=(high - low) / 2 / _Z, n=decided, **columns),
        Record(quantity="shape_bias_low", value=low, n=decided, **columns),
        Record(quantity="shape_bias_high", value=high, n=decided, **columns),
        coverage,
    ]


def suppression_records(
    shape_alone: np.ndarray, texture_alone: np.ndarray, labels: np.ndarray, **columns: Any
) -> list[Record]:
    """Accuracy with one cue alone, and the suppression gap: accuracy without texture minus accuracy without shape.

    Positive where the network can do without texture but not without shape. Its standard error is of the paired
    difference, as both sets are the same images otherwise.

    Args:
        shape_alone, texture_alone: predicted class of the texture-suppressed and of the shape-suppressed images, `[n]`.
        labels: int `[n]`, of both.
        columns: of every record.
    """
    kept, lost = (np.asarray(answers == labels, float) for answers in (shape_alone, texture_alone))
    gap = kept - lost
    n = len(labels)
    columns = {**columns, "unit": "1", "n": n}
    records = [
        Record(
            quantity="accuracy",
            value=right.mean(),
            stderr=math.sqrt(right.mean() * (1 - right.mean()) / n),
            subset=subset,
            **columns,
        )
        for subset, right in (("texture_suppressed", kept), ("shape_suppressed", lost))
    ]
    error = gap.std(ddof=1) / math.sqrt(n)
    return [
        *records,
        Record(quantity="suppression_gap", value=gap.mean(), stderr=error, subset="suppressed", **columns),
    ]
