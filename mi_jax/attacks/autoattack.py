"""AutoAttack (Croce and Hein 2020): attacks in turn, each on the images that withstood those before.

Driven from the host: rows of images, restarts and targets run in power-of-two buckets that shrink as images fall.
"""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mi_jax.attacks.autoattack_plan import Attack, Budget, plan, procedure_of
from mi_jax.attacks.engine.input_checks import accepts, check_batch, check_logits, check_model, known, logits_of
from mi_jax.attacks.engine.randomness import row_keys
from mi_jax.attacks.engine.run import BLOCK, Rows, evaluator, folds, ranked_targets, start_bits, step_bits
from mi_jax.attacks.engine.saved_evaluation import CLEAN_ERROR, ROBUST, EvaluationState, StageReport, fingerprint
from mi_jax.attacks.losses import at, best_other
from mi_jax.attacks.threat_model import length
from mi_jax.errors import InputError
from mi_jax.parallel import backend
from mi_jax.typing import Key, LogitsFn

SMALLEST_BUCKET = 16
MARKS = (0, 2, 5, 10, 20, 35, 55, 80, 120, 180)
"""Iterations between which broken images are dropped; beyond them at every block."""
WORTH_SHRINKING = 4
"""A bucket shrinks only by at least this factor, since every new size is compiled once for each attack."""
PIXEL_ROUNDING = 2**-24
"""Spacing of float32 just below 1: by as much may a pixel miss the ball's surface where an attack ends on it."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """What an evaluation reports as it goes: where it is, and the state that would let it go on from here.

    fraction: share of the present stage that is done; robust_accuracy: of the images so far.
    """

    stage: str
    stage_index: int
    stage_count: int
    fraction: float
    robust_accuracy: float
    seconds: float
    state: EvaluationState


@dataclasses.dataclass(frozen=True)
class AutoAttackResult:
    """Outcome of an evaluation on n images, on the host.

    images [n h w c]: adversarial where broken, else clean; success [n]: misclassified there (clean errors count);
    loss [n]: the margin max_{i != y} z_i - z_y there; perturbation_norm [n]; logits [n k]; broken_by [n]: index
    into `stages` of the attack that broke an image, -1 where robust, -2 where already misclassified.

    Of a random model (`rand`) success says that an image was misclassified in one draw of the noise, which the attack
    had not seen (for a clean error: in the first pass over the clean images); logits and loss are of another draw, so
    that their signs need not agree with success.
    """

    images: np.ndarray
    success: np.ndarray
    loss: np.ndarray
    perturbation_norm: np.ndarray
    logits: np.ndarray
    broken_by: np.ndarray
    clean_accuracy: float
    robust_accuracy: float
    stages: tuple[StageReport, ...]


def autoattack(
    logits_fn: LogitsFn | Callable[..., Any],
    variables: Any,
    x: ArrayLike,
    y: ArrayLike,
    key: Key,
    *,
    norm: str = "linf",
    eps: float = 8 / 255,
    version: str | Sequence[str | Attack] = "standard",
    budget: Budget | None = None,
    batch_size: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    state: EvaluationState | None = None,
) -> AutoAttackResult:
    """Evaluate a model on images x [n h w c] in [0, 1] with labels y [n] by an ensemble of attacks.

    version: `standard` (APGD-CE, APGD-T, FAB-T, Square), `plus`, `rand` (for a random model
    `logits_fn(variables, x, key)`: expectation over its noise), or a list of names (`apgd-ce`, `apgd-dlr`,
    `apgd-t`, `fab`, `fab-t`, `square`) and configs (`PGD`, `APGD`, `FAB`, `Square`; norm and eps are set here).
    budget: steps, queries and targets. batch_size: rows at once, a power of two (default 64 on CPU, whose caches hold
    no more, 2048 elsewhere); the outcome does not depend on it beyond rounding, or in `rand` beyond the noise drawn.
    `progress` is called between compiled chunks; a `state` from it continues an interrupted evaluation. Runs on the
    host, not inside jit. Raises `InputError` as `pgd` does, for what `plan` refuses, a model whose logits change from
    call to call, and a state that belongs to other images, other variables or another plan.
    """
    if not known(x, y, variables):
        raise InputError("autoattack runs on the host and cannot be traced; inside jit use pgd, apgd, fab or square.")
    images, labels = (np.asarray(a) for a in check_batch(x, y))
    check_model(logits_fn)
    _check_arity(logits_fn, version)
    rows = _rows_at_once(batch_size)
    model = _Model(logits_fn, variables, key, rows, min(rows, _power_of_two(len(images))), random=version == "rand")
    clean = model.logits(images)
    check_logits(jnp.asarray(clean), jnp.asarray(labels))
    model.check_repeatable(images, clean)
    stages = plan(version, norm, eps, budget or Budget(), clean.shape[1], images.shape[1:])
    mark = fingerprint(images, labels, stages, *(_on_host(leaf) for leaf in jax.tree.leaves((key, variables))))
    if state is None:
        start = np.where(clean.argmax(axis=1) == labels, ROBUST, CLEAN_ERROR)
        state = EvaluationState(mark, images.copy(), start, np.zeros(len(images), bool))
    elif state.fingerprint != mark:
        raise InputError(
            "The state belongs to other images, labels, variables, key or attacks; give the same ones or no state."
        )
    evaluation = _Evaluation(model, images, labels, clean, stages, state, progress)
    for index in range(state.stage, len(stages)):
        evaluation.run_stage(index)
    return evaluation.result(norm)


class _Model:
    """The model with its variables: `rows` at once in an attack, `batch` images at once for its logits alone."""

    def __init__(self, logits_fn, variables, key: Key, rows: int, batch: int, *, random: bool):
        self.logits_fn, self.variables, self.key = logits_fn, variables, key
        self.rows, self.batch, self.random = rows, batch, random

    def logits(self, images: np.ndarray, salt: int = 0) -> np.ndarray:
        """Logits [n k] of any number of images, in padded batches of one shape."""
        parts = []
        for first in range(0, len(images), self.batch):
            batch = images[first : first + self.batch]
            padded = np.concatenate([batch, np.repeat(batch[-1:], self.batch - len(batch), axis=0)])
            noise = jax.random.fold_in(self.key, 2**31 + salt) if self.random else None
            parts.append(np.asarray(_predict(self.logits_fn, self.variables, padded, noise))[: len(batch)])
        return np.concatenate(parts)

    def check_repeatable(self, images: np.ndarray, logits: np.ndarray) -> None:
        """Refuse a model that gives other logits for the same images. Raises `InputError`."""
        if self.random:
            return
        again = self.logits(images[: self.batch])
        per_image = np.abs(again - logits[: self.batch]).max()
        if per_image > 1e-4 * max(1.0, np.abs(logits).max()):
            raise InputError(
                f"The model is not deterministic: the same images gave logits that differ by {per_image:.2g}; "
                "give it as logits_fn(variables, x, key) with version='rand'."
            )


@functools.partial(jax.jit, static_argnums=0)
def _predict(logits_fn, variables, images, key):
    return logits_of(logits_fn, variables, images, key)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _begin(procedure, config, rows, bits, eps):
    return procedure.begin(config, rows, bits, eps)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _advance(procedure, config, logits_fn, variables, key, rows, state, bits, first, count, eps):
    evaluate = evaluator(logits_fn, variables, key)
    return procedure.advance(evaluate, config, rows, state, bits, first, count, eps)


class _Evaluation:
    """One evaluation under way: the host side of the attacks."""

    def __init__(self, model: _Model, images, labels, clean, stages, state: EvaluationState, progress):
        self.model, self.images, self.labels, self.clean = model, images, labels, clean
        self.stages, self.state, self.progress = stages, state, progress

    def run_stage(self, index: int) -> None:
        """Attack the survivors that the stage has not dealt with, group by group, and write its report."""
        name, config = self.stages[index]
        state = self.state
        began = time.monotonic() - state.seconds
        groups = self._groups(config)
        for number, group in enumerate(groups):

            def report_progress(part: float, number=number) -> None:
                state.seconds = time.monotonic() - began
                self._tell(index, (number + part) / len(groups))

            self._attack(index, config, group, report_progress)
            state.done[group] = True
            report_progress(1.0)
        broken = int(np.sum(state.broken_by == index))
        robust = int(np.sum(state.broken_by == ROBUST))
        state.reports.append(
            StageReport(name, robust + broken, broken, state.unconfirmed, robust / len(self.labels), state.seconds)
        )
        state.stage, state.seconds, state.unconfirmed = index + 1, 0.0, 0
        state.done = np.zeros(len(self.labels), bool)

    def _groups(self, config: Attack) -> list[np.ndarray]:
        left = np.flatnonzero((self.state.broken_by == ROBUST) & ~self.state.done)
        together = max(1, self.model.rows // folds(config))
        return [left[first : first + together] for first in range(0, len(left), together)]

    def _attack(self, index: int, config: Attack, group: np.ndarray, report_progress: Callable[[float], None]) -> None:
        """Run one group of images to its end and record those that it broke."""
        rows, image, keys = self._rows(index, config, group)
        confirm = functools.partial(self._confirm, index, config)
        broken, hit = _drive(self.model, config, rows, image, keys, self._stage_key(index), confirm, report_progress)
        for i, adversarial in broken.items():
            self.state.images[i] = adversarial
            self.state.broken_by[i] = index
        self.state.unconfirmed += len(hit - broken.keys())

    def _confirm(self, index: int, config: Attack, image: np.ndarray, adversarial: np.ndarray) -> np.ndarray:
        """True where an image [m h w c] is within eps of its clean one and a fresh forward pass gets it wrong.

        NaN is neither within eps nor an answer, and nor is an infinite logit on top.
        """
        logits = self.model.logits(adversarial, salt=index + 1)
        wrong = np.isfinite(logits.max(axis=1)) & (logits.argmax(axis=1) != self.labels[image])
        return wrong & _within(adversarial, self.images[image], config.norm, config.eps)

    def _rows(self, index: int, config: Attack, group: np.ndarray):
        width = folds(config)
        image, fold = np.repeat(group, width), np.tile(np.arange(width), len(group))
        aims = getattr(config, "targets", 0)
        targets = np.zeros(len(image), self.labels.dtype)
        if aims:
            ranked = np.asarray(ranked_targets(jnp.asarray(self.clean), jnp.asarray(self.labels), aims))
            targets = ranked[image, fold % aims]
        rows = Rows(*(jnp.asarray(a) for a in (self.images[image], self.labels[image], targets, fold // max(1, aims))))
        size = max(self.model.rows, _power_of_two(len(image)))
        filled = np.resize(image, size), np.resize(fold, size)
        return rows, image, row_keys(self._stage_key(index), *(jnp.asarray(a, jnp.int32) for a in filled))

    def _stage_key(self, index: int) -> Key:
        return jax.random.fold_in(self.model.key, index)

    def _tell(self, index: int, fraction: float) -> None:
        if self.progress is not None:
            name, robust = self.stages[index][0], float(np.mean(self.state.broken_by == ROBUST))
            self.progress(Progress(name, index, len(self.stages), fraction, robust, self.state.seconds, self.state))

    def result(self, norm: str) -> AutoAttackResult:
        """Gather what was found, with the logits of the final images."""
        state = self.state
        logits = self.model.logits(state.images, salt=len(self.stages) + 1)
        labels = jnp.asarray(self.labels)
        return AutoAttackResult(
            images=state.images,
            success=state.broken_by != ROBUST,
            loss=np.asarray(best_other(jnp.asarray(logits), labels) - at(jnp.asarray(logits), labels)),
            perturbation_norm=np.asarray(length(jnp.asarray(state.images - self.images), norm)),
            logits=logits,
            broken_by=state.broken_by,
            clean_accuracy=float(np.mean(state.broken_by != CLEAN_ERROR)),
            robust_accuracy=float(np.mean(state.broken_by == ROBUST)),
            stages=tuple(state.reports),
        )


def _drive(
    model: _Model, config: Attack, rows: Rows, image: np.ndarray, keys, key: Key, confirm, report_progress
) -> tuple[dict[int, np.ndarray], set[int]]:
    """Advance the rows to the end of the attack.

    Returns an adversarial image for each image where `confirm(image, adversarial)` agreed, and the images where the
    attack thought to have one. Rows whose image is confirmed are dropped, but none of a random model: there one draw
    of the noise proves little, so as in the official code the last misclassified iterate is tried at the end, once an
    image. `keys` has one key for each row at the full batch size, so that its compiled generators serve every bucket.
    """
    procedure, shape = procedure_of(config), rows.images.shape[1:]
    eps = jnp.asarray(config.eps, rows.images.dtype)
    plain = dataclasses.replace(config, eps=1.0)
    noise = jax.random.fold_in(key, 2**31) if model.random else None
    total = procedure.iterations(config)
    places = np.arange(_power_of_two(len(image))) % len(image)
    live = np.arange(len(places)) < len(image)
    bits = start_bits(procedure, config, keys, shape)
    rows = _take(rows, places)
    state = _begin(procedure, plain, rows, bits[: len(places)], eps)
    block, broken, hit = -1, {}, set()
    marks = [*[m for m in MARKS if m < total], *range(BLOCK, total, BLOCK), total]
    for first, after in itertools.pairwise(marks):
        if first // BLOCK != block:
            block = first // BLOCK
            words = step_bits(procedure, config, keys, block, shape)
        here = None if words is None else words[places]
        state = _advance(
            procedure, plain, model.logits_fn, model.variables, noise, rows, state, here, first, after - first, eps
        )
        if after == total or not model.random:
            hits = np.flatnonzero(np.asarray(state.found) & live)
            if model.random:
                hits = hits[np.unique(image[places[hits]], return_index=True)[1]]
            if len(hits):
                aimed, adversarial = image[places[hits]], np.asarray(state.images)[hits]
                agreed = confirm(aimed, adversarial)
                # The first row of an image counts, so later ones must not overwrite it.
                broken |= dict(zip(aimed[agreed][::-1].tolist(), adversarial[agreed][::-1], strict=True))
                hit.update(aimed.tolist())
                live &= ~np.isin(image[places], list(broken))
        report_progress(after / total)
        left = int(live.sum())
        if left == 0:
            break
        if _power_of_two(left) * WORTH_SHRINKING <= len(places):
            keep = np.resize(np.flatnonzero(live), _power_of_two(left))
            rows, state, places = _take(rows, keep), _take(state, keep), places[keep]
            live = np.arange(len(keep)) < left
    return broken, hit


def _within(images: np.ndarray, clean: np.ndarray, norm: str, eps: float) -> np.ndarray:
    """True where an image lies within eps of the clean one, up to the rounding of its pixels; false for NaN."""
    moved = np.maximum(np.abs(images.astype(np.float64) - clean) - PIXEL_ROUNDING, 0).reshape(len(images), -1)
    size = moved.max(axis=1) if norm == "linf" else np.sqrt(np.sum(moved**2, axis=1))
    return size <= eps * (1 + 1e-5)


def _take(tree, places: np.ndarray):
    """Pick rows on the host: a gather on the device would compile anew for every pair of bucket sizes."""
    return jax.tree.map(lambda a: jnp.asarray(np.asarray(a)[places]), tree)


def _power_of_two(count: int) -> int:
    return max(SMALLEST_BUCKET, 1 << (count - 1).bit_length())


def _rows_at_once(batch_size: int | None) -> int:
    if batch_size is None:
        return 64 if backend() == "cpu" else 2048
    if batch_size < 1 or batch_size & (batch_size - 1):
        raise InputError(f"batch_size must be a power of two, such as 256; got {batch_size!r}.")
    return max(batch_size, SMALLEST_BUCKET)


def _on_host(leaf: Any) -> np.ndarray:
    """An array, or the words of a random key, as NumPy."""
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def _check_arity(logits_fn: Callable[..., Any], version: Any) -> None:
    if not accepts(logits_fn, 3 if version == "rand" else 2):
        form = "logits_fn(variables, x, key)" if version == "rand" else "logits_fn(variables, x)"
        raise InputError(f"version={version!r} needs a model of the form {form}.")
