"""AutoAttack (Croce and Hein 2020): several attacks in turn, each on the images that are still robust.

The loop runs on the host. Images, restarts and targets fill batches of a power of two rows, which shrink as images
are broken.
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

from mi_jax import checks
from mi_jax.attacks.attack import Attack, Batch, gradient_warnings
from mi_jax.attacks.autoattack_plan import Budget, plan
from mi_jax.attacks.engine.input_checks import Model, accepts, check_batch, check_reach
from mi_jax.attacks.engine.randomness import row_keys
from mi_jax.attacks.engine.run import BLOCK, predict, problem_of, ranked_targets, start_bits, step_bits, steps
from mi_jax.attacks.engine.saved_evaluation import CLEAN_ERROR, ROBUST, EvaluationState, StageReport, fingerprint
from mi_jax.attacks.losses import margin, misclassified
from mi_jax.attacks.sanity_checks import output_findings
from mi_jax.attacks.threat_model import DEFAULT_EPS, check_norm, diameter, length
from mi_jax.errors import InputError
from mi_jax.parallel import backend
from mi_jax.typing import Key, LogitsFn

SMALLEST_BUCKET = 16
MARKS = (0, 2, 5, 10, 20, 35, 55, 80, 120, 180)
"""Iterations after which broken images are dropped; later, at the end of each block."""
WORTH_SHRINKING = 4
"""A batch shrinks by at least this factor, since each attack is compiled for every new size."""
PIXEL_ROUNDING = 2**-24
"""Spacing of float32 just below 1: the rounding of a pixel on the surface of the ball."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far an evaluation is, and the state from which it can be resumed.

    Attributes:
        stage: name of the current attack.
        stage_index: its index, from 0.
        stage_count: number of attacks.
        fraction: share of the current stage that is done.
        robust_accuracy: share of the images not broken so far.
        seconds: wall-clock time of the current stage so far.
        state: can be saved, and passed to `autoattack` to resume.
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
    """Outcome of an evaluation of n images, as NumPy arrays.

    For a random model (`rand`), `success` is misclassification in one draw of the noise that the attack did not see
    (for clean errors: in the first pass over the clean images). `logits` and `loss` are of another draw and need not
    agree with it.

    Attributes:
        images: [n h w c], adversarial where broken, else clean.
        success: [n], whether the image is misclassified (clean errors count).
        loss: [n], the margin max_{i != y} z_i - z_y.
        perturbation_norm: [n], pixel units.
        logits: [n k] of the images.
        broken_by: [n], index into `stages` of the attack that broke an image, -1 where robust, -2 where misclassified
            from the start.
        clean_accuracy: before any attack.
        robust_accuracy: after all attacks.
        stages: a report for each attack.
        warnings: what makes the robust accuracy doubtful.
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
    warnings: tuple[str, ...]


def autoattack(
    logits_fn: LogitsFn | Callable[..., Any],
    variables: Any,
    x: Any,
    y: Any,
    key: Key | int,
    *,
    norm: str = "linf",
    eps: float | None = None,
    version: str | Sequence[str | Attack] = "standard",
    budget: Budget | None = None,
    batch_size: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    state: EvaluationState | None = None,
) -> AutoAttackResult:
    """Robust accuracy under an ensemble of attacks (Croce and Hein 2020). Does not run inside jit.

    Args:
        logits_fn: as for `pgd`, or `logits_fn(variables, x, key)` for `rand`.
        variables: first argument of the model.
        x: images [n h w c] in [0, 1].
        y: labels [n].
        key: a random key or a seed.
        norm: `linf` or `l2`.
        eps: radius in pixel units of [0, 1]; None for 8/255 in Linf and 0.5 in L2.
        version: `standard` (APGD-CE, APGD-T, FAB-T, Square), `plus`, `rand` (for a random model: expectation over its
            noise), or a list of names in `ATTACKS` and of configurations, whose norm and eps are replaced.
        budget: steps, queries and targets.
        batch_size: rows at once, a power of two; None for 64 on CPU and 2048 elsewhere. The outcome depends on it only
            by rounding, and in `rand` by the noise drawn.
        progress: called between compiled chunks.
        state: of an interrupted evaluation, from `progress`, to resume it.

    Returns:
        The outcome, as NumPy arrays.

    Raises:
        InputError: as `pgd` and `plan`, for a model whose logits change from call to call, and for a state of other
            images, variables or attacks.

    Examples:
        >>> model = lambda weights, x: (x.reshape(len(x), -1) - 0.5) @ weights  # the boundary is at 0.5
        >>> weights, labels = jnp.array([[1.0, -1.0]]), jnp.array([0, 0])
        >>> images = jnp.array([0.6, 0.9]).reshape(2, 1, 1, 1)
        >>> result = autoattack(model, weights, images, labels, 0, eps=0.2, version=["apgd-ce", "fab"])
        >>> result.robust_accuracy, result.broken_by.tolist()
        (0.5, [0, -1])
    """
    if not checks.known(x, y, variables):
        raise InputError("autoattack runs on the host and cannot be traced; inside jit use pgd, apgd, fab or square.")
    check_norm(norm)
    eps = DEFAULT_EPS[norm] if eps is None else eps
    images, labels = (np.asarray(a) for a in check_batch(x, y))
    key = checks.key(key)
    model = _Network(Model(logits_fn), variables, key, len(images), batch_size, random=version == "rand")
    _check_arity(logits_fn, version)
    clean = model.logits(images)
    checks.logits(clean, labels)
    stages = plan(version, norm, eps, budget or Budget(), clean.shape[1], images.shape[1:])
    check_reach("eps", eps, diameter(norm, images.shape))
    output_warnings = model.check_outputs(images)
    mark = fingerprint(images, labels, stages, *(_on_host(leaf) for leaf in jax.tree.leaves((key, variables))))
    if state is None:
        start = np.where(clean.argmax(axis=1) == labels, ROBUST, CLEAN_ERROR)
        state = EvaluationState.begin(mark, images, start)
    elif state.fingerprint != mark:
        raise InputError(
            "The state belongs to other images, labels, variables, key or attacks; give the same ones or no state."
        )
    evaluation = _Evaluation(model, images, labels, clean, stages, state, progress)
    for index in range(state.stage, len(stages)):
        evaluation.run_stage(index)
    return evaluation.result(norm, output_warnings)


class _Network:
    """The model with its variables: `rows` at once in an attack, `batch` images at once for logits alone."""

    def __init__(self, model: Model, variables: Any, key: Key, count: int, batch_size: int | None, *, random: bool):
        self.model, self.variables, self.key, self.random = model, variables, key, random
        self.rows = _rows_at_once(batch_size)
        self.batch = min(self.rows, _power_of_two(count))

    def logits(self, images: np.ndarray, salt: int = 0) -> np.ndarray:
        """Logits [n k] of any number of images, in padded batches of one size."""
        parts = []
        for first in range(0, len(images), self.batch):
            batch = images[first : first + self.batch]
            padded = self._padded(batch)
            noise = jax.random.fold_in(self.key, 2**31 + salt) if self.random else None
            parts.append(np.asarray(predict(self.model, self.variables, padded, noise))[: len(batch)])
        return np.concatenate(parts)

    def _padded(self, images: np.ndarray) -> np.ndarray:
        return np.concatenate([images, np.repeat(images[-1:], self.batch - len(images), axis=0)])

    def check_outputs(self, images: np.ndarray) -> list[str]:
        """Warnings about the model's outputs. Raises `InputError` for a model that is not a function of its input."""
        if self.random:
            return []
        few = jnp.asarray(self._padded(images[: self.batch]))
        findings = output_findings(lambda x: self.logits(np.asarray(x)), self.model, self.variables, few)[1].findings
        for finding in findings:
            if finding.name == "random":
                raise InputError(finding.message)
        return [finding.message for finding in findings]


@functools.partial(jax.jit, static_argnums=1)
def _begin(config: Attack, model, variables, noise, batch, bits):
    # Copies, because `_advance` donates each leaf of the state, and some are the clean images.
    return jax.tree.map(jnp.copy, config.initial_state(problem_of(config, model, variables, noise, batch), bits))


@functools.partial(jax.jit, static_argnums=1, donate_argnames="state")
def _advance(config: Attack, model, variables, noise, batch, state, bits, first, count):
    return steps(config, problem_of(config, model, variables, noise, batch), state, bits, first, count)


class _Evaluation:
    """The host side of one evaluation."""

    def __init__(self, model: _Network, images, labels, clean, stages, state: EvaluationState, progress):
        self.model, self.images, self.labels, self.clean = model, images, labels, clean
        self.stages, self.state, self.progress = stages, state, progress

    def run_stage(self, index: int) -> None:
        """Attacks the robust images that the stage has not attacked yet, group by group, and adds its report."""
        name, config = self.stages[index]
        state = self.state
        began = time.monotonic() - state.seconds
        groups = self._groups(config)
        for number, group in enumerate(groups):

            def report_progress(part: float, number=number) -> None:
                state.seconds = time.monotonic() - began
                self._report(index, (number + part) / len(groups))

            self._attack(index, config, group, report_progress)
            state.done[group] = True
            report_progress(1.0)
        broken = int(np.sum(state.broken_by == index))
        robust = int(np.sum(state.broken_by == ROBUST))
        state.reports.append(
            StageReport(
                name,
                robust + broken,
                broken,
                state.unconfirmed,
                robust / len(self.labels),
                state.seconds,
                self._warnings(name, config),
            )
        )
        state.stage, state.seconds, state.unconfirmed = index + 1, 0.0, 0
        state.done = np.zeros(len(self.labels), bool)
        state.faults = np.zeros((2, len(self.labels)))

    def _warnings(self, name: str, config: Attack) -> tuple[str, ...]:
        state, index = self.state, len(self.state.reports)
        attacked = np.isin(state.broken_by, (ROBUST, index))
        warnings = gradient_warnings(name, *state.faults[:, attacked]) if attacked.any() else ()
        broken = int(np.sum(state.broken_by == index))
        before = [config.uses_gradients for _, config in self.stages[:index]]
        if broken and not config.uses_gradients and any(before):
            warnings += (
                f"{name}, without gradients, broke {broken} images that survived the gradient attacks, a sign of "
                "masked gradients: see mi_jax.attacks.check.",
            )
        if state.unconfirmed and not self.model.random:
            warnings += (
                f"{name} found {state.unconfirmed} images that a second forward pass classifies correctly; they count "
                "as robust.",
            )
        return warnings

    def _groups(self, config: Attack) -> list[np.ndarray]:
        left = np.flatnonzero((self.state.broken_by == ROBUST) & ~self.state.done)
        together = max(1, self.model.rows // config.rows_per_image)
        return [left[first : first + together] for first in range(0, len(left), together)]

    def _attack(self, index: int, config: Attack, group: np.ndarray, report_progress: Callable[[float], None]) -> None:
        """Attacks one group of images and records those that are broken."""
        rows, image, keys = self._rows(index, config, group)
        confirm = functools.partial(self._confirm, index, config)
        stage_key, faults = self._stage_key(index), self.state.faults
        broken, hit = _drive(self.model, config, rows, image, keys, stage_key, confirm, report_progress, faults)
        for i, adversarial in broken.items():
            self.state.images[i] = adversarial
            self.state.broken_by[i] = index
        self.state.unconfirmed += len(hit - broken.keys())

    def _confirm(self, index: int, config: Attack, image: np.ndarray, adversarial: np.ndarray) -> np.ndarray:
        """True where an image [m h w c] is within eps of its clean one and misclassified in a second forward pass.

        NaN is neither within eps nor misclassified.
        """
        logits = self.model.logits(adversarial, salt=index + 1)
        wrong = np.asarray(misclassified(jnp.asarray(logits), jnp.asarray(self.labels[image])))
        return wrong & _within(adversarial, self.images[image], str(config.norm), config.eps)

    def _rows(self, index: int, config: Attack, group: np.ndarray):
        width, targets = config.rows_per_image, None
        image, fold = np.repeat(group, width), np.tile(np.arange(width), len(group))
        if config.targets:
            clean, labels = jnp.asarray(self.clean), jnp.asarray(self.labels)
            ranked = np.asarray(ranked_targets(clean, labels, config.targets))
            targets = jnp.asarray(ranked[image, fold % config.targets])
        rows = Batch(
            jnp.asarray(self.images[image]),
            jnp.asarray(self.labels[image]),
            targets,
            jnp.asarray(fold // max(1, config.targets)),
        )
        size = max(self.model.rows, _power_of_two(len(image)))
        filled = np.resize(image, size), np.resize(fold, size)
        return rows, image, row_keys(self._stage_key(index), *(jnp.asarray(a, jnp.int32) for a in filled))

    def _stage_key(self, index: int) -> Key:
        return jax.random.fold_in(self.model.key, index)

    def _report(self, index: int, fraction: float) -> None:
        if self.progress is not None:
            name, robust = self.stages[index][0], float(np.mean(self.state.broken_by == ROBUST))
            self.progress(Progress(name, index, len(self.stages), fraction, robust, self.state.seconds, self.state))

    def result(self, norm: str, output_warnings: Sequence[str]) -> AutoAttackResult:
        """Gathers the outcome, with the logits of the final images."""
        state = self.state
        logits = self.model.logits(state.images, salt=len(self.stages) + 1)
        labels = jnp.asarray(self.labels)
        return AutoAttackResult(
            images=state.images,
            success=state.broken_by != ROBUST,
            loss=np.asarray(margin(jnp.asarray(logits), labels)),
            perturbation_norm=np.asarray(length(jnp.asarray(state.images - self.images), norm)),
            logits=logits,
            broken_by=state.broken_by,
            clean_accuracy=float(np.mean(state.broken_by != CLEAN_ERROR)),
            robust_accuracy=float(np.mean(state.broken_by == ROBUST)),
            stages=tuple(state.reports),
            warnings=(*output_warnings, *(warning for report in state.reports for warning in report.warnings)),
        )


def _drive(
    model: _Network, config: Attack, rows: Batch, image: np.ndarray, keys, key: Key, confirm, report_progress, faults
) -> tuple[dict[int, np.ndarray], set[int]]:
    """Runs all iterations of an attack on a batch of rows.

    Rows whose image is confirmed as broken are dropped. For a random model, where one draw of the noise proves little,
    none are: as in the official code, the last misclassified iterate is confirmed at the end, once per image.

    Args:
        model, config, rows: the model, the attack, and its rows.
        image: index of each row's image.
        keys: one for each row of the full batch, so that its compiled generators serve every batch size.
        key: of a random model's noise.
        confirm: `confirm(image, adversarial)` tells which adversarial images count.
        report_progress: called with the share that is done.
        faults: [2, n], updated with the largest share of steps with a zero and with a non-finite gradient.

    Returns:
        An adversarial image for each confirmed image, and the images where the attack found one.
    """
    shape = rows.images.shape[1:]
    config = config.as_arrays(rows.images.dtype)
    noise = jax.random.fold_in(key, 2**31) if model.random else None
    total = config.iterations
    places = np.arange(_power_of_two(len(image))) % len(image)
    live = np.arange(len(places)) < len(image)
    bits = start_bits(config, keys, shape)
    rows = _take(rows, places)
    model_arguments = (model.model, model.variables, noise)
    state = _begin(config, *model_arguments, rows, None if bits is None else bits[: len(places)])
    block, broken, hit = -1, {}, set()
    marks = [*[m for m in MARKS if m < total], *range(BLOCK, total, BLOCK), total]
    for first, after in itertools.pairwise(marks):
        if first // BLOCK != block:
            block = first // BLOCK
            words = step_bits(config, keys, block, shape)
        here = None if words is None else words[places]
        state = _advance(config, *model_arguments, rows, state, here, first, after - first)
        seen = config.outcome(state).faults
        if seen is not None:
            for kind, counts in enumerate(seen):
                np.maximum.at(faults[kind], image[places[live]], np.asarray(counts)[live] / total)
        if after == total or not model.random:
            hits = np.flatnonzero(np.asarray(state.found) & live)
            if model.random:
                hits = hits[np.unique(image[places[hits]], return_index=True)[1]]
            if len(hits):
                aimed, adversarial = image[places[hits]], np.asarray(state.images)[hits]
                agreed = confirm(aimed, adversarial)
                # The first row of an image counts.
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
    """Picks rows on the host: on the device, a gather would be compiled for every pair of batch sizes."""
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
