"""The configuration of a run, and the presets that it starts from."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import tyro

from mi_jax import attacks, checks
from mi_jax.attacks import PGD, Budget
from mi_jax.errors import InputError
from mi_jax.measure.information import InformationConfig
from mi_jax.options import Names, check_names
from mi_jax.training import OBJECTIVES, ObjectiveConfig, Optimizer

Preset = Literal["quick", "paper"]
_VERSIONS = ("standard", "plus")
MOST_SEEDS, _MOST_EPOCHS = 10_000, 1_000_000
Option = bool | int | float | str


def _study_name(name: str) -> str:
    """The present name of a study: an earlier one is the same configuration."""
    if name in ("all", "shape_bias"):  # the presets' choices, so that help need not import the studies
        return name
    from mi_jax.studies import STUDIES

    return STUDIES.resolve(name)


@dataclass(frozen=True)
class Evaluation:
    """How finished networks are evaluated, in norm and radius of the training attack: PGD, AutoAttack, sanity checks.

    Attributes:
        samples: test images for PGD; all if there are fewer.
        steps: gradient steps.
        step_size: length of a step, pixel units of [0, 1]; None for a quarter of the radius, or more where so few
            steps would go less than 2.5 radii in total.
        restarts: random starts; an image counts as robust if none of them makes it misclassified.
        autoattack: `standard` or `plus` of AutoAttack, or some of its attacks, such as apgd-t,square; `none` for none.
        autoattack_samples: test images for AutoAttack.
        budget: steps and queries of AutoAttack; anything below the defaults is reported as reduced.
        checks: test images used to look for signs of misleading attacks; 0 for none.
    """

    samples: int = 1000
    steps: int = 20
    step_size: float | None = None
    restarts: int = 1
    autoattack: Names = ()
    autoattack_samples: int = 1000
    budget: Budget = Budget()
    checks: int = 0

    def __post_init__(self):
        checks.count("evaluation.samples", self.samples, 2)
        checks.count("evaluation.autoattack_samples", self.autoattack_samples, 2)
        checks.count("evaluation.steps", self.steps)
        checks.count("evaluation.restarts", self.restarts)
        if self.step_size is not None:
            checks.positive("evaluation.step_size", self.step_size)
        if self.checks:
            checks.count("evaluation.checks", self.checks, 2)
        one = len(self.autoattack) == 1
        check_names("evaluation.autoattack", self.autoattack, (*(_VERSIONS if one else ()), *attacks.ATTACKS))


@dataclass(frozen=True)
class RunConfig:
    """One experiment: which networks are trained on what, how, and what is measured.

    Attributes:
        arch: network; see `mi_jax.models.ARCHITECTURES`.
        dataset: `shapetex`, `digits`, or the name of any TFDS image-classification set.
        preset: the defaults of everything below: `quick` for minutes on a laptop, `paper` for the scale of the study.
        trainings: objectives to compare; see `mi_jax.training.OBJECTIVES`.
        seeds: how many seeds; each gives one initialisation that all trainings share.
        epochs: passes over the training images.
        width: multiplier of every layer's width.
        batch_size: images per update.
        limit: use at most this many images of each split, balanced over classes; None for all.
        dtype: for computation; parameters, statistics, images and logits stay float32. `float32` is float32 on every
            platform; `tf32` lets accelerators round products to TF32 (TPU: bfloat16).
        mesh: devices that share each batch: `auto`, `none`, `data=N`, or `seed=M,data=N` to train seeds in
            parallel, each on N of the devices.
        population: train the seeds in parallel (`vmap`) or in turn (`loop`); `auto` chooses by backend and network.
        studies: studies of the finished networks (see `mi_jax.studies.STUDIES`); `all` that apply to the data set, or
            `none`.
        study_samples: test images for each study.
        optimizer, attack, information, evaluation: see their classes. The attack is the inner one of adversarial
            training, and makes the adversarial examples on which information is measured.
        attack_batch_norm: mode of batch normalisation in the training attack.
        attack_warmup: epochs over which the perturbations of adversarial training grow from zero to full length.
            Without it, a network attacked from the first update may collapse to a constant prediction.
        noise: standard deviation of Gaussian-noise training, pixel units of [0, 1].
        trades_beta: weight of the divergence in TRADES.
        mart_weight: weight of the divergence in MART.
        fast_step: length of the single step of fast adversarial training, in radii.
        objective_options: options of other objectives, as (`objective.option`, value).
        awp: size of the adversarial weight perturbation in every adversarial training, relative to the weights
            (0.005 is usual); 0 for none.
        average: decay per update of a moving average of the weights, which is then the network that is measured (0.995
            is usual); 0 for none.
        held_out: share of the training images to hold out (0.02 is usual of 50,000); 0 for none. Accuracy on them is
            measured after each epoch, the network of the best epoch is the one that is evaluated, and a training whose
            robust accuracy collapses there is stopped.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {"training": "trainings", "probe": "information"}
    """Names of fields in earlier configurations, and what they are now."""

    arch: str = "vgg"
    dataset: str = "shapetex"
    preset: Preset = "quick"
    trainings: Annotated[Names, tyro.conf.arg(name="training")] = ("nt", "at")
    seeds: int = 2
    epochs: int = 12
    width: float = 1.0
    batch_size: int = 128
    limit: int | None = None
    dtype: Literal["float32", "tf32", "bfloat16"] = "float32"
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
    objective_options: Annotated[tuple[tuple[str, Option], ...], tyro.conf.Fixed, tyro.conf.Suppress] = ()
    awp: float = 0.0
    average: float = 0.0
    held_out: float = 0.0
    studies: Names = ()
    study_samples: int = 500
    information: InformationConfig = InformationConfig()
    evaluation: Evaluation = Evaluation()

    def __post_init__(self):
        check_names("trainings", self.trainings, OBJECTIVES)
        if not self.trainings:
            raise InputError(f"Invalid trainings: expected at least one of {', '.join(OBJECTIVES)}.")
        object.__setattr__(self, "studies", tuple(map(_study_name, self.studies)))
        checks.count("seeds", self.seeds, most=MOST_SEEDS)
        checks.count("epochs", self.epochs, most=_MOST_EPOCHS)
        for name in ("batch_size", "study_samples"):
            checks.count(name, getattr(self, name))
        checks.share("held_out", self.held_out, usual="0.02, or 0 for none")
        config = self.objective_config
        for name in self.trainings:
            config.objective(name).check(config)
        if self.evaluation.checks:
            checks.positive("attack.eps", self.attack.eps)
        if self.attack.norm == "linf" and self.evaluation.step_size is not None:
            checks.between("evaluation.step_size", self.evaluation.step_size, 0, 1, usual="2/255")
        attack = self.final_attack
        reach = attack.steps * attack.step_size
        if reach < attack.eps * (1 - 1e-6):
            raise InputError(
                f"Invalid evaluation.step_size {attack.step_size:.4g}: {attack.steps} steps go {reach:.4g} and never "
                f"reach the radius {attack.eps:.4g}; take a longer one, or none for the default."
            )

    @property
    def objective_config(self) -> ObjectiveConfig:
        """The settings of the objectives."""
        config = ObjectiveConfig(
            attack=self.attack, batch_norm=self.attack_batch_norm, noise=self.noise, trades_beta=self.trades_beta,
            mart_weight=self.mart_weight, fast_step=self.fast_step,
        )  # fmt: skip
        for path, value in self.objective_options:
            name, _, option = path.rpartition(".")
            objective = config.objective(name)
            known = [field.name for field in dataclasses.fields(objective)]
            if option not in known:
                raise InputError(f"The training {name} has no option {option!r}; it has {', '.join(known) or 'none'}.")
            others = [other for other in config.objectives if type(other) is not type(objective)]
            changed = dataclasses.replace(objective, **{option: value})
            config = ObjectiveConfig(self.attack, self.attack_batch_norm, (*others, changed))
        return config

    @property
    def final_attack(self) -> PGD:
        """The attack under which finished networks are evaluated."""
        e, eps = self.evaluation, self.attack.eps
        step_size = (max(eps / 4, 2.5 * eps / e.steps) or 1.0) if e.step_size is None else e.step_size
        return PGD(norm=self.attack.norm, eps=eps, steps=e.steps, step_size=step_size, restarts=e.restarts, keep="best")


_EPS_AND_STEP = {
    "mnist": (45 / 255, 8 / 255),
    "fashion_mnist": (8 / 255, 2 / 255),
    "digits": (45 / 255, 8 / 255),
    "stl10": (4 / 255, 2 / 255),
}
SMALL_NETWORKS = ("mlp", "lenet", "cnn", "vib", "wrn-10-1")
_HELD_OUT = 0.02


def preset(name: Preset, *, dataset: str, arch: str, trainings: tuple[str, ...] = ("nt", "at")) -> RunConfig:
    """The configuration that the flags of a command change.

    `paper` is the set-up of Zhang et al. (2022): 200 epochs of SGD 0.1 with momentum 0.9 and multi-step decay, PGD-7,
    5,000 measured images; with three seeds in place of one, and with images held out to choose the best epoch.

    `quick` is the same experiment reduced to minutes on two processor cores: 3,000 training images, fewer epochs, Adam,
    narrow networks, PGD-3, 1,000 measured images. On ShapeTex it also measures shape bias. It holds out images only for
    fast adversarial training, which must be stopped when it collapses.

    Args:
        name: `quick` or `paper`.
        dataset: name of the data set, with or without a version (`mnist:3.0.1`).
        arch: network.
        trainings: objectives.
    """
    bare = dataset.split(":")[0]
    eps, step = _EPS_AND_STEP.get(bare, (8 / 255, 2 / 255))
    if name == "paper":
        return RunConfig(
            arch=arch, dataset=dataset, preset=name, trainings=trainings, seeds=3, epochs=200, held_out=_HELD_OUT,
            optimizer=Optimizer(weight_decay=0.0 if bare == "mnist" else 5e-4),
            attack=PGD(eps=eps, steps=7, step_size=step),
            studies=("all",),
            study_samples=1000,
            information=InformationConfig(samples=5000, label_free="epochs"),
            evaluation=Evaluation(samples=10_000, autoattack=("standard",), autoattack_samples=10_000, checks=100),
        )  # fmt: skip
    return RunConfig(
        arch=arch, dataset=dataset, preset=name, trainings=trainings, seeds=3, epochs=6, batch_size=64,
        width=1.0 if arch in SMALL_NETWORKS else 0.125,
        limit=3000,
        held_out=_HELD_OUT if "fast" in trainings else 0.0,
        optimizer=Optimizer(name="adam", learning_rate=4e-3, weight_decay=1e-4, schedule="triangle"),
        attack=PGD(eps=eps, steps=3, step_size=eps / 2),
        attack_warmup=2.0,
        studies=("shape_bias",) if dataset == "shapetex" else (),
        evaluation=Evaluation(samples=250),
    )  # fmt: skip
