"""Sanity checks of a robustness evaluation: masked gradients, random outputs, attacks that fail.

They follow the checks in AutoAttack (Croce and Hein 2020) and the checklist of Carlini et al. (2019).
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
from mi_jax.attacks.losses import Loss, cw, loss_of, misclassified
from mi_jax.attacks.pgd import PGD, ascend, pgd
from mi_jax.attacks.square import Square, square
from mi_jax.attacks.threat_model import DEFAULT_EPS, check_norm, diameter, length
from mi_jax.errors import InputError
from mi_jax.parallel import backend, on_host
from mi_jax.typing import Images, Key, Labels, LogitsFn

Severity = Literal["info", "warning", "error"]
TOLERANCE = 0.02
"""Difference of two robust accuracies from which it counts as a finding."""
LOSS_GAIN, LOSS_LEVEL = 0.05, 0.01
"""Share of the images that another loss than the cross-entropy breaks in addition, and level of its sign test, from
which it counts as a finding."""
TEST_STEP = 1e-2
"""L2 length of the step on which the gradient is tested; a hundredth of the range of one pixel."""
STEP_IN_ROUNDING = 16
"""Length of that step in relative roundings of the model, where that is longer: else a change of the logits drowns in
their rounding."""
EAGER_TOLERANCE = 0.05
"""Share of the largest logit by which compilation may change the logits of a model that computes in bfloat16."""
SATURATION = 0.1
"""Length of the gradient of the label's logit, in that of the highest other logit, below which it is flat. Without
saturation both pass through the same layers and have lengths of one order."""
SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
ROUNDS = 5
"""Rounds of the short PGD, the one compared over eps, that make up the long one."""
Predict = Callable[[Images], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Finding:
    """A sign that a robustness evaluation is misleading.

    Attributes:
        name: stable identifier.
        severity: `error` if gradient attacks say nothing about the robustness of this model, `warning` if they may
            overstate it, `info` otherwise.
        message: one sentence.
        value: the number behind it.
    """

    name: str
    severity: Severity
    message: str
    value: float


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """The findings, worst first, and all measurements by name."""

    findings: tuple[Finding, ...]
    measurements: dict[str, float]

    @property
    def passed(self) -> bool:
        """Whether there is neither an error nor a warning."""
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
    """Checks a model for signs that attacks on it are misleading. Does not run inside jit.

    Possible findings: `not_finite` (NaN and infinite logits, except -inf next to finite ones, which masks a class),
    `random`, `batch_dependent` and `probabilities` (the logits); `zero_gradients`, `overconfident` (cross-entropy
    underflows in float32 while the margin has a gradient), `saturated` (the logit of the label hardly depends on the
    image), `discontinuous` (the gradient does not predict the effect of a small step);
    `weaker_with_steps` (PGD with all steps breaks fewer images than with one), `weaker_on_cross_entropy` (PGD on the
    margin or the DLR loss breaks more images), `square_beats_gradient`, `survives_large_eps`, `not_monotone` (in eps).

    `weaker_on_cross_entropy` needs a net gain of 5 % of the images, which is more than the 1 to 4 % by which the margin
    is the stronger loss on sound adversarially trained networks, and a sign test on the images that one of the two
    attacks alone breaks (McNemar 1947): if both losses were as strong, so many would fall to the other one in less than
    1 % of all cases, whatever random starts do.

    Args:
        logits_fn, variables: the model, as for `pgd`.
        x: images [n h w c] in [0, 1]; 100 to 200 are enough.
        y: labels [n].
        key: a random key or a seed.
        norm: `linf`, `l2` or `l1`.
        eps: radius in pixel units of [0, 1]; None for 8/255 in Linf, 0.5 in L2 and 12 in L1.
        steps: number of PGD steps.
        queries: number of queries of Square.

    Returns:
        Findings and measurements; a faulty model is a finding, not an error.

    Raises:
        InputError: for bad images, labels or eps, as `autoattack`.
    """
    norm = check_norm(norm)
    eps = DEFAULT_EPS[norm] if eps is None else eps
    check_distance("eps", eps, norm, positive=True)
    checks.count("steps", steps)
    if not checks.known(x, y, variables):
        raise InputError("mi_jax.attacks.check cannot be traced; call it outside of jit.")
    images, labels = check_batch(x, y)
    model, key = Model(logits_fn), checks.key(key)

    def logits_at(x: Images) -> np.ndarray:
        return np.asarray(predict(model, variables, x, None))

    logits, report = output_findings(logits_at, model, variables, images)
    if not any(finding.severity == "error" for finding in report.findings):
        losses: tuple[Loss, ...] = ("ce", "cw", "dlr") if logits.shape[1] > 2 else ("ce", "cw")
        _check_gradients(report, logits_at, model, variables, images, labels, logits, losses)
        _check_attacks(report, logits_fn, variables, images, labels, key, norm, eps, steps, queries, losses)
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
    """The logits of images, and findings about them: not finite, probabilities, not deterministic, batch-dependent."""
    report, logits = Report(), predict(images)
    bad = checks.without_prediction(logits).sum()
    if bad:
        message = f"The model gives NaN or infinite logits for {bad} of {len(logits)} images."
        report.add("not_finite", "error", message, bad)
        return logits, report
    if checks.are_probabilities(logits):
        message = "The model returns probabilities, not logits: losses saturate and hide gradients."
        report.add("probabilities", "error", message, logits.max())
    scale, precision = max(1e-6, largest(logits)), _precision(logits_fn, variables, images)
    report.measure("precision", precision)
    repeated = report.measure("repeat_difference", largest_difference(predict(images), logits) / scale)
    # Also without compilation: numbers drawn in Python are constants in the compiled model.
    eager = on_host(logits_of(logits_fn, variables, images))
    uncompiled = report.measure("eager_difference", largest_difference(eager, logits) / scale)
    if repeated > max(1e-4, precision) or uncompiled > EAGER_TOLERANCE:
        repeated = max(repeated, uncompiled)
        message = (
            f"The model is not deterministic: logits of the same images differ by {repeated:.1%} of the largest; pass "
            "it as logits_fn(variables, x, key) with version='rand'."
        )
        report.add("random", "error", message, repeated)
        return logits, report
    half = max(1, len(images) // 2)
    turned = predict(images[::-1])[::-1]
    accompanied = predict(jnp.concatenate([images[:half], 1 - images[half:]]))[:half]
    moved = max(largest_difference(turned, logits), largest_difference(accompanied, logits[:half]))
    if report.measure("batch_difference", moved / scale) > max(1e-3, 4 * precision):
        message = (
            f"The logits of an image depend on the other images of its batch, by {moved / scale:.1%} of the largest: "
            "the model uses batch statistics, or noise with a fixed key."
        )
        report.add("batch_dependent", "error", message, moved / scale)
    return logits, report


def largest(logits: np.ndarray) -> float:
    """Largest absolute logit, of classes that are not masked by minus infinity."""
    return float(np.abs(logits[np.isfinite(logits)]).max())


def largest_difference(logits: np.ndarray, others: np.ndarray) -> float:
    """Largest absolute difference of logits; zero for a class that both mask by minus infinity."""
    return float(np.abs(np.subtract(logits, others, out=np.zeros_like(logits), where=logits != others)).max())


def _precision(logits_fn: Any, variables: Any, images: Images) -> float:
    """Relative rounding of the coarsest arithmetic in a model: of its narrowest dtype, or of the device's products."""
    traced = str(predict.trace(logits_fn, variables, images, None).jaxpr)
    narrow = [dtype for name, dtype in (("bf16", jnp.bfloat16), ("f16", jnp.float16)) if f":{name}[" in traced]
    narrow += [jnp.bfloat16] if backend() == "tpu" else []
    tensor_float = [2.0**-10] if backend() in ("gpu", "cuda") else []
    return max([*tensor_float, *(float(jnp.finfo(dtype).eps) for dtype in (images.dtype, *narrow))])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _gradients(logits_fn, losses: tuple[Loss, ...], variables, images: Images, labels: Labels) -> jax.Array:
    """Gradient of each loss, and last of the label's logit, at each image [losses + 1, b h w c].

    One compiled backward pass serves all.
    """
    logits, pull = jax.vjp(lambda x: logits_of(logits_fn, variables, x), images)
    slopes = [jax.grad(lambda z, loss=loss: jnp.sum(loss_of(loss, labels)(z)))(logits) for loss in losses]
    slopes.append(jax.nn.one_hot(labels, logits.shape[1], dtype=logits.dtype))
    return jax.lax.map(lambda slope: pull(slope)[0], jnp.stack(slopes))


def _check_gradients(report: Report, predict: Predict, logits_fn, variables, images, labels, logits, losses) -> None:
    """Findings about zero gradients, and gradients that do not predict the effect of a small step."""
    correct = logits.argmax(axis=1) == np.asarray(labels)
    if not correct.any():
        report.add("nothing_correct", "info", "The model classifies none of these images correctly.", 0)
        return
    *by_loss, own = _gradients(logits_fn, losses, variables, images, labels)
    gradients = dict(zip(losses, by_loss, strict=True))
    zero = {}
    for loss, gradient in gradients.items():
        still = np.abs(np.asarray(gradient)).max(axis=(1, 2, 3)) == 0
        zero[loss] = report.measure(f"zero_gradient_share_{loss}", still[correct].mean())
    if zero["cw"] > 0:
        message = (
            f"The gradient of the margin is zero for {zero['cw']:.0%} of the correct images: gradients are masked."
        )
        report.add("zero_gradients", "error" if zero["cw"] > 0.5 else "warning", message, zero["cw"])
    elif zero["ce"] > 0:
        message = (
            f"The gradient of the cross-entropy is zero for {zero['ce']:.0%} of the correct images, but not that of "
            "the margin: logits are so large that the loss underflows in float32; use the loss 'dlr' or 'cw'."
        )
        report.add("overconfident", "warning", message, zero["ce"])
    runner_up = np.asarray(length(gradients["cw"] + own, "l2"))
    flat = np.asarray(length(own, "l2")) < SATURATION * runner_up
    saturated = report.measure("saturated_share", flat[correct].mean())
    if saturated > 0.25:
        message = (
            f"For {saturated:.0%} of the correct images the gradient of the label's logit is less than "
            f"{SATURATION:.0%} of that of the runner-up: logits saturate, so gradients mislead."
        )
        report.add("saturated", "warning", message, saturated)
    _check_smoothness(report, predict, images, labels, correct, gradients["cw"])


def _check_smoothness(report: Report, predict: Predict, images, labels, correct: np.ndarray, gradient) -> None:
    """Compares the change of the margin over a small step along its gradient with the change that it predicts."""
    size, step = length(gradient, "l2"), max(TEST_STEP, STEP_IN_ROUNDING * report.measurements["precision"])
    direction = gradient / jnp.maximum(size, 1e-30)[:, None, None, None]
    ahead, behind = (
        np.asarray(cw(jnp.asarray(predict(images + side * step / 2 * direction)), labels)) for side in (1, -1)
    )
    predicted, actual = np.asarray(size) * step, ahead - behind
    largest = np.maximum(predicted, np.abs(actual))
    # Changes close to the rounding of the logits are not meaningful.
    rounding = max(1e-4, 8 * report.measurements["precision"])
    useful = correct & (largest > rounding * np.maximum(1.0, np.abs(ahead)))
    wrong = useful & (np.abs(actual - predicted) > 0.5 * largest)
    share = report.measure("gradient_error_share", wrong.sum() / correct.sum())
    if share > 0.25:
        message = (
            f"For {share:.0%} of the correct images the gradient does not predict the effect of a small step: the "
            "model is discontinuous (quantised input, noise seeded by the image), so gradients mislead."
        )
        report.add("discontinuous", "warning", message, share)


def _check_attacks(
    report: Report, logits_fn, variables, images, labels, key, norm, eps, steps, queries, losses
) -> None:
    """Findings about attacks that more steps, a larger eps or gradients do not help."""

    def accuracy(name: str, radius: float, steps: int, rounds: int = 1) -> float:
        single = steps * rounds == 1
        config = PGD(norm=norm, steps=steps, keep="best", random_start=not single)
        stride = _limited(radius if single else 2.5 * radius / (steps * rounds), images, norm)
        attack = functools.partial(pgd, logits_fn, variables, images, labels, key, eps=radius, step_size=stride)
        result = attack(config=config)
        for _ in range(rounds - 1):
            result = attack(config=config, start=result.images)
        return report.measure(name, 1 - jnp.mean(result.success))

    # Rounds of few steps, each from the end of the last, so that long and short attacks share one compilation.
    few = max(1, steps // ROUNDS)
    one, many = accuracy("accuracy_pgd_1", eps, 1), accuracy(f"accuracy_pgd_{ROUNDS * few}", eps, few, ROUNDS)
    if many > one + TOLERANCE:
        long = f"PGD-{ROUNDS * few}"
        message = f"Accuracy is {many:.1%} under {long} but {one:.1%} under a single step: gradients mislead."
        report.add("weaker_with_steps", "warning", message, many - one)
    step_size = _limited(2.5 * eps / steps, images, norm)
    config = PGD(norm=norm, steps=steps)
    broken = _broken_on(Model(logits_fn), losses, config, variables, images, labels, key, eps, step_size)
    _compare_losses(report, dict(zip(losses, np.asarray(broken), strict=True)))
    config = Square(norm=norm, eps=eps, queries=queries)
    result = square(logits_fn, variables, images, labels, key, config=config)
    blind = report.measure("accuracy_square", 1 - jnp.mean(result.success))
    if blind < many - TOLERANCE:
        message = (
            f"Accuracy is {blind:.1%} under Square, without gradients, but {many:.1%} under PGD: gradients are masked."
        )
        report.add("square_beats_gradient", "warning", message, many - blind)
    curve = [accuracy(f"accuracy_at_{scale:g}_eps", _limited(scale * eps, images, norm), few) for scale in SCALES]
    rises = max(np.diff(curve))
    if rises > TOLERANCE:
        message = (
            f"Accuracy under PGD rises by {rises:.1%} as eps grows: the attack fails, so robustness is overstated."
        )
        report.add("not_monotone", "warning", message, rises)
    left = accuracy("accuracy_at_any_image", _limited(np.inf, images, norm), few)
    if left > 0.05:
        message = f"Accuracy is {left:.1%} under PGD with unbounded eps: the attack fails, so robustness is overstated."
        report.add("survives_large_eps", "warning", message, left)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _broken_on(logits_fn, losses: tuple[Loss, ...], config: PGD, variables, images, labels, key, eps, step_size):
    """Whether the last iterate of PGD on each loss is misclassified [losses n]; one compiled loop serves all losses."""

    def attack(number):
        def objective(x, state):
            logits = logits_of(logits_fn, variables, x)
            return jnp.stack([loss_of(loss, labels)(logits) for loss in losses])[number], state

        last, _ = ascend(objective, images, key, config=config, eps=eps, step_size=step_size)
        return misclassified(logits_of(logits_fn, variables, last), labels)

    return jax.lax.map(attack, jnp.arange(len(losses)))


def _compare_losses(report: Report, broken_on: dict[Loss, np.ndarray]) -> None:
    """A finding where another loss breaks images [n] that the cross-entropy does not; see `check` for the limits."""
    from scipy.special import bdtrc  # here, as scipy is slow to import and most callers do without

    for loss, broken in broken_on.items():
        report.measure(f"accuracy_pgd_{loss}", 1 - broken.mean())
    by_ce, loss = broken_on["ce"], max(broken_on, key=lambda loss: broken_on[loss].mean())
    broken = broken_on[loss]
    gained, lost = int(np.sum(broken & ~by_ce)), int(np.sum(by_ce & ~broken))
    gain = (gained - lost) / len(by_ce)
    by_chance = bdtrc(gained - 1, gained + lost, 0.5)  # at least as many, were both losses as strong
    if gain >= LOSS_GAIN and by_chance < LOSS_LEVEL:
        message = (
            f"Accuracy is {1 - by_ce.mean():.1%} under PGD on the cross-entropy but {1 - broken.mean():.1%} on the "
            f"loss {loss!r}: the logits saturate or are badly scaled, so evaluate with {loss!r} or AutoAttack."
        )
        report.add("weaker_on_cross_entropy", "warning", message, gain)


def _limited(radius: float, images: Images, norm: str) -> float:
    """The radius, or the smaller one that contains all images."""
    return min(radius, diameter(norm, images.shape))
