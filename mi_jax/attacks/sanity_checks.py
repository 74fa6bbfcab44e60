"""Sanity checks of a robustness evaluation: masked gradients, random outputs, attacks that fail.

The tests of AutoAttack's own checks (Croce and Hein 2020) and of the checklist of Carlini et al. (2019).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax import checks
from mi_jax.attacks.engine.input_checks import Model, check_batch, check_distance, logits_of
from mi_jax.attacks.engine.run import predict
from mi_jax.attacks.losses import Loss, cw, loss_of
from mi_jax.attacks.pgd import PGD, pgd
from mi_jax.attacks.square import Square, square
from mi_jax.attacks.threat_model import DEFAULT_EPS, check_norm, diameter, length
from mi_jax.errors import InputError
from mi_jax.typing import Images, Key, Labels, LogitsFn

Severity = Literal["info", "warning", "error"]
TOLERANCE = 0.02
"""Share of images by which one robust accuracy must beat another before it counts as a sign."""
PROBE = 1e-2
"""L2 length of the step that tests the gradient; a hundredth of the range of one pixel."""
EAGER_TOLERANCE = 0.05
"""Share of the range of the logits by which compilation may change those of a model that computes in bfloat16."""
SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
ROUNDS = 5
"""PGD with all steps, in units of the shorter PGD that is compared over eps."""
Predict = Callable[[Images], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Finding:
    """One sign: a short stable name, how bad it is, a sentence for the report, and the number behind it.

    `error`: a gradient attack on this model says nothing about its robustness. `warning`: it may overstate it.
    """

    name: str
    severity: Severity
    message: str
    value: float


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """The findings, worst first, and the measurements [name -> value] that they were drawn from."""

    findings: tuple[Finding, ...]
    measurements: dict[str, float]

    @property
    def passed(self) -> bool:
        """Whether nothing worse than an `info` was found."""
        return all(finding.severity == "info" for finding in self.findings)


def check(
    logits_fn: LogitsFn,
    variables: Any,
    x: Any,
    y: Any,
    key: Key | int,
    *,
    norm: str = "linf",
    eps: float | None = None,
    steps: int = 100,
    queries: int = 500,
) -> CheckResult:
    """Look for signs that attacks on this model mislead, on images x [n h w c] in [0, 1] with labels y [n].

    One to two hundred images are enough. Findings: `not_finite`, `random`, `batch_dependent`, `probabilities`,
    `zero_gradients`, `overconfident` (float32 cross-entropy saturates while the margin still has a gradient),
    `discontinuous` (a tiny step moves the margin otherwise than its gradient says),
    `weaker_with_steps` (PGD with all steps breaks fewer images than with one), `square_beats_gradient`,
    `survives_large_eps`, `not_monotone`. `steps` and `queries` are the budgets of PGD and Square. Runs on the host.
    Raises `InputError` as `autoattack` does for images, labels and eps; a bad model is a finding, not an error.
    """
    check_norm(norm)
    eps = DEFAULT_EPS[norm] if eps is None else eps
    check_distance("eps", eps, norm, positive=True)
    if not checks.known(x, y, variables):
        raise InputError("check runs on the host and cannot be traced; call it outside of jit.")
    images, labels = check_batch(x, y)
    model, key = Model(logits_fn), checks.key(key)

    def logits_at(x: Images) -> np.ndarray:
        return np.asarray(predict(model, variables, x, None))

    logits, report = output_findings(logits_at, model, variables, images)
    if not any(finding.severity == "error" for finding in report.findings):
        _check_gradients(report, logits_at, model, variables, images, labels, logits)
        _check_attacks(report, logits_fn, variables, images, labels, key, norm, eps, steps, queries)
    order = {"error": 0, "warning": 1, "info": 2}
    return CheckResult(tuple(sorted(report.findings, key=lambda f: order[f.severity])), report.measurements)


class Report:
    """Collects findings and measurements."""

    def __init__(self):
        self.findings: list[Finding] = []
        self.measurements: dict[str, float] = {}

    def measure(self, name: str, value: Any) -> float:
        """Records a measurement and returns it as a float."""
        self.measurements[name] = float(value)
        return float(value)

    def add(self, name: str, severity: Severity, message: str, value: Any) -> None:
        """Adds a finding."""
        self.findings.append(Finding(name, severity, message, float(value)))


def output_findings(predict: Predict, logits_fn: Any, variables: Any, images: Images) -> tuple[np.ndarray, Report]:
    """The logits of images and findings: NaN, probabilities, logits that change from call to call or with the batch."""
    report, logits = Report(), predict(images)
    bad = (~np.isfinite(logits)).any(axis=1).sum()
    if bad:
        message = f"The model gives NaN or infinite logits for {bad} of {len(logits)} images."
        report.add("not_finite", "error", message, bad)
        return logits, report
    if checks.are_probabilities(logits):
        message = "The model returns probabilities, not logits: losses saturate and hide gradients."
        report.add("probabilities", "error", message, logits.max())
    scale = max(1e-6, float(np.abs(logits).max()))
    repeated = report.measure("repeat_difference", np.abs(predict(images) - logits).max() / scale)
    # Uncompiled too: numbers that Python draws, and weights that it reads, are frozen in the compiled model.
    eager = np.asarray(logits_of(logits_fn, variables, images))
    uncompiled = report.measure("eager_difference", np.abs(eager - logits).max() / scale)
    if repeated > 1e-4 or uncompiled > EAGER_TOLERANCE:
        repeated = max(repeated, uncompiled)
        message = (
            f"The model is not deterministic: the same images give logits that differ by {repeated:.1%} of their "
            "range, compiled or not; give it as logits_fn(variables, x, key) with version='rand'."
        )
        report.add("random", "error", message, repeated)
        return logits, report
    half = max(1, len(images) // 2)
    turned = predict(images[::-1])[::-1]
    accompanied = predict(jnp.concatenate([images[:half], 1 - images[half:]]))[:half]
    moved = max(np.abs(turned - logits).max(), np.abs(accompanied - logits[:half]).max())
    if report.measure("batch_difference", moved / scale) > 1e-3:
        message = (
            f"An image's logits change by {moved / scale:.1%} of their range with the other images of its batch: "
            "the model uses noise with a fixed key or batch statistics."
        )
        report.add("batch_dependent", "error", message, moved / scale)
    return logits, report


@functools.partial(jax.jit, static_argnums=(0, 1))
def _gradients(logits_fn, losses: tuple[Loss, ...], variables, images: Images, labels: Labels) -> jax.Array:
    """Gradient of each loss at each image [losses b h w c], by one compiled backward pass for all of them."""
    logits, pull = jax.vjp(lambda x: logits_of(logits_fn, variables, x), images)
    slopes = [jax.grad(lambda z, loss=loss: jnp.sum(loss_of(loss, labels)(z)))(logits) for loss in losses]
    return jax.lax.map(lambda slope: pull(slope)[0], jnp.stack(slopes))


def _check_gradients(report: Report, predict: Predict, logits_fn, variables, images, labels, logits) -> None:
    """Whether the losses have a gradient, and whether it predicts what a tiny step does."""
    correct = logits.argmax(axis=1) == np.asarray(labels)
    if not correct.any():
        report.add("nothing_correct", "info", "The model classifies none of these images correctly.", 0)
        return
    losses: tuple[Loss, ...] = ("ce", "cw", "dlr") if logits.shape[1] > 2 else ("ce", "cw")
    gradients = dict(zip(losses, _gradients(logits_fn, losses, variables, images, labels), strict=True))
    zero = {}
    for loss, gradient in gradients.items():
        still = np.abs(np.asarray(gradient)).max(axis=(1, 2, 3)) == 0
        zero[loss] = report.measure(f"zero_gradient_share_{loss}", still[correct].mean())
    if zero["cw"] > 0:
        message = f"The margin has no gradient at all for {zero['cw']:.0%} of the correct images: gradients are masked."
        report.add("zero_gradients", "error" if zero["cw"] > 0.5 else "warning", message, zero["cw"])
    elif zero["ce"] > 0:
        message = (
            f"Cross-entropy has no gradient in float32 for {zero['ce']:.0%} of the correct images though the margin "
            "has: logits are so large that the loss underflows; use the losses 'dlr' or 'cw'."
        )
        report.add("overconfident", "warning", message, zero["ce"])
    _check_smoothness(report, predict, images, labels, correct, gradients["cw"])


def _check_smoothness(report: Report, predict: Predict, images, labels, correct: np.ndarray, gradient) -> None:
    """Compare the change of the margin over a tiny step along its gradient with the change that it predicts."""
    size = length(gradient, "l2")
    direction = gradient / jnp.maximum(size, 1e-30)[:, None, None, None]
    ahead, behind = (
        np.asarray(cw(jnp.asarray(predict(images + side * PROBE / 2 * direction)), labels)) for side in (1, -1)
    )
    predicted, actual = np.asarray(size) * PROBE, ahead - behind
    largest = np.maximum(predicted, np.abs(actual))
    # Changes near the rounding of the logits in float32 say nothing.
    useful = correct & (largest > 1e-4 * np.maximum(1.0, np.abs(ahead)))
    wrong = useful & (np.abs(actual - predicted) > 0.5 * largest)
    share = report.measure("gradient_error_share", wrong.sum() / max(1, useful.sum()))
    if share > 0.25:
        message = (
            f"For {share:.0%} of the correct images the gradient does not predict what a tiny step does: the model "
            "is stepped or rough (quantised input, noise drawn from the image), so gradients mislead."
        )
        report.add("discontinuous", "warning", message, share)


def _check_attacks(report: Report, logits_fn, variables, images, labels, key, norm, eps, steps, queries) -> None:
    """Whether attacks behave as they must: more steps, more eps and gradients all help."""

    def accuracy(name: str, radius: float, steps: int, rounds: int = 1) -> float:
        config = PGD(norm=norm, steps=steps, keep="best", random_start=steps > 1)
        stride = _at_most_all(radius if steps == 1 else 2.5 * radius / (steps * rounds), images, norm)
        attack = functools.partial(pgd, logits_fn, variables, images, labels, key, eps=radius, step_size=stride)
        result = attack(config=config)
        for _ in range(rounds - 1):
            result = attack(config=config, start=result.images)
        return report.measure(name, 1 - jnp.mean(result.success))

    # Rounds of few steps, each from where the last ended, so that long and short attacks share one compilation.
    few = max(1, steps // ROUNDS)
    one, many = accuracy("accuracy_pgd_1", eps, 1), accuracy(f"accuracy_pgd_{ROUNDS * few}", eps, few, ROUNDS)
    if many > one + TOLERANCE:
        message = f"PGD with {steps} steps leaves {many:.1%} correct but one step only {one:.1%}: gradients mislead."
        report.add("weaker_with_steps", "warning", message, many - one)
    config = Square(norm=norm, eps=eps, queries=queries)
    result = square(logits_fn, variables, images, labels, key, config=config)
    blind = report.measure("accuracy_square", 1 - jnp.mean(result.success))
    if blind < many - TOLERANCE:
        message = f"Square, without gradients, leaves {blind:.1%} correct but PGD {many:.1%}: gradients are masked."
        report.add("square_beats_gradient", "warning", message, many - blind)
    curve = [accuracy(f"accuracy_at_{scale:g}_eps", _at_most_all(scale * eps, images, norm), few) for scale in SCALES]
    rises = max(np.diff(curve))
    if rises > TOLERANCE:
        message = f"Accuracy under attack rises by {rises:.1%} where eps grows: the attack fails, not the model."
        report.add("not_monotone", "warning", message, rises)
    left = accuracy("accuracy_at_any_image", _at_most_all(np.inf, images, norm), few)
    if left > 0.05:
        message = f"{left:.1%} stay correct when the attack may choose any image at all: the attack fails."
        report.add("survives_large_eps", "warning", message, left)


def _at_most_all(radius: float, images: Images, norm: str) -> float:
    """The radius, at most that within which every image can be reached."""
    return min(radius, diameter(norm, images.shape))
