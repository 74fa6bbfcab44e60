"""The base class of attacks, a frozen configuration with methods `initial_state` and `step`, and their registry.

`engine.run` and `autoattack` run any attack: they handle restarts, targets, chunks, random numbers and the choice of
the returned image.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, UInt32

from mi_jax import checks
from mi_jax.attacks.engine.input_checks import check_distance, check_reach, check_step
from mi_jax.attacks.losses import check_loss, least_classes, loss_of, misclassified
from mi_jax.attacks.threat_model import (
    DEFAULT_EPS,
    NORMS,
    Norm,
    ThreatModel,
    check_norm,
    default_step_size,
    diameter,
    per_image,
)
from mi_jax.errors import InputError
from mi_jax.registry import Registry
from mi_jax.typing import Flags, Images, Labels, Logits

Words = UInt32[Array, "r w"] | None
"""Random words of each row, or None for an attack that draws none."""


SomeAttack = TypeVar("SomeAttack", bound="Attack")


class Faults(NamedTuple):
    """How often the gradient of each row was zero at a correctly classified point, or not finite."""

    zero: Int[Array, " r"]
    nonfinite: Int[Array, " r"]

    @classmethod
    def none(cls, rows: int) -> "Faults":
        """No faults so far."""
        return cls(jnp.zeros(rows, jnp.int32), jnp.zeros(rows, jnp.int32))

    def add(self, gradient: Images, wrong: Flags) -> "Faults":
        """Adds the faults of a gradient [r h w c]; `wrong` [r] are the points that are misclassified."""
        finite = jnp.isfinite(gradient)
        nonfinite = ~jnp.all(finite, axis=(1, 2, 3))
        zero = ~jnp.any(gradient != 0, axis=(1, 2, 3)) & ~wrong
        return Faults(self.zero + zero.astype(jnp.int32), self.nonfinite + nonfinite.astype(jnp.int32))


class Batch(NamedTuple):
    """The rows of an attack, one for each image, restart and target.

    Attributes:
        images: clean images [r h w c].
        labels: [r].
        targets: target classes [r], or None.
        restarts: number of the restart [r].
        start: first points [r h w c], or None where the attack chooses them.
    """

    images: Images
    labels: Labels
    targets: Labels | None
    restarts: Labels
    start: Images | None = None


class Point(NamedTuple):
    """The model at one point of each row: losses (-inf where not finite), logits, and misclassification."""

    losses: Float[Array, " r"]
    logits: Float[Array, "r k"]
    wrong: Bool[Array, " r"]


@dataclasses.dataclass(frozen=True)
class Problem:
    """What an attack is given.

    Attributes:
        batch: clean images, labels and targets.
        threat: the threat model.
        logits: the model, `logits(images, draw)`; `draw` is an index of the noise of a random model.
    """

    batch: Batch
    threat: ThreatModel
    logits: Callable[[Images, ArrayLike], Logits]

    @property
    def clean(self) -> Images:
        """The clean images [r h w c]."""
        return self.batch.images

    @property
    def labels(self) -> Labels:
        """The labels [r]."""
        return self.batch.labels

    def evaluate(
        self, images: Images, draw: ArrayLike, loss: str, reference: Logits | None = None
    ) -> tuple[Array, Point]:
        """The sum of the named loss to maximise, and the model at the images."""
        logits = self.logits(images, draw)
        losses = loss_of(loss, self.labels, targets=self.batch.targets, reference=reference)(logits)
        losses = losses.astype(images.dtype)
        kept = jax.lax.stop_gradient(jnp.where(jnp.isfinite(losses), losses, -jnp.inf))
        return jnp.sum(losses), Point(kept, logits, misclassified(logits, self.labels))

    def gradient(
        self, images: Images, draw: ArrayLike, loss: str, reference: Logits | None = None
    ) -> tuple[Images, Point]:
        """The gradient of each row's loss [r h w c], NaN where the loss is not finite, and the model at the images."""
        gradient, seen = jax.grad(self.evaluate, has_aux=True)(images, draw, loss, reference)
        return jnp.where(per_image(jnp.isfinite(seen.losses)), gradient, jnp.nan), seen


class Outcome(NamedTuple):
    """The best image of each row.

    Attributes:
        images: inside the threat model.
        found: whether the image is misclassified.
        logits: logits of the images, where the attack has them.
        loss: loss of the images, where it is not the margin max_{i != y} z_i - z_y.
        rank: the restart or target of highest rank is returned; None for the loss.
        faults: faults of the gradients; None for an attack without gradients.
    """

    images: Images
    found: Flags
    logits: Logits | None = None
    loss: Array | None = None
    rank: Array | None = None
    faults: Faults | None = None


@dataclasses.dataclass(frozen=True)
class Attack:
    """Base class of all attacks: a frozen dataclass of settings, with the methods that carry the attack out.

    A subclass defines `initial_state` and `step` and is registered under one or more names. It is a pytree whose leaves
    are the settings named in `traced`, so that another radius does not compile the attack again; other settings are
    static.

    Attributes:
        norm: `linf`, `l2` or `l1`.
        eps: radius in pixel units of [0, 1]; None for 8/255 in Linf, 0.5 in L2 and 12 in L1. Inside `initial_state` and
            `step`, an array that broadcasts over images, since each image may have its own.
        restarts: independent starts; each image keeps the worst.
        targets: number of highest wrong classes that are attacked one by one; 0 for an untargeted attack.
        loss: name of the loss, empty for an attack without one.
        step_size: length of a step in pixel units; None for 2/255 in Linf and eps / 4 in L2 and L1; inside, as `eps`.
        norms: the norms that the attack supports.
        traced: names of the settings that may change without a new compilation.
        effort: name of the setting that is the number of gradient steps or queries.
        budget: {setting: field of `Budget`} of the settings that AutoAttack replaces.
        uses_gradients: whether the attack is white-box.
        allows_zero_eps: whether the attack accepts eps = 0.
        takes_start: whether it starts from `Batch.start` where that is given.
    """

    norm: Norm | str = "linf"
    eps: float = None  # pyright: ignore[reportAssignmentType]  # a number once `__post_init__` has run

    restarts = 1
    targets = 0
    loss = ""
    step_size = None
    norms: ClassVar[tuple[str, ...]] = NORMS
    traced: ClassVar[tuple[str, ...]] = ("eps",)
    effort: ClassVar[str] = "steps"
    budget: ClassVar[dict[str, str]] = {}
    uses_gradients: ClassVar[bool] = True
    allows_zero_eps: ClassVar[bool] = False
    takes_start: ClassVar[bool] = False

    def __init_subclass__(cls):
        jax.tree_util.register_pytree_node(cls, cls._flatten, cls._unflatten)

    def __post_init__(self):
        object.__setattr__(self, "norm", check_norm(self.norm))
        if self.norm not in self.norms:
            supported = ", ".join(self.norms)
            raise InputError(f"{type(self).__name__} does not support the norm {self.norm!r}, only {supported}.")
        if self.eps is None:
            object.__setattr__(self, "eps", DEFAULT_EPS[self.norm])
        check_distance("eps", self.eps, self.norm)
        checks.count(self.effort, getattr(self, self.effort), 0 if self.allows_zero_eps else 1)
        checks.count("restarts", self.restarts)
        checks.count("targets", self.targets, 0)
        if self.loss or type(self).loss:
            check_loss(self.loss)
        if "step_size" in self.traced:
            if self.step_size is None:
                object.__setattr__(self, "step_size", default_step_size(str(self.norm), self.eps))
            check_distance("step_size", self.step_size, self.norm, positive=True)
            check_step(self.step_size, self.eps, self.norm)

    def _flatten(self):
        names = [field.name for field in dataclasses.fields(self)]
        static = tuple((name, getattr(self, name)) for name in names if name not in self.traced)
        return [getattr(self, name) for name in self.traced], static

    @classmethod
    def _unflatten(cls, static, leaves):
        attack = object.__new__(cls)
        attack.__dict__.update(static, **dict(zip(cls.traced, leaves, strict=True)))
        return attack

    def with_values(self: SomeAttack, **values: Any) -> SomeAttack:
        """A copy with other settings, which may be traced and are not checked; None keeps a setting."""
        attack = object.__new__(type(self))
        attack.__dict__.update(vars(self), **{name: value for name, value in values.items() if value is not None})
        return attack

    def as_arrays(self: SomeAttack, dtype: Any) -> SomeAttack:
        """A copy whose traced settings are arrays of one dtype, so that other values do not compile again."""
        return self.with_values(**{name: jnp.asarray(getattr(self, name), dtype) for name in self.traced})

    def per_row(self: SomeAttack, count: int) -> SomeAttack:
        """A copy whose traced settings, one number or one per image, are given for each row [r 1 1 1]."""

        def rows(value: Any) -> Array:
            return per_image(jnp.repeat(jnp.broadcast_to(value, (count,)), self.rows_per_image))

        return self.with_values(**{name: rows(getattr(self, name)) for name in self.traced})

    @property
    def budget_fields(self) -> dict[str, str]:
        """`budget`, without restarts for a targeted attack and without targets for an untargeted one."""
        absent = "restarts" if self.targets else "targets"
        return {setting: field for setting, field in self.budget.items() if setting != absent}

    @property
    def threat(self) -> ThreatModel:
        """The threat model."""
        return ThreatModel(self.norm, self.eps)

    @property
    def rows_per_image(self) -> int:
        """Rows per image: restarts times targets."""
        return self.restarts * max(1, self.targets)

    @property
    def iterations(self) -> int:
        """Number of calls of `step`: by default one more than the effort, as the last call only evaluates."""
        return getattr(self, self.effort) + 1

    @property
    def gradients(self) -> int:
        """Number of gradients: by default one in each iteration."""
        return self.iterations

    @property
    def least_classes(self) -> int:
        """The least number of classes of the model."""
        return least_classes(self.loss, self.targets > 0)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raises `InputError` for images [h w c] that the attack cannot handle, or are closer than its sizes."""
        for name in self.traced:
            check_reach(name, getattr(self, name), diameter(str(self.norm), shape))

    def start_words(self, shape: tuple[int, ...]) -> int:
        """Random 32-bit words that `initial_state` needs for each row, for images of shape [h w c]."""
        return 0

    def step_words(self, shape: tuple[int, ...]) -> int:
        """Random 32-bit words that each `step` needs for each row."""
        return 0

    def initial_state(self, problem: Problem, words: Words) -> Any:
        """The state before the first step: a NamedTuple of arrays with one entry per row.

        It has at least `images` [r h w c], the best images so far, inside the threat model; `found` [r], whether they
        are misclassified; and `faults`, unless `outcome` is overridden. A row must not depend on other rows.
        """
        raise NotImplementedError

    def step(self, problem: Problem, state: Any, i: Any, words: Words) -> Any:
        """The state after one iteration; `i` counts from 0."""
        raise NotImplementedError

    def outcome(self, state: Any) -> Outcome:
        """The result of a state."""
        return Outcome(state.images, state.found, faults=state.faults)

    def recorded_loss(self, state: Any) -> Array | None:
        """The value recorded in `AttackResult.step_loss` after each step [r], or None."""
        return None


ATTACKS: Registry[Attack] = Registry("attack", package="mi_jax.attacks")
"""Attacks by name, each with its default settings."""


def register(name: str, attack: Attack | None = None) -> Any:
    """Registers an attack under a name, for `autoattack`, reports and the command line.

    Args:
        name: as in `autoattack(..., version=[name])`.
        attack: its settings. Without it, `register(name)` is a decorator of a class with defaults for all settings.

    Examples:
        >>> from mi_jax.attacks import APGD, Budget, plan
        >>> attack = register("apgd-cw", APGD(loss="cw"))
        >>> [(name, config.loss) for name, config in plan(["apgd-cw"], "linf", 0.1, Budget(), 10, (32, 32, 3))]
        [('apgd-cw', 'cw')]
        >>> ATTACKS.unregister("apgd-cw")
    """
    if attack is not None:
        return ATTACKS.register(name, attack)

    def enter(cls: type[Attack]) -> type[Attack]:
        ATTACKS.register(name, cls(), defined_by=cls)
        return cls

    return enter


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttackResult:
    """Adversarial images, with the outputs of the model.

    Attributes:
        images: [b h w c] in [0, 1], inside the threat model.
        success: [b], true where the returned image or the clean one is misclassified: an attack may lead an image that
            is misclassified without it back to its class, but that image is not robust.
        loss: [b] at the returned image: for PGD and MI-FGSM the loss that they maximise, else the margin
            max_{i != y} z_i - z_y.
        step_loss: [steps + 1, b], the loss of the chosen restart at each iterate, or None.
        perturbation_norm: [b], pixel units.
        logits: [b k] of the returned images.
        faulty_gradients: shares of the steps with a zero and with a non-finite gradient, each [b]; None for an
            attack without gradients.
        notes: warnings that follow from the settings only.
    """

    images: Images
    success: Flags
    loss: jax.Array
    step_loss: jax.Array | None
    perturbation_norm: jax.Array
    logits: Logits
    faulty_gradients: tuple[jax.Array, jax.Array] | None = None
    notes: tuple[str, ...] = dataclasses.field(default=(), metadata={"static": True})

    @property
    def predictions(self) -> Labels:
        """Predicted class of each returned image [b]."""
        return jnp.argmax(self.logits, axis=1)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes the outcome doubtful; the gradients are not known inside a JAX transformation."""
        if self.faulty_gradients is None or not checks.known(self.faulty_gradients):
            return self.notes
        return (*gradient_warnings("The attack", *self.faulty_gradients), *self.notes)


def reach_warnings(config: Attack) -> tuple[str, ...]:
    """A warning where all steps of an attack together are shorter than its radius, if both are one known number.

    Args:
        config: the attack; one without a fixed step size gets no warning.
    """
    if "step_size" not in config.traced:
        return ()
    steps: int = getattr(config, "steps", 0)
    sizes: tuple[Any, Any] = (config.step_size, config.eps)
    if not steps or any(np.ndim(size) for size in sizes) or not checks.known(sizes):
        return ()
    step_size, eps = (float(np.asarray(size)) for size in sizes)
    reach = steps * step_size
    if reach >= eps * (1 - 1e-6):
        return ()
    return (
        f"{steps} steps of {step_size:.4g} go {reach:.4g} and never reach the radius {eps:.4g} from the clean image: "
        "take more or longer steps.",
    )


def gradient_warnings(attack: str, zero: Any, nonfinite: Any) -> tuple[str, ...]:
    """Warnings about zero and non-finite gradients, from their shares of the steps for each image [b]."""
    warnings = []
    for shares, what, advice in (
        (
            nonfinite,
            "non-finite losses or gradients",
            "such entries were treated as zero: check the model for roots and logarithms",
        ),
        (
            zero,
            "zero gradients on correctly classified points",
            "it may overstate robustness: try the loss 'cw' or 'dlr'",
        ),
    ):
        affected = int((shares > 0).sum())
        if affected:
            warnings.append(
                f"{attack} found {what} on {affected} of {len(shares)} images, at {float(shares.mean()):.1%} of all "
                f"steps; {advice}."
            )
    return tuple(warnings)


def check_config(config: Any, *kinds: type) -> None:
    """Raises `InputError` unless the configuration is of one of the classes."""
    if not isinstance(config, kinds):
        names = " or ".join(f"mi_jax.attacks.{kind.__name__}" for kind in kinds)
        raise InputError(f"config must be {names}, not {type(config).__name__}; mi_jax.attacks.run takes any attack.")
