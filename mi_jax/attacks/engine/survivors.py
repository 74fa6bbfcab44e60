"""Runs an attack on rows of which those of broken images are dropped, so that the batch shrinks as it goes.

The loop runs on the host, between compiled chunks of iterations. Batches have a few sizes, each twice the one before.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax import checks, parallel
from mi_jax.attacks.attack import Attack, Batch
from mi_jax.attacks.engine.input_checks import Model
from mi_jax.attacks.engine.run import BLOCK, noise_key, predict, problem_of, start_bits, step_bits, steps
from mi_jax.errors import InputError
from mi_jax.typing import Key

SMALLEST_BUCKET = 16
MARKS = (0, 2, 5, 10, 20, 35, 55, 80, 120, 180)
"""Iterations after which broken images are dropped; later, at the end of each block."""
WORTH_SHRINKING = 4
"""A batch shrinks by at least this factor, since each attack is compiled for every new size."""


class PlacedModel:
    """The model with its variables on the devices: `rows` at once in an attack, `batch` images at once for logits.

    Args:
        model: the model.
        variables: its first argument.
        key: random key for the evaluation.
        count: number of images.
        batch_size: rows at once, a power of two; None for 64 on CPU and 2048 on each accelerator.
        mesh: devices that share the rows of each batch; None for one device. All of its processes attack together.
        random: whether the model takes a key.

    Raises:
        InputError: for another batch size.
    """

    def __init__(
        self, model: Model, variables: Any, key: Key, count: int, batch_size: int | None, mesh: parallel.Mesh | None,
        *, random: bool,
    ):  # fmt: skip
        mesh = parallel.with_automatic_axes(mesh)
        devices = 1 if mesh is None else mesh.size
        self.model, self.key, self.random, self.mesh = model, key, random, mesh
        self.variables = variables if mesh is None else parallel.replicated(mesh, variables)
        self._smallest = -(-SMALLEST_BUCKET // devices) * devices
        self.rows = self.bucket(_rows_at_once(batch_size, devices))
        self.batch = min(self.rows, self.bucket(count))

    def bucket(self, count: int) -> int:
        """The smallest batch size of at least `count` rows that the devices can share."""
        return self._smallest << (-(-count // self._smallest) - 1).bit_length()

    def place(self, tree: Any) -> Any:
        """Arrays whose first axis is rows, on the devices."""
        return parallel.sharded(self.mesh, tree)

    def take(self, tree: Any, places: np.ndarray) -> Any:
        """Picks rows on the host: on the device, a gather would be compiled for every pair of batch sizes."""
        return self.place(jax.tree.map(lambda a: parallel.on_host(a)[places], tree))

    def logits(self, images: np.ndarray, salt: int = 0, index: np.ndarray | None = None) -> np.ndarray:
        """Logits [n k] of any number of images, in padded batches of one size.

        Args:
            images: the images.
            salt: tells apart the draws of a random model's noise.
            index: of each image among all, on which that noise depends; 0, 1, ... by default.
        """
        index, parts = np.arange(len(images)) if index is None else index, []
        for first in range(0, len(images), self.batch):
            batch = images[first : first + self.batch]
            noise = noise_key(self.key, index[first], salt) if self.random else None
            made = predict(self.model, self.variables, self.padded(batch), noise)
            parts.append(parallel.on_host(made)[: len(batch)])
        return np.concatenate(parts)

    def padded(self, images: np.ndarray) -> jax.Array:
        """A batch of at most `batch` images, filled up with the last one, on the devices."""
        return self.place(np.concatenate([images, np.repeat(images[-1:], self.batch - len(images), axis=0)]))


def _rows_at_once(batch_size: int | None, devices: int) -> int:
    if batch_size is None:
        return 64 if parallel.backend() == "cpu" else 2048 * devices
    checks.count("batch_size", batch_size, usual="256")
    if batch_size & (batch_size - 1):
        raise InputError(f"batch_size must be a power of two, such as 256; got {batch_size!r}.")
    return max(int(batch_size), SMALLEST_BUCKET)


@functools.partial(jax.jit, static_argnums=1)
def _begin(config: Attack, model, variables, noise, batch, bits):
    # Copies, because `_advance` donates each leaf of the state, and some are the clean images.
    return jax.tree.map(jnp.copy, config.initial_state(problem_of(config, model, variables, noise, batch), bits))


@functools.partial(jax.jit, static_argnums=1, donate_argnames="state")
def _advance(config: Attack, model, variables, noise, batch, state, bits, first, count):
    return steps(config, problem_of(config, model, variables, noise, batch), state, bits, first, count)


def attack_rows(
    model: PlacedModel,
    config: Attack,
    rows: Batch,
    image: np.ndarray,
    keys: jax.Array,
    key: Key,
    confirm: Callable[[np.ndarray, np.ndarray], np.ndarray],
    report_progress: Callable[[float], None],
    faults: np.ndarray,
) -> tuple[dict[int, np.ndarray], set[int]]:
    """Runs all iterations of an attack on a batch of rows.

    Rows whose image is confirmed as broken are dropped. For a random model, where one draw of the noise proves little,
    none are: as in the official code, the last misclassified iterate is confirmed at the end, once per image.

    Args:
        model: the model.
        config: the attack; its traced settings have one value per row [r 1 1 1].
        rows: the rows, as NumPy arrays.
        image: index of each row's image.
        keys: one for each row of the full batch, so that its compiled generators serve every batch size.
        key: random key for a random model's noise.
        confirm: `confirm(image, adversarial)` returns which adversarial images count.
        report_progress: called with the share that is done.
        faults: [2, n], updated with the largest share of steps with a zero and with a non-finite gradient.

    Returns:
        An adversarial image for each confirmed image, and the images where the attack found one.
    """
    shape, total = rows.images.shape[1:], config.iterations
    noise = noise_key(key, image[0]) if model.random else None
    places = np.arange(model.bucket(len(image))) % len(image)
    live = np.arange(len(places)) < len(image)
    bits = start_bits(config, keys, shape)
    config, rows = model.take((config, rows), places)
    model_arguments = (model.model, model.variables, noise)
    state = _begin(config, *model_arguments, rows, None if bits is None else bits[: len(places)])
    block, broken, hit = -1, {}, set()
    marks = [*[m for m in MARKS if m < total], *range(BLOCK, total, BLOCK), total]
    for first, after in itertools.pairwise(marks):
        if first // BLOCK != block:
            block = first // BLOCK
            words = step_bits(config, keys, block, shape)
        here = None if words is None else words[places]
        state = _advance(config, *model_arguments, rows, state, here, first, after - first)
        seen = config.outcome(state).faults
        if seen is not None:
            for kind, counts in enumerate(seen):
                shares = parallel.on_host(counts)[live] / max(1, config.gradients)
                np.maximum.at(faults[kind], image[places[live]], shares)
        if after == total or not model.random:
            hits = np.flatnonzero(parallel.on_host(state.found) & live)
            if model.random:
                hits = hits[np.unique(image[places[hits]], return_index=True)[1]]
            if len(hits):
                aimed, adversarial = image[places[hits]], parallel.on_host(state.images)[hits]
                agreed = confirm(aimed, adversarial)
                # The first row of an image counts.
                broken |= dict(zip(aimed[agreed][::-1].tolist(), adversarial[agreed][::-1], strict=True))
                hit.update(aimed.tolist())
                live &= ~np.isin(image[places], list(broken))
        report_progress(after / total)
        left = int(live.sum())
        if left == 0:
            break
        if model.bucket(left) * WORTH_SHRINKING <= len(places):
            keep = np.resize(np.flatnonzero(live), model.bucket(left))
            config, rows, state = model.take((config, rows, state), keep)
            places = places[keep]
            live = np.arange(len(keep)) < left
    return broken, hit
