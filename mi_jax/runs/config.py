"""What a run is asked to do: one frozen configuration and the presets it starts from. Runs nothing."""

from dataclasses import dataclass
from typing import Literal

from mi_jax import attacks
from mi_jax.attacks import PGD, Budget
from mi_jax.errors import InputError
from mi_jax.measure.information import InformationConfig
from mi_jax.training import OBJECTIVES, ObjectiveConfig, Optimizer

Preset = Literal["quick", "paper"]


@dataclass(frozen=True)
class Evaluation:
    """What judges the finished networks, in norm and radius of the training attack: PGD, AutoAttack, self-checks.

    Attributes:
        samples: test images under PGD; all if there are fewer.
        steps: gradient steps.
        step_size: length of a step, pixel units of [0, 1]; None for a quarter of the radius, or as much more as lets
            few steps go 2.5 radii in all.
        restarts: random starts; an image counts as robust if none of them changes its class.
        autoattack: `standard` or `plus` of AutoAttack, some of its attacks (such as apgd-t,square), or `none`.
        autoattack_samples: test images under AutoAttack.
        budget: its steps and queries; anything below the defaults is reported as reduced.
        checks: test images on which signs of misleading attacks are looked for; 0 for none.
    """

    samples: int = 1000
    steps: int = 20
    step_size: float | None = None
    restarts: int = 1
    autoattack: str = "none"
    autoattack_samples: int = 1000
    budget: Budget = Budget()
    checks: int = 0

    def __post_init__(self):
        for name in ("samples", "autoattack_samples"):
            if getattr(self, name) < 2:
                raise InputError(
                    f"evaluation.{name.replace('_', '-')} is {getattr(self, name)}; expected at least 2 images."
                )
        for name in ("steps", "restarts"):
            if getattr(self, name) < 1:
                raise InputError(f"evaluation.{name} is {getattr(self, name)}; expected at least 1.")
        if self.step_size is not None and not self.step_size > 0:
            raise InputError(f"evaluation.step-size is {self.step_size}; it must be positive.")
        if self.checks < 0 or self.checks == 1:
            raise InputError(f"evaluation.checks is {self.checks}; expected at least 2 images, or 0 for none.")
        known = ("none", "standard", "plus", *attacks.NAMES)
        names = self.autoattack.split(",")
        if any(name not in known for name in names) or (len(names) > 1 and set(names) & set(known[:3])):
            raise InputError(
                f"evaluation.autoattack is {self.autoattack!r}; expected none, standard, plus, or some of "
                f"{', '.join(attacks.NAMES)}, by commas without blanks."
            )


@dataclass(frozen=True)
class RunConfig:
    """One experiment: which networks are trained on what, how, and what is measured.

    Attributes:
        arch: network; see `mi_jax.models.architectures()`.
        dataset: `shapetex`, `digits`, or the name of any TFDS image-classification set.
        preset: the defaults of everything below: `quick` for minutes on a laptop, `paper` for the study's own scale.
        training: objectives to compare, separated by commas; see `mi_jax.training.OBJECTIVES`.
        seeds: how many seeds; each gives one initialisation that all trainings share.
        epochs: passes over the training images.
        width: multiplier of every layer's width.
        batch_size: images an update.
        limit: use at most so many images of each split, balanced over classes; None for all.
        dtype: of computation; parameters, statistics, images and logits stay float32.
        mesh: devices that share each batch: `auto`, `none`, or `data=N`.
        population: train the seeds side by side (`vmap`) or in turn (`loop`); `auto` fits backend and network.
        studies: to run on the finished networks, separated by commas (see `mi_jax.studies.STUDIES`); `all` that apply
            to the data set, or none if empty.
        study_samples: test images each of them looks at.
        optimizer, attack, probe, evaluation: see their classes. The attack is the inner one of adversarial training
            and makes the adversarial examples on which information is measured.
        attack_batch_norm: mode of batch normalisation in the training attack.
        attack_warmup: epochs over which the perturbations of adversarial training grow from nothing to full length. A
            network that knows nothing yet may answer a strong attacker with a constant for good.
        noise: standard deviation of Gaussian-noise training, pixel units of [0, 1].
        trades_beta: weight of the divergence in TRADES.
        mart_weight: weight of the divergence in MART.
        fast_step: length of the one step of fast adversarial training, in radii.
        awp: size of the adversarial weight perturbation on top of every adversarial training, relative to the weights
            (0.005 is usual); 0 for none.
        average: decay an update of a moving average of weights, which is then the network that is measured (0.995 is
            usual); 0 for none.
        held_out: share of the training images to hold out (0.02 is usual of 50,000); 0 for none. The accuracy on them
            is measured each epoch, the epoch where it is best is kept and judged, and a training whose robust
            accuracy collapses there is stopped.
    """

    arch: str = "vgg"
    dataset: str = "shapetex"
    preset: Preset = "quick"
    training: str = "nt,at"
    seeds: int = 2
    epochs: int = 12
    width: float = 1.0
    batch_size: int = 128
    limit: int | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    mesh: str = "auto"
    population: Literal["auto", "vmap", "loop"] = "auto"
    optimizer: Optimizer = Optimizer()
    attack: PGD = PGD(steps=7)
    attack_batch_norm: Literal["eval", "batch", "batch_update"] = "eval"
    attack_warmup: float = 0.0
    noise: float = 8 / 255
    trades_beta: float = 6.0
    mart_weight: float = 5.0
    fast_step: float = 1.25
    awp: float = 0.0
    average: float = 0.0
    held_out: float = 0.0
    studies: str = ""
    study_samples: int = 500
    probe: InformationConfig = InformationConfig()
    evaluation: Evaluation = Evaluation()

    def __post_init__(self):
        unknown = [name for name in self.trainings if name not in OBJECTIVES]
        if unknown or not self.trainings:
            raise InputError(f"training is {self.training!r}; expected some of {', '.join(OBJECTIVES)}, by commas.")
        if len(set(self.trainings)) != len(self.trainings):
            raise InputError(f"training is {self.training!r}; name each objective once.")
        for name in ("seeds", "epochs", "batch_size", "study_samples"):
            if getattr(self, name) < 1:
                raise InputError(f"{name.replace('_', '-')} is {getattr(self, name)}; expected at least 1.")
        if self.attack.steps == 0 and any(OBJECTIVES[name].adversarial for name in self.trainings):
            raise InputError("attack.steps is 0, which is no attack; adversarial training needs at least 1.")
        for name, usual in (("awp", 0.005), ("average", 0.995), ("held_out", 0.02)):
            flag, value = name.replace("_", "-"), getattr(self, name)
            if not 0 <= value < 1:
                raise InputError(f"{flag} is {value}; it must be 0 for none, or below 1, such as {usual}.")
        if self.attack.eps == 0 and "fast" in self.trainings:
            raise InputError(
                "attack.eps is 0, of which the one step of fast adversarial training is a part; leave it out."
            )
        if self.attack.eps == 0 and self.evaluation.checks:
            raise InputError("attack.eps is 0, at which there is nothing to check; set evaluation.checks to 0.")
        _ = self.objective_config  # refuses what is out of range
        judge = self.final_attack
        reach = judge.steps * judge.step_size
        if reach < judge.eps * (1 - 1e-6):
            raise InputError(
                f"evaluation.step-size is {judge.step_size:.4g}: {judge.steps} steps of it go {reach:.4g} and never "
                f"reach the radius {judge.eps:.4g} of attack.eps; leave it out, or take a longer one."
            )

    @property
    def trainings(self) -> tuple[str, ...]:
        """The objectives, in the order they are trained."""
        return tuple(part.strip() for part in self.training.split(",") if part.strip())

    @property
    def objective_config(self) -> ObjectiveConfig:
        """What the objectives need of this configuration."""
        return ObjectiveConfig(
            attack=self.attack, batch_norm=self.attack_batch_norm, noise=self.noise, trades_beta=self.trades_beta,
            mart_weight=self.mart_weight, fast_step=self.fast_step,
        )  # fmt: skip

    @property
    def final_attack(self) -> PGD:
        """The attack that judges the finished networks."""
        e, eps = self.evaluation, self.attack.eps
        step_size = (max(eps / 4, 2.5 * eps / e.steps) or 1.0) if e.step_size is None else e.step_size
        return PGD(norm=self.attack.norm, eps=eps, steps=e.steps, step_size=step_size, restarts=e.restarts, keep="best")


_EPS_AND_STEP = {
    "mnist": (45 / 255, 8 / 255),
    "fashion_mnist": (8 / 255, 2 / 255),
    "digits": (45 / 255, 8 / 255),
    "stl10": (4 / 255, 2 / 255),
}
_SMALL = ("mlp", "lenet", "cnn", "wrn-10-1")
_HELD_OUT = 0.02


def preset(name: Preset, *, dataset: str, arch: str, training: str = "nt,at") -> RunConfig:
    """The configuration from which the flags of a command depart.

    `paper` is the set-up of Zhang et al. (2022): 200 epochs of SGD 0.1 with momentum 0.9 and multi-step decay, PGD-7,
    5,000 measured images; on three seeds where they had one, and with images held out to tell the best epoch from the
    last. `quick` is the same experiment cut to minutes on two
    processor cores: 3,000 training images, fewer epochs, Adam, narrow networks, PGD-3, 1,000 measured images; on
    ShapeTex it also asks which cue the answers follow, and it holds images out for fast adversarial training alone,
    which is to be stopped when it collapses. The name of the data set may carry a version (`mnist:3.0.1`).
    """
    bare = dataset.split(":")[0]
    eps, step = _EPS_AND_STEP.get(bare, (8 / 255, 2 / 255))
    if name == "paper":
        return RunConfig(
            arch=arch, dataset=dataset, preset=name, training=training, seeds=3, epochs=200, held_out=_HELD_OUT,
            optimizer=Optimizer(weight_decay=0.0 if bare == "mnist" else 5e-4),
            attack=PGD(eps=eps, steps=7, step_size=step),
            studies="all",
            study_samples=1000,
            probe=InformationConfig(samples=5000),
            evaluation=Evaluation(samples=10_000, autoattack="standard", autoattack_samples=10_000, checks=100),
        )  # fmt: skip
    return RunConfig(
        arch=arch, dataset=dataset, preset=name, training=training, seeds=3, epochs=6, batch_size=64,
        width=1.0 if arch in _SMALL else 0.125,
        limit=3000,
        held_out=_HELD_OUT if "fast" in training.replace(",", " ").split() else 0.0,
        optimizer=Optimizer(name="adam", learning_rate=4e-3, weight_decay=1e-4, schedule="triangle"),
        attack=PGD(eps=eps, steps=3, step_size=eps / 2),
        attack_warmup=2.0,
        studies="shape_bias" if dataset == "shapetex" else "",
        evaluation=Evaluation(samples=250),
    )  # fmt: skip
