"""AutoAttack (Croce and Hein 2020): several attacks in turn, each on the images that are still robust.

The loop runs on the host. Images, restarts and targets fill batches of a few sizes, which shrink as images are broken.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mi_jax import checks, processes
from mi_jax.attacks.attack import Attack, Batch, gradient_warnings, reach_warnings
from mi_jax.attacks.autoattack_plan import Budget, plan
from mi_jax.attacks.engine.input_checks import (
    Model,
    accepts,
    check_batch,
    check_distances,
    check_reach,
    check_unmasked,
    check_variables,
)
from mi_jax.attacks.engine.randomness import row_keys
from mi_jax.attacks.engine.run import ranked_targets
from mi_jax.attacks.engine.saved_evaluation import (
    CLEAN_ERROR,
    ROBUST,
    EvaluationState,
    OtherEvaluation,
    StageReport,
    fingerprint,
)
from mi_jax.attacks.engine.survivors import PlacedModel, attack_rows
from mi_jax.attacks.losses import margin, misclassified
from mi_jax.attacks.sanity_checks import largest, largest_difference, output_findings
from mi_jax.attacks.threat_model import DEFAULT_EPS, check_norm, diameter
from mi_jax.errors import InputError
from mi_jax.parallel import Mesh, on_host
from mi_jax.typing import Key, LogitsFn

PIXEL_ROUNDING = 2**-24
"""Spacing of float32 just below 1: the rounding of a pixel on the surface of the ball."""
SAVE_SECONDS = 60.0
"""Least time between two writes of the state to `state_path`, unless a stage ends."""
BACKWARD_PASSES = 3
"""Cost of a gradient in forward passes, to estimate the time left."""


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
        seconds_left: estimated wall-clock time until the end, which falls when images are broken.
        state: can be saved, and passed to `autoattack` to resume.
    """

    stage: str
    stage_index: int
    stage_count: int
    fraction: float
    robust_accuracy: float
    seconds: float
    seconds_left: float
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
    eps: ArrayLike | None = None,
    version: str | Sequence[str | Attack] = "standard",
    budget: Budget | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    progress: Callable[[Progress], None] | None = None,
    state: EvaluationState | None = None,
    state_path: str | Path | None = None,
) -> AutoAttackResult:
    """Robust accuracy under an ensemble of attacks (Croce and Hein 2020). Does not run inside jit.

    Devices hold the variables and one batch of rows, whatever the number of images, which stay in NumPy.

    Args:
        logits_fn: as for `pgd`, or `logits_fn(variables, x, key)` for `rand`.
        variables: first argument of the model.
        x: images [n h w c] in [0, 1].
        y: labels [n].
        key: a random key or a seed.
        norm: `linf`, `l2` or `l1`.
        eps: radius in pixel units of [0, 1], one number or one per image [n]; None for 8/255 in Linf, 0.5 in L2 and 12
            in L1.
        version: `standard` (APGD-CE, APGD-T, FAB-T, Square), `plus`, `rand` (for a random model: expectation over its
            noise), or a list of names in `ATTACKS` and of configurations, whose norm and eps are replaced.
        budget: steps, queries and targets.
        batch_size: rows at once, a power of two; None for 64 on CPU and 2048 on each accelerator. The outcome depends
            on it only by rounding, and in `rand` by the noise drawn.
        mesh: devices, such as `jax.make_mesh((8,), ("data",))`, that share each batch; None for one. Processes whose
            devices it has make this call together, with the same arguments.
        progress: called between compiled chunks.
        state: state of an interrupted evaluation, from `progress`, to resume it.
        state_path: file to which the state is written about once a minute. The same call resumes from it after an
            interruption at any moment, and returns the outcome at once when the evaluation was complete.

    Returns:
        The outcome, as NumPy arrays.

    Raises:
        InputError: as `pgd` and `plan`, for a model whose logits change from call to call, and for a state of
            another model, other images or attacks.

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
    norm = check_norm(norm)
    version = version.lower() if isinstance(version, str) else version
    check_variables(variables)
    images, labels = check_batch(x, y, on_host=True)
    eps = DEFAULT_EPS[norm] if eps is None else eps
    check_distances("eps", eps, norm, len(images), positive=True)
    check_reach("eps", eps, diameter(norm, images.shape))
    radii = np.broadcast_to(np.asarray(eps, np.float64), labels.shape)
    key, random = checks.key(key), version == "rand"
    model = PlacedModel(Model(logits_fn), variables, key, len(images), batch_size, mesh, random=random)
    _check_arity(logits_fn, version)
    clean = model.logits(images)
    checks.logits(clean, labels)
    budget = Budget() if budget is None else budget
    stages = plan(version, norm, float(radii.max()), budget, clean.shape[1], images.shape[1:])
    for _, config in stages:
        check_unmasked(clean, config.loss, config.least_classes)
    output_warnings, tolerance = _check_outputs(model, images)
    leaves = jax.tree.leaves((key, variables, model.model.arrays))
    mark = fingerprint(images, labels, radii, stages, *map(_on_host, leaves))
    saver = _Saver(state_path, mesh)
    state = saver.load() if state is None else state
    if state is None:
        start = np.where(clean.argmax(axis=1) == labels, ROBUST, CLEAN_ERROR)
        state = EvaluationState.begin(mark, start, clean)
    elif not isinstance(state, EvaluationState):
        raise InputError(f"state must be mi_jax.attacks.EvaluationState, not {type(state).__name__}.")
    elif state.fingerprint != mark or _differ(state.clean, clean, tolerance):
        where = "The state" if saver.path is None else f"The state in {saver.path}"
        raise OtherEvaluation(
            f"{where} belongs to other images, labels, variables, key or attacks, or to another model; give the same "
            "ones or no state."
        )
    evaluation = _Evaluation(model, images, labels, radii, clean, stages, state, progress, saver)
    with saver.saving(state):
        for index in range(state.stage, len(stages)):
            evaluation.run_stage(index)
    return evaluation.result(norm, output_warnings)


def _check_outputs(model: PlacedModel, images: np.ndarray) -> tuple[list[str], float]:
    """Warnings about the model's outputs, and the share of the largest logit by which rounding may change logits.

    Raises:
        InputError: for a model that is not a function of its input.
    """
    if model.random:
        return [], np.inf
    few = model.padded(images[: model.batch])
    report = output_findings(lambda x: model.logits(on_host(x)), model.model, model.variables, few)[1]
    for finding in report.findings:
        if finding.name == "random":
            raise InputError(finding.message)
    tolerance = max(1e-3, 8 * report.measurements.get("precision", 0.0))
    return [finding.message for finding in report.findings], tolerance


def _differ(saved: np.ndarray, clean: np.ndarray, tolerance: float) -> bool:
    """Whether logits differ by more than a share `tolerance` of the largest."""
    return saved.shape != clean.shape or largest_difference(saved, clean) > tolerance * largest(clean)


def _writable(path: str | Path) -> Path:
    """The path of the state, in a folder that is made where there is none."""
    try:
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
    except (TypeError, OSError) as error:
        raise InputError(f"state_path {str(path)!r} cannot be written ({error}); give the path of a file.") from None
    if file.is_dir():
        raise InputError(f"state_path {str(path)!r} is a directory; give the path of a file.")
    return file


class _Saver:
    """Keeps the state of an evaluation in a file, if there is one."""

    def __init__(self, path: str | Path | None, mesh: Mesh | None):
        shared = mesh is not None and mesh.is_multi_process
        self._do: Callable[..., Any] = processes.on_first if shared else lambda work: work()
        self.path = None if path is None else self._do(lambda: _writable(path))
        self.last, self.took = time.monotonic(), 0.0

    def load(self) -> EvaluationState | None:
        path = self.path
        return None if path is None else self._do(lambda: EvaluationState.load(path) if path.exists() else None)

    def save(self, state: EvaluationState, *, now: bool = False) -> None:
        """Writes the state, at most once a minute unless `now`, and for at most a tenth of the time."""
        self._do(lambda: self._save(state, now))

    def _save(self, state: EvaluationState, now: bool) -> None:
        began = time.monotonic()
        if self.path is None or not (now or began - self.last > max(SAVE_SECONDS, 10 * self.took)):
            return
        state.save(self.path)
        self.last = time.monotonic()
        self.took = self.last - began

    @contextlib.contextmanager
    def saving(self, state: EvaluationState) -> Iterator[None]:
        """Writes the state when the body ends or is interrupted."""
        try:
            yield
        finally:
            self.save(state, now=True)


class _Evaluation:
    """The host side of one evaluation."""

    def __init__(
        self, model: PlacedModel, images, labels, radii, clean, stages, state: EvaluationState, progress, saver: _Saver
    ):
        self.model, self.images, self.labels, self.radii, self.clean = model, images, labels, radii, clean
        self.stages, self.state, self.progress, self.saver = stages, state, progress, saver

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
            self.saver.save(state)
            report_progress(1.0)
        broken = int(np.sum(state.broken_by == index))
        robust = int(np.sum(state.broken_by == ROBUST))
        report = StageReport(
            name,
            robust + broken,
            broken,
            state.unconfirmed,
            robust / len(self.labels),
            state.seconds,
            self._warnings(index, name, config),
        )
        state.next_stage(report)
        self.saver.save(state, now=True)

    def _warnings(self, index: int, name: str, config: Attack) -> tuple[str, ...]:
        state = self.state
        attacked = np.isin(state.broken_by, (ROBUST, index))
        warnings = reach_warnings(config)
        warnings += gradient_warnings(name, *state.faults[:, attacked]) if attacked.any() else ()
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
        broken, hit = attack_rows(
            self.model, self._per_row(config, image), rows, image, keys, stage_key, confirm, report_progress, faults
        )
        self.state.adversarial |= broken
        self.state.broken_by[list(broken)] = index
        self.state.unconfirmed += len(hit - broken.keys())

    def _per_row(self, config: Attack, image: np.ndarray) -> Attack:
        """The attack with the radius of each row's image; in L2 and L1 its step is in proportion."""
        radii = self.radii[image].astype(self.images.dtype).reshape(-1, 1, 1, 1)
        values = {"eps": radii}
        if "step_size" in config.traced:
            share = np.ones_like(radii) if config.norm == "linf" else radii / radii.dtype.type(self.radii.max())
            values["step_size"] = radii.dtype.type(config.step_size) * share
        return config.with_values(**values)

    def _confirm(self, index: int, config: Attack, image: np.ndarray, adversarial: np.ndarray) -> np.ndarray:
        """True where an image [m h w c] is within eps of its clean one and misclassified in a second forward pass.

        NaN is neither within eps nor misclassified.
        """
        logits = self.model.logits(adversarial, index + 1, image)
        wrong = np.asarray(misclassified(jnp.asarray(logits), jnp.asarray(self.labels[image])))
        return wrong & (_distance(adversarial, self.images[image], str(config.norm)) <= self.radii[image] * (1 + 1e-5))

    def _rows(self, index: int, config: Attack, group: np.ndarray):
        width, targets = config.rows_per_image, None
        image, fold = np.repeat(group, width), np.tile(np.arange(width), len(group))
        if config.targets:
            clean, labels = jnp.asarray(self.clean), jnp.asarray(self.labels)
            ranked = np.asarray(ranked_targets(clean, labels, config.targets))
            targets = ranked[image, fold % config.targets]
        columns: Any = self.images[image], self.labels[image], targets, fold // max(1, config.targets)
        size = max(self.model.rows, self.model.bucket(len(image)))
        filled = [np.resize(a, size).astype(np.int32) for a in (image, fold)]
        return Batch(*columns), image, row_keys(self._stage_key(index), *self.model.place(filled))

    def _stage_key(self, index: int) -> Key:
        return jax.random.fold_in(self.model.key, index)

    def _report(self, index: int, fraction: float) -> None:
        if self.progress is None:
            return
        name, robust, state = self.stages[index][0], float(np.mean(self.state.broken_by == ROBUST)), self.state
        left = self._seconds_left(index, fraction)
        self.progress(Progress(name, index, len(self.stages), fraction, robust, state.seconds, left, state))

    def _seconds_left(self, index: int, fraction: float) -> float:
        """From the time of the forward passes made so far; later stages attack the images that are robust now."""

        def passes(stage: int, images: int) -> int:
            config = self.stages[stage][1]
            each = BACKWARD_PASSES if config.uses_gradients else 1
            return images * config.rows_per_image * config.iterations * each

        state = self.state
        robust = int(np.sum(state.broken_by == ROBUST))
        current = passes(index, robust + int(np.sum(state.broken_by == index)))
        done = fraction * current + sum(passes(k, report.attacked) for k, report in enumerate(state.reports))
        later = sum(passes(k, robust) for k in range(index + 1, len(self.stages)))
        seconds = state.seconds + sum(report.seconds for report in state.reports)
        return seconds * ((1 - fraction) * current + later) / done if done else float("inf")

    def result(self, norm: str, output_warnings: Sequence[str]) -> AutoAttackResult:
        """Gathers the outcome, with the logits of the final images."""
        state, images = self.state, self.images.copy()
        for i, adversarial in state.adversarial.items():
            images[i] = adversarial
        logits = self.model.logits(images, len(self.stages) + 1)
        distance = np.zeros(len(images))
        if broken := list(state.adversarial):
            distance[broken] = _distance(images[broken], self.images[broken], norm, rounding=0.0)
        return AutoAttackResult(
            images=images,
            success=state.broken_by != ROBUST,
            loss=np.asarray(margin(jnp.asarray(logits), jnp.asarray(self.labels))),
            perturbation_norm=distance,
            logits=logits,
            broken_by=state.broken_by,
            clean_accuracy=float(np.mean(state.broken_by != CLEAN_ERROR)),
            robust_accuracy=float(np.mean(state.broken_by == ROBUST)),
            stages=tuple(state.reports),
            warnings=(*output_warnings, *(warning for report in state.reports for warning in report.warnings)),
        )


def _distance(images: np.ndarray, clean: np.ndarray, norm: str, rounding: float = PIXEL_ROUNDING) -> np.ndarray:
    """Distance of each image from its clean one, up to the rounding of its pixels; NaN where the image is."""
    moved = np.maximum(np.abs(images.astype(np.float64) - clean) - rounding, 0).reshape(len(images), -1)
    return np.linalg.norm(moved, {"linf": np.inf, "l2": 2, "l1": 1}[norm], axis=1)


def _on_host(leaf: Any) -> np.ndarray:
    """An array, or the words of a random key, as NumPy."""
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def _check_arity(logits_fn: Callable[..., Any], version: Any) -> None:
    if not accepts(logits_fn, 3 if version == "rand" else 2):
        form = "logits_fn(variables, x, key)" if version == "rand" else "logits_fn(variables, x)"
        raise InputError(f"version={version!r} needs a model of the form {form}.")
