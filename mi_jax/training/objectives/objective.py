"""What an objective is, the settings that all of them share, and the parts that several use."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from mi_jax import checks
from mi_jax.attacks import PGD, ascend
from mi_jax.errors import InputError
from mi_jax.models import Network
from mi_jax.registry import Registry
from mi_jax.typing import Images, Key, Labels, Logits, Variables

Statistics = dict[str, Any]
"""The running batch statistics, `variables["batch_stats"]`."""
BatchNormMode = Literal["eval", "batch", "batch_update"]


class Outcome(NamedTuple):
    """Logits on the images trained on, and the updated batch statistics."""

    logits: Logits
    batch_stats: Statistics


@dataclass(frozen=True, kw_only=True)
class Objective(ABC):
    """A training objective; the fields of a subclass are its options.

    Attributes:
        title: its name in words.
        inputs: what kind of images it trains on.
        adversarial: whether those are adversarial examples.
        architectures: the only ones that it can train; empty for any.
    """

    title: ClassVar[str]
    inputs: ClassVar[Literal["clean", "adversarial", "noisy"]]
    adversarial: ClassVar[bool]
    architectures: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        cls.adversarial = getattr(cls, "inputs", None) == "adversarial"

    @staticmethod
    @abstractmethod
    def forwards(steps: int) -> int:
        """The cost per image in forward passes, from the number of attack steps."""

    def check(self, config: "ObjectiveConfig") -> None:
        """Refuses shared settings with which the objective cannot train: for an adversarial one, an attack of no step.

        Args:
            config: the settings that all objectives share.

        Raises:
            InputError: for such settings.
        """
        if self.adversarial:
            checks.count("attack.steps", config.attack.steps)

    def perturb(
        self, network: Network, variables: Variables, x: Images, y: Labels, key: Key, config: "ObjectiveConfig"
    ) -> tuple[Images, Statistics]:
        """The images to train on, and the batch statistics after making them; not differentiated.

        Args:
            network: the network in training.
            variables: its variables.
            x: images `[b h w c]` in [0, 1].
            y: labels `[b]`.
            key: random key for any randomness in it.
            config: the settings that all objectives share.
        """
        return x, variables["batch_stats"]

    def loss(
        self, network: Network, variables: Variables, x: Images, perturbed: Images, y: Labels, key: Key
    ) -> tuple[jax.Array, Outcome]:
        """The mean loss of a batch in nats, in training mode; differentiated with respect to the parameters.

        The default is the cross-entropy on `perturbed`. Arguments as for `perturb`, whose images are `perturbed`.
        """
        logits, _, statistics = network.apply_train(variables, perturbed, key)
        losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, y)
        return jnp.mean(losses), Outcome(logits, statistics)


OBJECTIVES: Registry[type[Objective]] = Registry("training", package="mi_jax.training.objectives")
"""Training objectives by the name that a run's `training` takes; each is one file of this package."""
register = OBJECTIVES.registering


_PGD_7 = PGD(steps=7)


@dataclass(frozen=True, init=False)
class ObjectiveConfig:
    """The settings that all objectives share, and the options of those that have any.

    Attributes:
        attack: the inner maximisation: one run to its last point on the loss of the objective, so that its own `loss`,
            `keep` and `restarts` must be `ce`, `last` and 1.
        batch_norm: mode of batch normalisation inside the attack: `eval` uses the running statistics (TRADES, MART,
            torchattacks); `batch` those of the batch without keeping them; `batch_update` those of the batch, and
            every attack step updates the running ones (Rice et al. 2020, Wong et al. 2020).
        objectives: objectives with options other than their defaults.

    Examples:
        >>> ObjectiveConfig(trades_beta=3.0).objective("trades")
        Trades(trades_beta=3.0)
    """

    attack: PGD
    batch_norm: BatchNormMode
    objectives: tuple[Objective, ...]

    def __init__(
        self,
        attack: PGD = _PGD_7,
        batch_norm: BatchNormMode = "eval",
        objectives: tuple[Objective, ...] = (),
        **options: Any,
    ):
        """Takes the options of objectives by keyword, whichever objective declares them.

        Raises:
            InputError: for a value out of range, or an option that no objective has.
        """
        if not isinstance(attack, PGD):
            raise InputError(f"attack must be mi_jax.attacks.PGD, not {type(attack).__name__}.")
        for name, only in (("loss", "ce"), ("keep", "last"), ("restarts", 1)):
            if getattr(attack, name) != only:
                raise InputError(
                    f"Invalid attack.{name} {getattr(attack, name)!r}: expected {only!r}, since the attack of a "
                    "training makes one run to its last point on the loss of its objective."
                )
        checks.one_of("batch_norm", batch_norm, get_args(BatchNormMode))
        object.__setattr__(self, "attack", attack)
        object.__setattr__(self, "batch_norm", batch_norm)
        object.__setattr__(self, "objectives", _with_options(objectives, options))

    def objective(self, name: str) -> Objective:
        """The objective of that name with its options.

        Raises:
            InputError: when there is none.
        """
        kind = OBJECTIVES.get_or_explain(name)
        return next((objective for objective in self.objectives if type(objective) is kind), kind())


def _with_options(objectives: tuple[Objective, ...], options: dict[str, Any]) -> tuple[Objective, ...]:
    """The objectives with `options` changed, each in every objective that declares an option of its name."""
    if not options:
        return objectives
    given = {type(objective): objective for objective in objectives}
    changed, unused = [], dict(options)
    for kind in OBJECTIVES.values():
        own = {field.name: options[field.name] for field in dataclasses.fields(kind) if field.name in options}
        objective = dataclasses.replace(given.get(kind, kind()), **own)
        unused = {name: value for name, value in unused.items() if name not in own}
        if objective != kind():
            changed.append(objective)
    if unused:
        known = sorted({field.name for kind in OBJECTIVES.values() for field in dataclasses.fields(kind)})
        raise InputError(f"No training has an option {next(iter(unused))!r}; choose from {', '.join(known)}.")
    return tuple(changed)


def pgd_examples(
    network: Network, variables: Variables, x: Images, y: Labels, key: Key, config: ObjectiveConfig
) -> tuple[Images, Statistics]:
    """PGD on the cross-entropy, with attack and batch-normalisation mode of `config`; see `Objective.perturb`."""
    logits_of = attacked_logits(network, variables, key, config)

    def objective(images: Images, statistics: Statistics) -> tuple[jax.Array, Statistics]:
        logits, statistics = logits_of(images, statistics)
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, y), statistics

    return ascend(objective, x, key, config=config.attack, state=variables["batch_stats"])


def clean_and_perturbed(
    network: Network, variables: Variables, x: Images, perturbed: Images, key: Key
) -> tuple[Logits, Logits, Statistics]:
    """Logits on the clean and the perturbed batch in training mode, and the updated batch statistics.

    Two passes, each normalised by its own batch; the running statistics are updated with the clean batch, then with
    the perturbed one.
    """
    clean, _, statistics = network.apply_train(variables, x, key)
    updated = {**variables, "batch_stats": statistics}
    logits, _, statistics = network.apply_train(updated, perturbed, key)
    return clean, logits, statistics


def attacked_logits(
    network: Network, variables: Variables, key: Key, config: ObjectiveConfig
) -> Callable[[Images, Statistics], tuple[Logits, Statistics]]:
    """The function that the inner attack differentiates: images and batch statistics to logits and batch statistics."""
    params, mode = variables["params"], config.batch_norm
    if mode == "eval":
        folded, weights = network.fold(variables)  # once, before the steps
        return lambda images, statistics: (folded.logits(weights, images), statistics)

    def logits_of(images: Images, statistics: Statistics) -> tuple[Logits, Statistics]:
        current = {"params": params, "batch_stats": statistics}
        logits, _, updated = network.apply_train(current, images, key)
        return logits, updated if mode == "batch_update" else statistics

    return logits_of
