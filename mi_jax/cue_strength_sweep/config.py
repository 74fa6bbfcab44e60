"""The grid of a sweep over cue strengths.

The strength of a cue is rho = amplitude / eps: an attacker of radius eps can erase the cue if and only if rho <= 1.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from mi_jax import checks
from mi_jax.attacks import PGD
from mi_jax.errors import InputError
from mi_jax.runs.config import MOST_SEEDS

Norm = Literal["linf", "l2"]
Scale = Literal["fine", "coarse"]
_PIXELS = math.prod((32, 32, 3))


@dataclass(frozen=True)
class Sweep:
    """What a sweep over cue strengths trains and measures.

    Attributes:
        rho_shape: strengths of the shape, amplitude over eps: above 1 no attacker of that radius can erase it.
        rho_texture: strengths of the texture.
        norms: of the adversarial trainings, `linf`, `l2`. The L2 ball has the radius at which it, too, can just erase
            a texture of strength 1: eps times the square root of the number of pixel values.
        noise_training: also train on Gaussian noise of standard deviation eps, as a control without an adversary.
        seeds: number of seeds; all trainings of a seed start from the same weights.
        coarse: which cells are repeated with textures as coarse as the shapes: `none`, the `diagonal` of equal
            strengths, or `all`.
        eps: radius of the Linf attacker, pixel units of [0, 1].
        arch: network.
        width: multiplier of the width of its layers.
        n_train: training images per cell.
        epochs: passes over them.
        clean_epochs: how many of these are on clean images and shared by all trainings of a seed: a network attacked
            from the first update may collapse to a constant prediction.
        batch_size: images per update.
        learning_rate: highest learning rate of Adam.
        steps: steps of the attack in training.
        samples: images that are attacked in evaluation, and images of each diagnostic set.
        evaluation: `pgd` (20 steps, `restarts` random starts) or `autoattack` (standard).
        restarts: restarts of `pgd`.
        population: train the seeds in parallel (`vmap`) or in turn (`loop`); `auto` is in turn on a CPU.

    Raises:
        InputError: for an empty grid, strengths that leave the range of pixels or name the same cell, sizes below 1,
            batches larger than the training images, or a learning rate that is not positive.
    """

    rho_shape: tuple[float, ...] = (1.0, 2.0, 4.0)
    rho_texture: tuple[float, ...] = (1.0, 2.0, 4.0)
    norms: tuple[Norm, ...] = ("linf", "l2")
    noise_training: bool = True
    seeds: int = 3
    coarse: Literal["none", "diagonal", "all"] = "none"
    eps: float = 8 / 255
    arch: str = "cnn"
    width: float = 0.5
    n_train: int = 2000
    epochs: int = 10
    clean_epochs: int = 2
    batch_size: int = 64
    learning_rate: float = 3e-3
    steps: int = 3
    samples: int = 300
    evaluation: Literal["pgd", "autoattack"] = "pgd"
    restarts: int = 1
    population: Literal["auto", "vmap", "loop"] = "auto"

    def __post_init__(self):
        for name in ("rho_shape", "rho_texture", "norms"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise InputError(f"Invalid {name} {values!r}: expected at least one value, each once.")
        checks.positive("eps", self.eps)
        for name in ("rho_shape", "rho_texture"):
            for value in getattr(self, name):
                checks.positive(name, value)
            if len({f"{value:g}" for value in getattr(self, name)}) < len(getattr(self, name)):
                raise InputError(
                    f"Invalid {name} {getattr(self, name)!r}: expected strengths that differ in their first six "
                    "digits, by which cells are named."
                )
        largest = (max(self.rho_shape) + max(self.rho_texture)) * self.eps
        if largest > 0.5:
            raise InputError(
                f"The largest amplitudes add up to {largest:.2f} around grey, more than the 0.5 that pixels allow; "
                "lower eps or the cue strengths."
            )
        checks.count("seeds", self.seeds, most=MOST_SEEDS)
        for name in ("n_train", "epochs", "batch_size", "steps", "restarts"):
            checks.count(name, getattr(self, name))
        checks.between("batch_size", self.batch_size, 1, self.n_train)
        checks.positive("learning_rate", self.learning_rate, usual="0.003")
        if not 0 <= self.clean_epochs < self.epochs:
            raise InputError(f"Invalid clean_epochs {self.clean_epochs}: expected 0 to {self.epochs - 1}.")
        checks.count("samples", self.samples, 100)  # the factorial set has 100 kinds of images

    @property
    def cells(self) -> tuple["Cell", ...]:
        """The cells in the order in which they are trained, the coarse ones last."""
        grid = list(itertools.product(self.rho_shape, self.rho_texture))
        fine = [Cell(s, t, "fine") for s, t in grid]
        coarse = {"none": [], "all": grid, "diagonal": [(s, t) for s, t in grid if s == t]}[self.coarse]
        return (*fine, *(Cell(s, t, "coarse") for s, t in coarse))

    @property
    def trainings(self) -> tuple[tuple[str, str, Norm | None], ...]:
        """Name, objective and norm of every training, the normal one first."""
        noise = (("noise", "noise", None),) if self.noise_training else ()
        return (("nt", "nt", None), *noise, *((f"at-{norm}", "at", norm) for norm in self.norms))

    def radius(self, norm: Norm) -> float:
        """Radius of the attacker's ball."""
        return self.eps * (1.0 if norm == "linf" else math.sqrt(_PIXELS))

    def training_attack(self, norm: Norm) -> PGD:
        """The inner attack of adversarial training; its steps add up to 1.5 radii."""
        radius = self.radius(norm)
        return PGD(norm=norm, eps=radius, steps=self.steps, step_size=1.5 * radius / self.steps)

    def strong_attack(self, norm: Norm) -> PGD:
        """The attack under which trained networks are evaluated."""
        radius = self.radius(norm)
        return PGD(norm=norm, eps=radius, steps=20, step_size=radius / 8, restarts=self.restarts, keep="best")


class Cell(NamedTuple):
    """One pair of cue strengths with one family of textures."""

    rho_shape: float
    rho_texture: float
    scale: Scale

    @property
    def name(self) -> str:
        """The name in the column `cell` of its records, such as `rho_shape=2,rho_texture=0.5,fine`."""
        return f"rho_shape={self.rho_shape:g},rho_texture={self.rho_texture:g},{self.scale}"
