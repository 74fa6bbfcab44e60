"""Times PGD and adversarial training of VGG-11 against torchattacks and the usual torch loop.

Prints seconds, ratios and the fraction of the machine's matrix-product rate. Needs the extra `bench`.
"""

import dataclasses
import functools
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torchattacks
from timing import matmul_rate, timed  # pyright: ignore[reportMissingImports]
from torch_vgg import channels_last, vgg11  # pyright: ignore[reportMissingImports]

from mi_jax import data, models
from mi_jax.attacks import PGD, pgd
from mi_jax.models.cost import matmul_flops
from mi_jax.training import ObjectiveConfig, Optimizer, Trainer

EPS, STEP = 8 / 255, 2 / 255


@dataclasses.dataclass(frozen=True)
class Timing:
    """Median seconds of one task in mi_jax and in torch, with the same images and weights."""

    work: str
    ours: float
    theirs: float
    target: float
    flops: float
    """Number of operations of convolutions and matrix products."""
    agreement: str
    """Losses of both, which show that they computed the same."""

    @property
    def ratio(self) -> float:
        """How many times as fast as torch."""
        return self.theirs / self.ours


def main(*, repeats: int = 3, quick: bool = False) -> list[Timing]:
    """Time every task in turn with torch, after one call of each for compilation and warm-up, and print a table.

    Args:
        repeats: number of timed calls of each.
        quick: use batches of 8 and one repeat, as a smoke test.
    """
    repeats = 1 if quick else repeats
    sizes = ((1.0, 8), (0.25, 8)) if quick else ((1.0, 32), (0.25, 128))
    updates = 2 if quick else 4
    rate, threads = matmul_rate(), torch.get_num_threads()
    print(f"{jax.default_backend()}, jax {jax.__version__}, torch {torch.__version__} with {threads} threads")
    print(f"a square matrix product of 2048 runs at {rate / 1e9:.0f} GFLOP/s")
    print(f"{'':<44}{'ours s':>8}{'torch s':>9}{'ratio':>7}{'target':>8}{'of rate':>9}")
    timings = []
    for task in [
        *(functools.partial(attack, width, batch, repeats) for width, batch in sizes),
        *(functools.partial(epoch, width, batch, updates, repeats) for width, batch in sizes),
    ]:
        t = task()
        timings.append(t)
        share = t.flops / t.ours / rate
        line = f"{t.work:<44}{t.ours:>8.3f}{t.theirs:>9.3f}{t.ratio:>7.2f}{t.target:>8}{share:>9.0%}  {t.agreement}"
        print(line, flush=True)
    return timings


def attack(width: float, batch: int, repeats: int) -> Timing:
    """PGD-10 with a random start on one batch, against torchattacks."""
    network, variables = calibrated(width, batch)
    x, y = images(batch)
    torch_network = vgg11(variables, width=width).requires_grad_(False)
    torch_x, torch_y = channels_last(x), torch.tensor(y).long()
    config, key = PGD(eps=EPS, steps=10, step_size=STEP), jax.random.key(0)
    peer = torchattacks.PGD(torch_network, eps=EPS, alpha=STEP, steps=10)

    def ours() -> Any:
        return pgd(network.logits, variables, x, y, key, config=config)

    seconds, peers, result, found = in_turn(ours, lambda: peer(torch_x, torch_y), repeats)
    with torch.no_grad():
        theirs = torch.nn.functional.cross_entropy(torch_network(found), torch_y).item()
    agreement = f"loss under attack {float(jnp.mean(result.loss)):.3f} and {theirs:.3f}"
    flops = 21 * batch * forward_flops(network)  # 10 gradients of the input, each twice a forward, and one forward
    return Timing(f"PGD-10, VGG-11 width {width:g}, batch {batch}", seconds, peers, 1.2, flops, agreement)


def epoch(width: float, batch: int, updates: int, repeats: int) -> Timing:
    """Adversarial training (PGD-7, SGD with momentum) for a few updates, against the usual loop with torchattacks."""
    network, variables = calibrated(width, batch)
    x, y = images(batch * updates)
    config = PGD(eps=EPS, steps=7, step_size=STEP)
    optimizer = Optimizer(learning_rate=0.01, schedule="constant", weight_decay=5e-4)
    trainer = Trainer(
        network=network, objective="at", objective_config=ObjectiveConfig(attack=config), optimizer=optimizer,
        augmentation=data.Augmentation(), epochs=1, batch_size=batch, examples=len(y), seeds=(0,),
    )  # fmt: skip
    pixels, labels = jnp.asarray(np.round(x * 255).astype(np.uint8)), jnp.asarray(y)
    start = trainer.init(pixels)

    def ours() -> Any:
        state = jax.tree.map(jnp.copy, {**start, "variables": variables})
        return trainer.advance(state, pixels, labels, 0, updates)["totals"]["loss"] / updates

    seconds, peers, loss, peer_loss = in_turn(ours, lambda: torch_epoch(variables, width, x, y, batch, config), repeats)
    agreement = f"mean loss {float(loss):.3f} and {peer_loss:.3f}"
    flops = 17 * len(y) * forward_flops(network)
    work = f"AT (PGD-7), VGG-11 width {width:g}, {updates} updates of {batch}"
    return Timing(work, seconds, peers, 1.5, flops, agreement)


def torch_epoch(variables: Any, width: float, x: np.ndarray, y: np.ndarray, batch: int, config: PGD) -> float:
    """The usual loop, which attacks in evaluation mode and updates in training mode; returns the mean loss."""
    torch_network = vgg11(variables, width=width)
    peer = torchattacks.PGD(torch_network, eps=config.eps, alpha=config.step_size, steps=config.steps)
    sgd = torch.optim.SGD(torch_network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    total, starts = 0.0, range(0, len(y), batch)
    for first in starts:
        images, labels = channels_last(x[first : first + batch]), torch.tensor(y[first : first + batch]).long()
        torch_network.eval()
        adversarial = peer(images, labels)
        torch_network.train()
        sgd.zero_grad()
        loss = torch.nn.functional.cross_entropy(torch_network(adversarial), labels)
        loss.backward()
        sgd.step()
        total += loss.item()
    return total / len(starts)


def calibrated(width: float, batch: int) -> tuple[models.Network, dict[str, Any]]:
    """VGG-11 with the running statistics of a batch of ShapeTex."""
    network = models.create("vgg11", num_classes=10, input_shape=(32, 32, 3), width=width)
    variables = network.init(jax.random.key(0))
    x, _ = images(max(batch, 64))
    for _ in range(20):
        variables = {**variables, "batch_stats": _statistics(network, variables, x)}
    return network, variables


def _statistics(network: models.Network, variables: Any, x: np.ndarray) -> Any:
    return jax.jit(network.apply_train)(variables, x, jax.random.key(0))[2]


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """ShapeTex training images `[n 32 32 3]` in [0, 1] with labels."""
    split = data.load("shapetex", limit=max(count, 100)).train
    return split.images[:count] / np.float32(255), split.labels[:count]


def forward_flops(network: models.Network) -> int:
    """Operations of the forward pass of one image by definition, whatever algorithm computes it."""
    plain = dataclasses.replace(network, convolution="lax")
    variables = jax.eval_shape(plain.init, jax.random.key(0))
    return matmul_flops(plain.logits, variables, jax.ShapeDtypeStruct((1, *network.input_shape), jnp.float32))


def in_turn(ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int) -> tuple[float, float, Any, Any]:
    """Median seconds of both, run alternately, and the last result of each."""
    mine, others = jax.block_until_ready(ours()), theirs()
    times = [(timed(ours)[0], timed(theirs)[0]) for _ in range(repeats)]
    seconds, peers = (statistics.median(side) for side in zip(*times, strict=True))
    return seconds, peers, mine, others
