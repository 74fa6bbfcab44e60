"""The compiled part of training: many updates in one call, for one seed or several under `vmap`.

Random draws are a function of (seed, step), and the order of images of (seed, epoch): a training can stop after any
update and resume elsewhere with the same result.
"""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mi_jax import checks, data
from mi_jax.errors import InputError
from mi_jax.models import Network
from mi_jax.models.layers import BATCH_NORM_MOMENTUM
from mi_jax.optax_update import update
from mi_jax.parallel import Mesh, over_batch, over_seeds, replicated
from mi_jax.training import optimizer as optimizers
from mi_jax.training.objectives import OBJECTIVES, ObjectiveConfig
from mi_jax.training.weights import adversarial_weights, averaged
from mi_jax.typing import Variables

State = dict[str, Any]
"""Keys: variables, optimizer (optax state), totals (sums over the current epoch), and average (of the variables) if one
is kept. Leaves have a leading seed axis if there are several seeds."""

_CALIBRATION_IMAGES = 512
_TOTALS = ("loss", "cross_entropy", "correct", "updates")


@dataclass(frozen=True)
class Trainer:
    """One training objective on one data set for some seeds: makes training states and advances them.

    Attributes:
        network: what is trained.
        objective: name in `OBJECTIVES`.
        objective_config: settings and options of the objective.
        optimizer: settings of the optimizer.
        augmentation: applied to every training image, on the device.
        epochs, batch_size, examples: lengths; the last, incomplete batch of an epoch is left out.
        seeds: one, or several different ones that are trained together under `vmap`.
        mesh: devices among which each batch is split along the axis `data`, and seeds along `seed`; None for one
            device.
        awp: size of the adversarial weight perturbation (Wu et al. 2020; theirs is 5e-3), relative to each kernel's
            norm; 0 for none. Objectives without adversarial images ignore it.
        average: decay per update of the moving average of weights (0.995 is usual); 0 for none. The averaged network
            is the one to evaluate.
        attack_warmup: epochs over which adversarial perturbations grow linearly from zero to full length; 0 for
            none. Other objectives ignore it.

    Raises:
        InputError: for an unknown objective, settings with which it cannot train, a batch larger than the data, no or
            equal seeds, an awp or average outside [0, 1), or a negative attack_warmup.
    """

    network: Network
    objective: str
    objective_config: ObjectiveConfig
    optimizer: optimizers.Optimizer
    augmentation: data.Augmentation
    epochs: int
    batch_size: int
    examples: int
    seeds: tuple[int, ...]
    mesh: Mesh | None = None
    awp: float = 0.0
    average: float = 0.0
    attack_warmup: float = 0.0

    def __post_init__(self):
        known = OBJECTIVES.get_or_explain(self.objective).architectures
        if known and self.network.arch not in known:
            raise InputError(
                f"The training {self.objective} needs the architecture {' or '.join(known)}, not {self.network.arch}."
            )
        self.objective_config.objective(self.objective).check(self.objective_config)
        for seed in self.seeds:
            checks.count("seed", seed, 0, 2**32 - 1)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"Invalid seeds {self.seeds!r}: expected at least one, all different.")
        if self.examples < 1:
            raise InputError("The data set has no training images; it can only be evaluated.")
        checks.count("epochs", self.epochs)
        checks.count("batch_size", self.batch_size)
        checks.between("batch_size", self.batch_size, 1, self.examples)
        checks.share("awp", self.awp, usual="0.005")
        checks.share("average", self.average, usual="0.995")
        checks.at_least("attack_warmup", self.attack_warmup, 0)

    @property
    def steps_per_epoch(self) -> int:
        """Updates per epoch."""
        return self.examples // self.batch_size

    @property
    def total_steps(self) -> int:
        """Updates of the whole training."""
        return self.epochs * self.steps_per_epoch

    def init(self, images: Any) -> State:
        """The state before the first update: the same for every objective of one seed.

        Batch statistics are those of the first training images, so that the untrained network is a meaningful
        reference and the first attacks are made on a normalised network.

        Args:
            images: uint8 training images `[n h w c]`.
        """
        start = _transformation(self).init
        totals = {name: jnp.zeros(len(self.seeds), jnp.float32) for name in _TOTALS}
        if len(self.seeds) > 1:
            start = jax.vmap(start)
        else:
            totals = {name: total[0] for name, total in totals.items()}
        variables = _initial_variables(self.network, self._keys(), jnp.asarray(images[:_CALIBRATION_IMAGES]))
        state = {"variables": variables, "optimizer": start(variables["params"]), "totals": totals}
        # A copy, because `advance` donates each leaf of the state.
        return {**state, "average": jax.tree.map(jnp.copy, variables)} if self.average else state

    def evaluated(self, state: State) -> Variables:
        """The variables to evaluate: the averaged ones if an average is kept."""
        return state["average"] if self.average else state["variables"]

    def advance(self, state: State, images: Any, labels: Any, first: int, last: int) -> State:
        """The state after updates `first` to `last - 1`, all of one epoch. Donates the old state.

        Args:
            state: after `first` updates.
            images: uint8 training images `[n h w c]`, on the device.
            labels: int32 `[n]`.
            first, last: updates, counted from the start of training; compiled once for all values.
        """
        if first // self.steps_per_epoch != (last - 1) // self.steps_per_epoch:
            raise ValueError(f"updates {first} to {last - 1} are not of one epoch of {self.steps_per_epoch}")
        # Seeds enter through the keys alone: all seeds share one compiled program.
        any_seeds = dataclasses.replace(self, seeds=tuple(range(len(self.seeds))))
        return _advance(any_seeds, state, images, labels, self._keys(), np.int32(first), np.int32(last))

    def members(self, state: State) -> list[tuple[int, State]]:
        """The state of each seed, on all devices."""
        if len(self.seeds) == 1:
            return [(self.seeds[0], state)]
        states = [jax.tree.map(lambda leaf, i=i: leaf[i], state) for i in range(len(self.seeds))]
        return list(zip(self.seeds, states if self.mesh is None else replicated(self.mesh, states), strict=True))

    def join(self, states: list[State]) -> State:
        """The inverse of `members`: one state of all seeds, in their order, on the devices that train them."""
        return self.place(states[0] if len(states) == 1 else jax.tree.map(lambda *leaves: jnp.stack(leaves), *states))

    def place(self, state: State) -> State:
        """The state on the devices: seeds shared over the axis `seed` of the mesh, if there is one."""
        return over_seeds(self.mesh, state, len(self.seeds))

    def _keys(self) -> jax.Array:
        keys = jax.vmap(jax.random.key)(jnp.asarray(self.seeds, jnp.uint32))
        return keys[0] if len(self.seeds) == 1 else keys


@functools.partial(jax.jit, static_argnums=0)
def _initial_variables(network: Network, keys: jax.Array, images: jax.Array) -> Variables:
    def one(key):
        init_key, _, _ = jax.random.split(key, 3)
        return _calibrated(network, network.init(init_key), images)

    return jax.vmap(one)(keys) if keys.ndim else one(keys)


def _calibrated(network: Network, variables: Variables, images: jax.Array) -> Variables:
    """Variables whose running batch statistics are those of the given images."""
    if not variables["batch_stats"]:
        return variables
    old = variables["batch_stats"]
    _, _, updated = network.apply_train(variables, data.to_float(images), jax.random.key(0))
    # updated = m old + (1 - m) batch, so batch = old + (updated - old) / (1 - m)
    batch = jax.tree.map(lambda a, b: a + (b - a) / (1 - BATCH_NORM_MOMENTUM), old, updated)
    return {**variables, "batch_stats": batch}


def _transformation(trainer: Trainer) -> optax.GradientTransformation:
    return optimizers.build(trainer.optimizer, epochs=trainer.epochs, steps_per_epoch=trainer.steps_per_epoch)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _advance(trainer: Trainer, state: State, images, labels, keys, first, last) -> State:
    one = functools.partial(_advance_one, trainer)
    if len(trainer.seeds) > 1:
        axis = "seed" if trainer.mesh is not None and "seed" in trainer.mesh.shape else None
        one = jax.vmap(one, in_axes=(0, None, None, 0, None, None), spmd_axis_name=axis)
    return one(state, images, labels, keys, first, last)


def _advance_one(trainer: Trainer, state: State, images, labels, key, first, last) -> State:
    _, order_key, step_key = jax.random.split(key, 3)
    epoch = first // trainer.steps_per_epoch
    order = data.epoch_order(order_key, epoch, trainer.examples)
    begins = first % trainer.steps_per_epoch == 0
    totals = jax.tree.map(lambda total: jnp.where(begins, 0, total), state["totals"])

    def one_batch(step, carried):
        start = (step - epoch * trainer.steps_per_epoch) * trainer.batch_size
        rows = over_batch(trainer.mesh, jax.lax.dynamic_slice_in_dim(order, start, trainer.batch_size))
        return _update(trainer, carried, step, images[rows], labels[rows], jax.random.fold_in(step_key, step))

    return jax.lax.fori_loop(first, last, one_batch, {**state, "totals": totals})


def _update(trainer: Trainer, state: State, step, batch, labels, key) -> State:
    augment_key, perturb_key, loss_key = jax.random.split(key, 3)
    objective, network = trainer.objective_config.objective(trainer.objective), trainer.network
    x = data.augment(data.to_float(batch), augment_key, pad=trainer.augmentation.pad, flip=trainer.augmentation.flip)
    x, labels = over_batch(trainer.mesh, x), over_batch(trainer.mesh, labels)
    variables = state["variables"]
    perturbed, statistics = objective.perturb(network, variables, x, labels, perturb_key, trainer.objective_config)
    if trainer.attack_warmup and objective.adversarial:
        done = (step + 1).astype(jnp.float32)
        length = jnp.minimum(1.0, done / (trainer.attack_warmup * trainer.steps_per_epoch))
        perturbed = x + length * (perturbed - x)

    def loss_of(params):
        current = {"params": params, "batch_stats": statistics}
        return objective.loss(network, current, x, perturbed, labels, loss_key)

    at = variables["params"]
    if trainer.awp and objective.adversarial:
        uphill, _ = jax.grad(loss_of, has_aux=True)(at)
        at = adversarial_weights(at, uphill, trainer.awp)
    (loss, outcome), gradient = jax.value_and_grad(loss_of, has_aux=True)(at)
    params, optimizer = update(_transformation(trainer), gradient, state["optimizer"], variables["params"])
    correct = jnp.sum(jnp.argmax(outcome.logits, -1) == labels, dtype=jnp.float32)
    cross_entropy = jnp.mean(optax.losses.softmax_cross_entropy_with_integer_labels(outcome.logits, labels))
    totals = state["totals"]
    new: State = {
        "variables": {"params": params, "batch_stats": outcome.batch_stats},
        "optimizer": optimizer,
        "totals": {
            "loss": totals["loss"] + loss,
            "cross_entropy": totals["cross_entropy"] + cross_entropy,
            "correct": totals["correct"] + correct,
            "updates": totals["updates"] + 1,
        },
    }
    if trainer.average:
        new["average"] = averaged(state["average"], new["variables"], step, trainer.average)
    return new
