"""A grid of cue margins: its cells, their images and what is measured on a network in one. It trains nothing.

The margin rho = amplitude / eps says whether an attacker can erase a cue (rho <= 1) or not.
"""

import functools
import itertools
import math
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax.attacks import PGD, Budget, autoattack
from mi_jax.data import ShapeTex, Split, shapetex, to_float
from mi_jax.data.shapetex import SHAPES, Scene
from mi_jax.errors import InputError
from mi_jax.measure.accuracy import attack_columns, misclassified_under
from mi_jax.measure.autoattack import autoattack_columns
from mi_jax.models import Network
from mi_jax.records.table import Record
from mi_jax.studies.shape_texture import information, shape_bias
from mi_jax.training import evaluate, predictions
from mi_jax.typing import Key, Variables

Norm = Literal["linf", "l2"]
Scale = Literal["fine", "coarse"]
_PIXELS = math.prod((32, 32, 3))
_BASE = ShapeTex()


@dataclass(frozen=True)
class Sweep:
    """What a margin sweep trains and measures.

    Attributes:
        rho_shape: margins of the shape, amplitude over eps: above 1 no attacker of that reach can erase it.
        rho_texture: margins of the texture.
        norms: of the adversarial trainings, `linf`, `l2`. The L2 ball has the radius at which it, too, can just erase
            a texture of margin 1: eps times the square root of the number of pixel values.
        noise_training: also train on Gaussian noise of standard deviation eps, which has no adversary.
        seeds: how many; all trainings of a seed start from the same weights.
        coarse: where textures as coarse as the shapes are swept, too: in `none` of the cells, on the `diagonal` of
            equal margins, or in `all`.
        eps: reach of the Linf attacker, pixel units of [0, 1].
        arch: network.
        width: multiplier of its layers' width.
        n_train: training images a cell.
        epochs: passes over them.
        clean_epochs: how many of these every training of a seed begins with, on clean images and together: a network
            that knows nothing yet answers a strong attacker with a constant, and never learns more.
        batch_size: images an update.
        learning_rate: of Adam, at its highest.
        steps: of the attack in training.
        samples: images that are attacked in evaluation, and of each set that is looked at.
        evaluation: `pgd` (20 steps, `restarts` random starts) or `autoattack` (standard).
        restarts: of `pgd`.
        population: train the seeds side by side (`vmap`) or in turn (`loop`); `auto` takes turns on a CPU.

    Raises:
        InputError: for an empty grid, margins that leave the range of pixels, or sizes below 1.
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
                raise InputError(f"{name.replace('_', '-')} is {values!r}; give at least one value, each once.")
        if not self.eps > 0:
            raise InputError(f"eps is {self.eps!r}; a margin is a multiple of it, so it must be positive.")
        if min(*self.rho_shape, *self.rho_texture) <= 0:
            raise InputError("margins are positive multiples of eps; leave out 0 and negative ones.")
        largest = (max(self.rho_shape) + max(self.rho_texture)) * self.eps
        if largest > 0.5:
            raise InputError(
                f"the largest margins add up to {largest:.2f} around grey, beyond the 0.5 that pixels have; "
                "lower eps or the margins."
            )
        for name in ("seeds", "n_train", "epochs", "batch_size", "steps", "restarts"):
            if getattr(self, name) < 1:
                raise InputError(f"{name.replace('_', '-')} is {getattr(self, name)}; expected at least 1.")
        if not 0 <= self.clean_epochs < self.epochs:
            raise InputError(
                f"clean-epochs is {self.clean_epochs}; expected 0 to {self.epochs - 1}, fewer than there are epochs."
            )
        if self.samples < 100:
            raise InputError(
                f"samples is {self.samples}; the factorial set has 100 kinds of images, give at least 100."
            )

    @property
    def cells(self) -> tuple["Cell", ...]:
        """The cells in the order in which they are done, the coarse ones last."""
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
        """The inner attack of adversarial training: its steps reach half as far again as the ball."""
        radius = self.radius(norm)
        return PGD(norm=norm, eps=radius, steps=self.steps, step_size=1.5 * radius / self.steps)

    def strong_attack(self, norm: Norm) -> PGD:
        """The attack that judges the trained networks."""
        radius = self.radius(norm)
        return PGD(norm=norm, eps=radius, steps=20, step_size=radius / 8, restarts=self.restarts, keep="best")


class Cell(NamedTuple):
    """One pair of margins with one family of textures. Its name is the `cell` of its records."""

    rho_shape: float
    rho_texture: float
    scale: Scale

    @property
    def name(self) -> str:
        """Such as `rho_shape=2,rho_texture=0.5,fine`."""
        return f"rho_shape={self.rho_shape:g},rho_texture={self.rho_texture:g},{self.scale}"


def cell_sets(sweep: Sweep, cell: Cell) -> tuple[Split, dict[str, Split]]:
    """Training images of a cell, and its test sets; `swapped` are the conflict images at exchanged amplitudes."""
    shape, texture = cell.rho_shape * sweep.eps, cell.rho_texture * sweep.eps
    config = replace(_BASE, shape_amplitude=shape, texture_amplitude=texture, texture_scale=cell.scale)
    scenes = _scenes(cell.scale, sweep.n_train, sweep.samples)
    sets = {name: shapetex.split(scenes[name], config) for name in ("redundant", "conflict", "factorial")}
    sets["swapped"] = shapetex.split(scenes["conflict"], config, shape_amplitude=texture, texture_amplitude=shape)
    return shapetex.split(scenes["train"], config), sets


@functools.lru_cache(maxsize=2)
def _scenes(scale: Scale, n_train: int, samples: int) -> dict[str, Scene]:
    """What all cells are composed of: the cells differ in amplitude alone."""
    config = replace(_BASE, texture_scale=scale, n_train=n_train, n_test=2 * samples)
    limits = {"train": n_train, "redundant": samples, "conflict": samples // 90 * 90, "factorial": 2 * samples}
    return {name: shapetex.scene(config, name, limit=limit) for name, limit in limits.items()}  # pyright: ignore[reportArgumentType]


def _names() -> dict[str, tuple[str, ...]]:
    return {"shape": SHAPES, "texture": _BASE.texture_names}


def pixels(split: Split) -> jax.Array:
    """The images of a set in [0, 1], `[n h w c]`."""
    return to_float(jnp.asarray(split.images))


def measure(
    sweep: Sweep, network: Network, variables: Variables, sets: dict[str, Split], seed: int, norms: tuple[Norm, ...]
) -> list[Record]:
    """What one network of a cell does, as records without the columns that name it.

    `shape_bias` with its interval and `cue_coverage` on conflict images (image set `conflict`) and on the same at
    exchanged amplitudes (`conflict_swapped`); accuracy on redundant images, clean and under a strong attack; by a
    probe of the logits `i_t_shape`, `i_t_texture`, and `i_t_shuffled`, which is 0 within error.

    Args:
        sweep: sizes and attacks.
        network: what is measured.
        variables: its variables.
        sets: from `cell_sets`.
        seed: of random starts and shuffled labels.
        norms: of the strong attacks; none for controls.
    """
    found = []
    for name, image_set in (("conflict", "conflict"), ("swapped", "conflict_swapped")):
        predicted = np.argmax(np.asarray(predictions(network, variables, pixels(sets[name]))), axis=1)
        rows = shape_bias.bias_records(predicted, sets[name].factors, class_names=_names(), inputs="clean")
        found += [replace(row, image_set=image_set) for row in rows if row.factor is None]
    redundant = sets["redundant"]
    images, labels, n = pixels(redundant), jnp.asarray(redundant.labels), len(redundant)
    accuracy = evaluate(network, variables, images, labels)[1]
    found.append(_accuracy_record(accuracy, n, inputs="clean"))
    for norm in norms:
        key = jax.random.fold_in(jax.random.key(seed), 1)
        wrong, made_by = _attacked(sweep, network, variables, images, labels, key, norm)
        found.append(_accuracy_record(1 - float(np.mean(wrong)), n, inputs="adversarial", **made_by))
    factorial, half = sets["factorial"], sweep.samples
    t = np.asarray(predictions(network, variables, pixels(factorial)))
    factors = {name: factorial.factors[name] for name in shape_bias.CUES}
    factors["shuffled"] = np.random.default_rng(seed).permutation(factors["shape"])
    first, last = ({name: v[part] for name, v in factors.items()} for part in (slice(half), slice(half, None)))
    layer = network.layers[-1]
    probes = information.probe_layer(
        t[:half], first, t[half:], last, num_classes=len(SHAPES), layer=layer, inputs="clean", image_set="factorial"
    )
    return found + probes.records


def _attacked(sweep, network, variables, images, labels, key: Key, norm: Norm) -> tuple[Any, dict[str, Any]]:
    if sweep.evaluation == "autoattack":
        result = autoattack(network.logits, variables, images, labels, key, norm=norm, eps=sweep.radius(norm))
        return result.success, autoattack_columns(norm, sweep.radius(norm), "standard", Budget())
    attack = sweep.strong_attack(norm)
    return misclassified_under(network, variables, images, labels, key, attack=attack), attack_columns(attack)


def _accuracy_record(value: float, n: int, **columns: Any) -> Record:
    error = math.sqrt(value * (1 - value) / n)
    return Record(quantity="accuracy", value=value, stderr=error, unit="1", n=n, image_set="test", **columns)
